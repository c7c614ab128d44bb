"""`genie-robotics train`."""

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from genie_datasets.base.command_line import parse
from genie_datasets.base.errors import UserError
from genie_datasets.clips.filters import ClipFilter
from genie_datasets.sources.options import SourceOptions
from genie_robotics.models.config import GenieConfig
from genie_robotics.training.config import LoopConfig, TrainingConfig, training_preset


@dataclass
class TrainOptions(SourceOptions):
    """Train tokenizer, latent action model and dynamics on action-free video. The same command resumes."""

    run: tyro.conf.Positional[Path] = tyro.MISSING
    """The run folder, made or resumed."""
    data: str = tyro.MISSING
    """RLDS/TFDS directory, folder of mp4, frame cache, or a weighted mix A:0.7,B:0.3."""
    stage: str = "all"
    """One stage of the mode alone (tokenizer, latent_action, dynamics, joint), or all in turn."""
    steps: int | None = None
    """Optimizer steps of every stage."""
    minutes: float | None = None
    """Training time of all stages together, instead of steps."""
    split: str | None = None
    """Split to train on: 'train' if there is one, else the only one."""
    drop_static: float | None = None
    """Leave out clips with at least this share of static transitions; 1: those in which nothing moves. `data inspect`
    says how many."""
    drop_cuts: bool = False
    """Leave out clips across a cut of the scene."""
    labels: Path | None = None
    """True actions of some transitions (.npz), drawn with `genie-robotics labels`; without it, training sees none."""
    init: Path | None = None
    """A run whose weights training begins with instead of random ones (simulation first, then real video); codes of
    latent actions are found anew."""
    loop: Annotated[LoopConfig, tyro.conf.arg(name="")] = field(default_factory=LoopConfig)
    device: str = "auto"
    """auto, cpu or cuda."""
    precision: str = "auto"
    """auto, bfloat16 or float32."""
    model: Annotated[GenieConfig, tyro.conf.arg(name="")] = field(default_factory=GenieConfig)
    """Every field of the model; sizes that follow from others are set by them."""
    training: TrainingConfig = field(default_factory=TrainingConfig)


def named(option: str, argv: list[str], default: str) -> str:
    """The value of --preset or --mode, which decide the defaults of other options."""
    for i, word in enumerate(argv):
        if word == option and i + 1 < len(argv):
            return argv[i + 1]
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
    return default


def train(argv: list[str]) -> int:
    from genie_robotics.models.presets import preset

    name = named("--preset", argv, "nano")
    training = training_preset(name)
    options = parse(
        TrainOptions,
        argv,
        prog="genie-robotics train",
        default=TrainOptions(model=preset(name, named("--mode", argv, training.mode)), training=training),
    )

    from genie_robotics.training.distributed import process_group
    from genie_robotics.training.run import RunPlan, train_run
    from genie_robotics.training.stages import STAGES

    source = options.open(options.data)
    if options.steps is not None:
        for stage in STAGES:
            options.training.stage(stage).steps = options.steps
    plan = RunPlan(
        options.model,
        options.training,
        options.loop,
        stage=options.stage,
        minutes=options.minutes,
        device=options.device,
        precision=options.precision,
        labels=options.labels,
        init=options.init,
        drop=ClipFilter(options.drop_static, options.drop_cuts),
        reading=options.said(),
    )
    with process_group():
        train_run(options.run, source, training_split(source.splits, options.split), plan)
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        # All is saved; gloo's threads sometimes abort the interpreter's own end, which torchrun takes for a failure.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    return 0


def training_split(splits: dict, asked: str | None) -> str:
    if asked is not None:
        return asked
    if "train" in splits:
        return "train"
    if len(splits) == 1:
        return next(iter(splits))
    raise UserError(f"no split 'train'; choose one with --split: {', '.join(splits)}")
