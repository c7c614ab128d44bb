"""`genie-robotics pretrain WORLD`: makes a world that comes with the package, from data to model card.

OUT/data/FAMILY       tabletop data for training
OUT/test              tabletop data with other scenes for the report
OUT/latent_action     its latent action model, trained on the sets that the recipe names for it
OUT/run               the trained world
OUT/judge             a latent action model of another seed, trained on the same data
OUT/world             both, exported as they are shipped, with trust.json and MODEL_CARD.md
OUT/report            the evaluation of OUT/world with its judge
"""

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from genie_datasets.base.command_help import Option
from genie_datasets.base.command_line import parse
from genie_datasets.base.errors import UserError
from genie_eval.demo import Steps, tabletop

if TYPE_CHECKING:
    from genie_datasets import Source
    from genie_eval.pretrain.recipes import Recipe, TabletopSet


@dataclass
class PretrainOptions:
    """Make a world that comes with the package: data, training, independent judge, export, report, model card. A rerun
    of the command continues an interrupted one."""

    world: tyro.conf.Positional[str] = tyro.MISSING
    """Name of the world: nano-tabletop."""
    out: Annotated[Path, Option("DIR")] = tyro.MISSING
    """Folder for all files; the world is in its subfolder `world`."""
    minutes: Annotated[float | None, Option("MINUTES")] = None
    """Training minutes of all stages and the judge together (default: the recipe's steps)."""
    smoke: bool = False
    """Smoke test of every step in about a minute; its numbers mean nothing."""
    device: Annotated[str, Option("{auto,cpu,cuda}")] = "auto"
    """Device of the training."""


def main(argv: list[str]) -> int:
    options = parse(
        PretrainOptions, argv, prog="genie-robotics pretrain", example="pretrain nano-tabletop --out worlds/nano"
    )
    from genie_eval.pretrain.recipes import recipe, smoke

    plan = recipe(options.world)
    if options.minutes is not None and options.minutes <= 0:
        raise UserError(f"--minutes must be above 0, got {options.minutes:g}")
    pretrain(smoke(plan) if options.smoke else plan, options.out, options.minutes, options.device)
    return 0


def pretrain(plan: "Recipe", out: Path, minutes: float | None = None, device: str = "auto") -> Path:
    """Follows the recipe and returns the folder of the exported world; steps that are already done are skipped."""
    from genie_eval.commands import print_scorecard
    from genie_eval.dreams.trust import calibrate_run
    from genie_eval.pretrain.export import export_world, folder_bytes
    from genie_eval.pretrain.model_card import write_card
    from genie_robotics.health.doctor import some_clips
    from genie_robotics.labeling.code_meanings import write_meanings
    from genie_robotics.run_folder import load_config

    steps = Steps(7)
    training = ", ".join(count(data) for data in plan.data)
    steps.begin("data", f"{training} for training, {count(plan.test)} with other scenes for the report")
    data, action_data, evaluated = open_data(plan, out)

    steps.begin("world", "tokenizer, latent action model, dynamics; no actions are read")
    run, actions, judge, world = out / "run", out / "latent_action", out / "judge", out / "world"
    train(plan, action_data, actions, ["latent_action"], minutes, device)
    copy_component(actions, run, "latent_action")
    train(plan, data, run, ["tokenizer", "dynamics"], minutes, device)

    steps.begin("judge", f"a latent action model of seed {plan.judge_seed}, which reads the dreams in the report")
    train(plan, action_data, judge, ["latent_action"], minutes, device, judge=True)

    steps.begin("export", f"to {world}, in 16 bits, without the parts that only training needs")
    clips = some_clips(data.split("train"), load_config(run), plan.clips)
    exported = export_world(run, judge, world, clips)
    changes = ", ".join(f"{name} {value:.4f}" for name, value in exported["rounding"].items())
    print(f"  changed by rounding to {exported['weights']}: {changes}")

    steps.begin("trust", "calibrated on dreams of training tables, next to the simulator")
    trust = calibrate_run(world, data.split("train"), data.fingerprint)
    print(f"  {trust.calibration['wrong_share']:.0%} of the frames of {trust.calibration['tables']} dreams are wrong")

    steps.begin("evaluation", "of the exported world, with its judge")
    report = evaluate_world(plan, evaluated, world, out / "report", exported)
    print_scorecard(report)
    write_meanings(report, world / "codes.json")

    steps.begin("model card", str(write_card(plan, report, world, run, actions, judge)))
    print(f"\nworld: {world.resolve()} ({folder_bytes(world) / 1e6:.1f} MB)")
    print(f"report: {(out / 'report' / 'report.html').resolve()}")
    print(f"(took {steps.minutes:.1f} minutes)")
    return world


def count(data: "TabletopSet") -> str:
    return ", ".join(f"{n} {data.family} episodes ({name})" for name, n in data.episodes.items())


def open_data(plan: "Recipe", out: Path) -> "tuple[Source, Source, Source]":
    """The data of tokenizer and dynamics, those of the latent action models, and the source for the report: `train` of
    the first set and `test` of the test scenes."""
    from genie_datasets.sources.mixture import open_mixture

    sources = [tabletop_source(data, out / "data" / data.family) for data in plan.data]
    test = tabletop_source(plan.test, out / "test")

    def mixture(weights: list[float]) -> "Source":
        used = [(source, weight) for source, weight in zip(sources, weights, strict=True) if weight > 0]
        return open_mixture(str(out / "data"), used)

    data, action_data = mixture([s.weight for s in plan.data]), mixture([s.action_weight for s in plan.data])
    splits = {"train": sources[0].split("train"), "test": test.split("test")}
    fingerprint = f"{sources[0].fingerprint}-{test.fingerprint}"
    return data, action_data, replace(sources[0], path=test.path, splits=splits, fingerprint=fingerprint)


def tabletop_source(data: "TabletopSet", folder: Path) -> "Source":
    """Opens the data set in `folder`, and makes it first if needed.

    Raises:
        UserError: the folder holds a data set of other size.
    """
    from genie_datasets import open_source

    source = open_source(str(tabletop(folder, data.seed, data.episodes, data.family, data.scenes)))
    found = {name: split.num_episodes for name, split in source.splits.items()}
    if found != dict(data.episodes):
        raise UserError(
            f"{folder} holds {found} episodes, expected {dict(data.episodes)} by the recipe; pass another --out"
        )
    return source


def copy_component(source: Path, run: Path, name: str) -> None:
    """Copies a trained component into the folder of another run, unless that has it."""
    if not (run / name).exists():
        part = run / f"{name}.tmp"
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(source / name, part)
        part.rename(run / name)


def train(
    plan: "Recipe", data: "Source", run: Path, stages: list[str], minutes: float | None, device: str,
    judge: bool = False,
) -> None:  # fmt: skip
    """Trains stages of the world, or the latent action model of its judge, which has another seed.

    minutes: of all stages of the world and the judge together.
    """
    from genie_robotics.models.presets import preset
    from genie_robotics.training.config import LoopConfig, training_preset
    from genie_robotics.training.run import RunPlan, train_run

    model, training = preset(plan.preset), training_preset(plan.preset)
    training.mode = "frozen"
    model.clip_length = plan.clip_length or model.clip_length
    model.tokenizer = replace(model.tokenizer, **plan.tokenizer)
    for stage, steps in plan.steps.items():
        training.stage(stage).steps = steps
    if judge:
        training.latent_action.steps = plan.judge_steps
    shares = {stage: training.stage(stage).share for stage in plan.steps}
    total = sum(shares.values()) + shares["latent_action"]  # of the judge too
    loop = LoopConfig(seed=plan.judge_seed if judge else plan.seed)
    for stage in stages:
        share = None if minutes is None else minutes * shares[stage] / total
        train_run(
            run, data, "train", RunPlan(model.resolved(), training, loop, stage=stage, minutes=share, device=device)
        )


def evaluate_world(
    plan: "Recipe", source: "Source", world: Path, out: Path, exported: dict[str, Any]
) -> dict[str, Any]:
    """The report on the exported weights; the one in `out`, if it is of the same weights, data and settings."""
    from genie_datasets.base.files import write_atomically
    from genie_eval.evaluation import evaluate
    from genie_robotics import Genie
    from genie_robotics.pretrained import judge_of

    kinds = "*.safetensors", "config.json", "trust.json"  # the world, without what is written from its report
    files = {str(p.relative_to(world)): hashlib.sha256(p.read_bytes()) for kind in kinds for p in world.rglob(kind)}
    evaluated = {
        "weights": exported["weights"], "sha256": {name: files[name].hexdigest() for name in sorted(files)},
        "data": source.fingerprint, "settings": asdict(plan.evaluation),
    }  # fmt: skip
    content = json.dumps(evaluated, indent=1, default=str).encode()
    stamp, path = out / "evaluated.json", out / "report.json"
    if path.is_file() and stamp.is_file() and stamp.read_bytes() == content:
        print(f"  {path} is the report of this world, not measured again")
        return json.loads(path.read_bytes())
    stamp.unlink(missing_ok=True)
    judge = judge_of(world)
    assert judge is not None
    genie, reader = Genie.from_pretrained(world), Genie.from_pretrained(judge)
    report = evaluate(genie, source, out, run=plan.name, judge=reader, config=plan.evaluation)
    write_atomically(stamp, content)
    return report
