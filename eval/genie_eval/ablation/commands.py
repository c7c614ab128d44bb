"""`genie-robotics ablate STUDY`: trains every variant and seed with equal budget, measures each, writes the table."""

import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tyro

from genie_datasets import Source
from genie_datasets.base.command_line import parse
from genie_datasets.base.errors import UserError
from genie_datasets.sources.options import SourceOptions
from genie_datasets.sources.subset import some_episodes
from genie_eval.ablation.studies import STUDIES, find_study
from genie_eval.ablation.study import Study
from genie_eval.checks import make_folder
from genie_robotics.pretrained import locate

PARTS = ("--only", "--seeds")  # options that choose some of the cells


@dataclass
class AblateOptions(SourceOptions):
    """Train every variant of a study with several seeds and equal budget, measure all on the same held-out
    trajectories, and write results.json and table.md. The same command goes on where it was cut; several processes may
    share the work, with other --only or --seeds or the same."""

    study: tyro.conf.Positional[str | None] = None
    """A study's name (without one: they are listed), or a .json or .toml file of your own."""
    data: str | None = None
    """What to train on: RLDS/TFDS directory, frame cache, or a weighted mix A:0.7,B:0.3."""
    out: Path | None = None
    """Folder for runs, measurements and tables."""
    seeds: str = "0,1,2"
    """Of training, with commas. A claim needs three."""
    steps: int | None = None
    """Optimizer steps of every stage; the study's own number, where none is given."""
    only: str | None = None
    """These variants only, with commas."""
    split: str | None = None
    """Split to train on: 'train' if there is one, else the only one."""
    held_out: str | None = None
    """Another source to measure on, instead of --data's own test split."""
    held_out_split: str | None = None
    """Split to measure on: 'test' if there is one, else all."""
    held_out_include: str | None = None
    """Only what matches this glob of --held-out, for which --include and --exclude do not count."""
    trajectories: int = 150
    """Held-out episodes to measure on."""
    clips: int = 64
    """Clips to dream from."""
    shared: Path | None = None
    """A trained run, or a world that comes with the package: its tokenizer and latent actions stand for those that the
    study would train once for all, where they are of the same configuration."""
    save_every: int = 200
    """Steps between checkpoints."""
    only_table: bool = False
    """Train nothing, measure nothing: make the tables from the cells that are there."""
    device: str = "auto"
    """auto, cpu or cuda."""
    precision: str = "auto"
    """auto, bfloat16 or float32."""


def main(argv: list[str]) -> int:
    """Entry point of `genie-robotics ablate`."""
    options = parse(AblateOptions, argv, prog="genie-robotics ablate")
    if options.study is None:
        for study in STUDIES.values():
            print(f"{study.name:<18}{len(study.variants):>3} variants  {study.question}")
        return 0
    study = find_study(options.study)
    if options.data is None or options.out is None:
        missing = [n for n, v in (("--data SRC", options.data), ("--out DIR", options.out)) if v is None]
        raise UserError(f"ablate {options.study} needs {' and '.join(missing)}")
    seeds = numbers(options.seeds)
    for name in ("trajectories", "clips", "steps", "save_every"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1, not {value}")
    if options.shared is not None:
        options.shared = locate(options.shared)
        if not (options.shared / "config.json").exists():
            raise UserError(f"--shared {options.shared} is no run folder: give one that genie-robotics train made")
    if options.held_out_include and not options.held_out:
        raise UserError("--held-out-include is of --held-out SRC: give that too")
    make_folder(options.out)
    source = options.open(options.data)
    elsewhere = source
    if options.held_out:
        elsewhere = replace(options, include=options.held_out_include, exclude=None).open(options.held_out)
    ablate(study, source, elsewhere, options, seeds, "genie-robotics ablate " + shlex.join(whole(argv)))
    print((options.out / "table.md").read_text())
    print(f"table: {(options.out / 'table.md').resolve()}")
    return 0


def whole(argv: list[str]) -> list[str]:
    """The command without what chooses a part of the cells: what makes the table again."""
    kept, skip = [], False
    for word in argv:
        name, given = word.partition("=")[0].replace("_", "-"), "=" in word
        if skip or name in PARTS or name == "--only-table":
            skip = not skip and name in PARTS and not given
            continue
        kept.append(word)
    return kept


def numbers(text: str) -> list[int]:
    try:
        found = [int(word) for word in text.split(",")]
    except ValueError:
        raise UserError(f"--seeds {text}: whole numbers with commas, such as 0,1,2") from None
    if min(found) < 0 or len(set(found)) < len(found):
        raise UserError(f"--seeds {text}: numbers from 0 on, each once")
    return found


def ablate(
    study: Study, source: Source, elsewhere: Source, options: AblateOptions, seeds: list[int], command: str
) -> dict[str, Any]:
    """Runs the cells that were asked for, one seed after the other, and rebuilds the tables after each.

    Trains on `source`, measures on `elsewhere` (the same, where it has a split to hold out). Returns what results.json
    holds.

    Raises:
        UserError: a variant or option that cannot be; a folder with cells of other options; no true motion.
    """
    from genie_eval.ablation.held_out import HeldOut, Sampling, held_out
    from genie_eval.ablation.plan import Plan, resolve
    from genie_eval.ablation.table import baselines, write_table
    from genie_eval.ablation.trial import Bench, run_cell
    from genie_robotics.training.commands import training_split

    assert options.out is not None
    steps = options.steps or study.steps
    chosen = [study.variant(name) for name in (options.only.split(",") if options.only else [])] or study.variants
    for variant in chosen:  # what cannot be, is said before hours of work
        resolve(study, variant, steps)
    split = training_split(source.splits, options.split)
    for variant in chosen:
        if variant.episodes is not None:
            some_episodes(source, split, variant.episodes, 0)
    sampling = Sampling(trajectories=options.trajectories, clips=options.clips)
    samples: dict[Any, HeldOut] = {}

    def sample(plan: Plan) -> HeldOut:
        """The trajectories as the plan's model sees them; read once for all plans that see alike."""
        key = (tuple(plan.model.image_size), plan.model.fit, plan.model.gap)
        if key not in samples:
            trained = split if elsewhere is source else None
            samples[key] = held_out(elsewhere, options.held_out_split, plan.model, sampling, trained)
        return samples[key]

    bench = Bench(
        study, options.out, source, split, steps, given=options.shared, device=options.device,
        precision=options.precision, save_every=options.save_every,
    )  # fmt: skip
    reference = resolve(study, study.variant(study.reference), steps)
    shown = sample(reference)
    about: dict[str, Any] = {
        "command": command,
        "data": f"{source.name} [{split}]",
        "fingerprint": source.fingerprint,
        "held_out": f"{elsewhere.name} [{shown.frames.name}]",
        "fitted_on_it": shown.fitted_on_it,
        "motion": shown.motion,
        "steps": steps,
    }
    if "codes" in study.measure:
        about["baselines"] = baselines(shown, reference.model.num_actions)
    found: dict[str, Any] = {}
    if not options.only_table:
        for seed in seeds:
            for variant in chosen:
                if run_cell(bench, variant, seed, sample):
                    found = write_table(study, options.out, about)
    if not found:
        found = write_table(study, options.out, about)
    return found
