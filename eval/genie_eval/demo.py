"""`genie-robotics demo`: makes or reads data, trains the three components and writes the evaluation report."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from genie_datasets.base.command_help import Option
from genie_datasets.base.command_line import parse
from genie_datasets.base.errors import UserError
from genie_datasets.sources.options import SourceOptions
from genie_eval.checks import check_seed

EPISODES = {"train": 300, "test": 200}
"""Episodes of each split of the tabletop data. The statistics need 200 unseen trajectories (eval/README.md)."""
DATA_MINUTES, EVALUATION_MINUTES = 3.0, 6.0
"""On two cores, for the first line of the output."""


@dataclass
class DemoOptions(SourceOptions):
    """Make or read robot video, train the three components on it without actions, evaluate them, write the report. A
    rerun of the command continues an interrupted one."""

    data: Annotated[str | None, Option("SRC")] = None
    """Data set, such as an RLDS directory or a folder of mp4 (default: make a simulated tabletop data set)."""
    out: Annotated[Path, Option("DIR")] = Path("runs/demo")
    """Folder for data, run and report."""
    minutes: Annotated[float, Option("MINUTES")] = 8.0
    """Training minutes of all stages together."""
    preset: Annotated[str, Option("NAME")] = "nano"
    """Preset of model and training: nano, small, ..."""
    clip_length: int | None = None
    """Frames of a clip (default: the preset's)."""
    gap: Annotated[float | None, Option("SECONDS")] = None
    """Seconds between the frames of a clip (default: consecutive frames)."""
    seed: int = 0
    """Random seed."""


def main(argv: list[str]) -> int:
    options = parse(DemoOptions, argv, prog="genie-robotics demo", example="demo --data my_videos/ --hz 3")
    if options.minutes <= 0:
        raise UserError(f"--minutes must be above 0, got {options.minutes}")
    check_seed(options.seed)
    demo(options)
    return 0


def demo(options: DemoOptions) -> Path:
    """Makes data, trains, evaluates, and returns the path of the report."""
    from genie_datasets.sources.subset import hold_out

    steps = Steps(4)
    print(plan(options), flush=True)
    steps.begin("data", "" if options.data else "simulating a robot on a table")
    source = hold_out(options.open(options.data or str(tabletop(options.out / "data", options.seed))))
    for name, split in source.splits.items():
        print(f"  {name}: {split.num_episodes} episodes, {int(split.num_frames.sum()):,} frames")

    steps.begin("training", "tokenizer, latent action model, dynamics; no actions are read")
    run = options.out / "run"
    train(options, source, run)

    steps.begin("evaluation", "consistency of the latent actions")
    from genie_eval.commands import print_scorecard
    from genie_eval.dreams.any_start import AnyStartConfig
    from genie_eval.evaluation import evaluate
    from genie_robotics import Genie

    report = evaluate(
        Genie.from_pretrained(run), source, options.out / "report", run=run, seed=options.seed, size="quick",
        any_start=AnyStartConfig(pictures=0, tables=0),  # two minutes more, for a world that knows one table
    )  # fmt: skip

    steps.begin("result")
    print_scorecard(report)
    path = (options.out / "report" / "report.html").resolve()
    print(f"\nreport: {path}\n(took {steps.minutes:.1f} minutes)")
    return path


def plan(options: DemoOptions) -> str:
    """The steps with the minutes that they take on two cores."""
    minutes = {"data": DATA_MINUTES, "training": options.minutes, "evaluation": EVALUATION_MINUTES}
    if options.data:
        del minutes["data"]
    listed = " > ".join(f"{name} {spent:g}" for name, spent in minutes.items())
    return f"about {sum(minutes.values()):g} minutes on two cores: {listed}; a rerun continues an interrupted demo"


def tabletop(
    folder: Path, seed: int, episodes: Mapping[str, int] = EPISODES, family: str = "easy", scenes: int | None = None
) -> Path:
    """The path of the tabletop data set in `folder`, which is made, or completed, if needed.

    episodes: number of episodes of each split.
    scenes: number of scenes in all (default: the family's).
    """
    from genie_datasets.sources.opening import find_rlds
    from genie_datasets.tabletop.generate import generate

    found = find_rlds(folder) if folder.exists() else None
    if found:
        print(f"  using {found}")
        return found
    num = sum(episodes.values())
    splits = {name: n / num for name, n in episodes.items()}
    return generate(folder, episodes=num, seed=seed, splits=splits, family=family, scenes=scenes)


def train(options: DemoOptions, source, run: Path) -> None:
    from genie_robotics.models.presets import preset
    from genie_robotics.training.commands import training_split
    from genie_robotics.training.config import LoopConfig, training_preset
    from genie_robotics.training.run import RunPlan, train_run

    model = preset(options.preset)
    if options.clip_length is not None:
        model.clip_length = options.clip_length
    model.gap = options.gap
    training = training_preset(options.preset)
    if options.preset == "nano":  # within minutes, more steps of fewer clips help these two, and not the latent actions
        training.tokenizer.batch_size = training.dynamics.batch_size = 2
        training.tokenizer.share, training.latent_action.share, training.dynamics.share = 0.24, 0.34, 0.42
    plan = RunPlan(model, training, LoopConfig(seed=options.seed))
    plan.minutes, plan.reading = options.minutes, options.non_defaults()
    train_run(run, source, training_split(source.splits, None), plan)


class Steps:
    """Headings of the steps of a long command, with the time since its start."""

    def __init__(self, number: int):
        self.number, self.step, self.start = number, 0, time.monotonic()

    @property
    def minutes(self) -> float:
        return (time.monotonic() - self.start) / 60

    def begin(self, what: str, how: str = "") -> None:
        self.step += 1
        after = f" (after {self.minutes:.1f} minutes)" if self.step > 1 else ""
        print(f"\n[{self.step}/{self.number}] {what}{after}" + (f": {how}" if how else ""), flush=True)
