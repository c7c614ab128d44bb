"""`genie-robotics ablate STUDY`: trains every variant and seed with equal budget, measures each, writes tables."""

import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from genie_datasets import Source
from genie_datasets.base.command_help import Option
from genie_datasets.base.command_line import parse
from genie_datasets.base.errors import UserError
from genie_datasets.base.files import make_folder
from genie_datasets.sources.options import SourceOptions
from genie_datasets.sources.subset import some_episodes
from genie_eval.ablation.studies import STUDIES, find_study
from genie_eval.ablation.study import Study
from genie_robotics.pretrained import locate

SELECTING = ("--only", "--seeds")  # options that select some of the trials


@dataclass
class AblateOptions(SourceOptions):
    """Train every variant of a study with several seeds and equal budget, measure all on the same held-out
    trajectories, and write results.json and table.md. A rerun of the command continues an interrupted one. Several
    processes may share the trials of one folder: run the same command in each, or divide them by --only or --seeds."""

    study: tyro.conf.Positional[str | None] = None
    """Name of a study (default: list them), or a .json or .toml file with a study."""
    data: Annotated[str | None, Option("SRC")] = None
    """Training data: a data set, or a weighted mix A:0.7,B:0.3."""
    out: Annotated[Path | None, Option("DIR")] = None
    """Folder for runs, measurements and tables."""
    seeds: Annotated[str, Option("N,N,...")] = "0,1,2"
    """Training seeds, separated by commas; claims need at least three."""
    steps: int | None = None
    """Optimizer steps of every stage (default: the study's)."""
    only: Annotated[str | None, Option("NAME,...")] = None
    """Variants to run, separated by commas (default: all)."""
    split: Annotated[str | None, Option("NAME")] = None
    """Split to train on (default: train, or the only one)."""
    held_out: Annotated[str | None, Option("SRC")] = None
    """Source to measure on (default: the test split of --data)."""
    held_out_split: Annotated[str | None, Option("NAME")] = None
    """Split to measure on (default: test, or all)."""
    held_out_include: Annotated[str | None, Option("GLOBS")] = None
    """Measure only on episodes of --held-out that match one of these globs; --include and --exclude are for --data."""
    trajectories: int = 150
    """Held-out episodes to measure on."""
    clips: int = 64
    """Clips that are dreamt."""
    shared: Annotated[Path | None, Option("RUN")] = None
    """Trained run, or name of a shipped world, whose components replace shared ones of the same configuration."""
    save_every: int = 200
    """Steps between checkpoints."""
    only_table: bool = False
    """Make the tables from the trials measured so far, without training."""
    device: Annotated[str, Option("{auto,cpu,cuda}")] = "auto"
    """Device to compute on."""
    precision: Annotated[str, Option("{auto,bfloat16,float32}")] = "auto"
    """Precision of the training."""


def main(argv: list[str]) -> int:
    """Entry point of `genie-robotics ablate`."""
    options = parse(
        AblateOptions, argv, prog="genie-robotics ablate", example="ablate codes --data SRC --out ablations/codes"
    )
    if options.study is None:
        for study in STUDIES.values():
            print(f"{study.name:<18}{len(study.variants):>3} variants  {study.question}")
        return 0
    study = find_study(options.study)
    check(options)
    assert options.data is not None
    assert options.out is not None
    seeds = parse_seeds(options.seeds)
    make_folder(options.out)
    source = elsewhere = options.open(options.data)
    if options.held_out:
        elsewhere = replace(options, include=options.held_out_include, exclude=None).open(options.held_out)
    ablate(study, source, elsewhere, options, seeds, "genie-robotics ablate " + shlex.join(without_selection(argv)))
    print((options.out / "table.md").read_text())
    print(f"table: {(options.out / 'table.md').resolve()}")
    return 0


def check(options: AblateOptions) -> None:
    """Raises UserError if an option is missing or invalid; replaces the name of a shipped world by its folder."""
    missing = [name for name, value in (("--data SRC", options.data), ("--out DIR", options.out)) if value is None]
    if missing:
        raise UserError(f"ablate {options.study} needs {' and '.join(missing)}")
    for name in ("trajectories", "clips", "steps", "save_every"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    if options.shared is not None:
        options.shared = locate(options.shared)
        if not (options.shared / "config.json").exists():
            raise UserError(f"--shared {options.shared} is no run folder; pass one that genie-robotics train wrote")
    if options.held_out_include and not options.held_out:
        raise UserError("--held-out-include needs --held-out SRC; pass that too")


def without_selection(argv: list[str]) -> list[str]:
    """The arguments without those that select some of the trials: the command that makes the whole table."""
    kept, skip = [], False
    for word in argv:
        name, given = word.partition("=")[0].replace("_", "-"), "=" in word
        if skip or name in SELECTING or name == "--only-table":
            skip = not skip and name in SELECTING and not given
            continue
        kept.append(word)
    return kept


def parse_seeds(text: str) -> list[int]:
    try:
        seeds = [int(word) for word in text.split(",")]
    except ValueError:
        raise UserError(f"--seeds must be whole numbers separated by commas, such as 0,1,2, got {text}") from None
    if min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise UserError(f"--seeds must be different numbers from 0 on, got {text}")
    return seeds


def ablate(
    study: Study, source: Source, elsewhere: Source, options: AblateOptions, seeds: list[int], command: str
) -> dict[str, Any]:
    """Runs the selected trials, one seed after the other, and rebuilds the tables after each.

    Trains on `source` and measures on `elsewhere`, which may be the same source with a split to hold out. command:
    told in the table. Returns the content of results.json.

    Raises:
        UserError: a variant or option is invalid, a trial's folder has other options, or there is no motion.
    """
    from genie_eval.ablation.held_out import HeldOut, Sampling, held_out
    from genie_eval.ablation.plan import Plan, resolve
    from genie_eval.ablation.table import baselines, write_table
    from genie_eval.ablation.trial import StudyRun, run_trial
    from genie_robotics.training.commands import training_split

    assert options.out is not None
    steps, split = options.steps or study.steps, training_split(source.splits, options.split)
    setup = StudyRun(
        study, options.out, source, split, steps, given=options.shared, device=options.device,
        precision=options.precision, save_every=options.save_every,
    )  # fmt: skip
    selected = [study.variant(name) for name in options.only.split(",")] if options.only else study.variants
    for variant in selected:  # before anything is trained
        resolve(study, variant, steps)
        if variant.episodes is not None:
            some_episodes(source, split, variant.episodes, 0)
    sampling = Sampling(trajectories=options.trajectories, clips=options.clips)
    samples: dict[Any, HeldOut] = {}

    def sample(plan: Plan) -> HeldOut:
        """The trajectories in the plan's image size and frame gap, read once for all plans that agree in these."""
        key = (tuple(plan.model.image_size), plan.model.fit, plan.model.gap)
        if key not in samples:
            trained = split if elsewhere is source else None
            samples[key] = held_out(elsewhere, options.held_out_split, plan.model, sampling, trained)
        return samples[key]

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
    for seed in [] if options.only_table else seeds:
        for variant in selected:
            if run_trial(setup, variant, seed, sample):
                found = write_table(study, options.out, about)
    return found or write_table(study, options.out, about)
