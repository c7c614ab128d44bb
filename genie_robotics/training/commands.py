"""`genie-robotics train`."""

import os
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from genie_datasets.base.command_help import Option
from genie_datasets.base.command_line import parse
from genie_datasets.base.errors import UserError
from genie_datasets.clips.filters import ClipFilter
from genie_datasets.sources.options import SourceOptions
from genie_robotics.models.config import GenieConfig
from genie_robotics.training.config import LoopConfig, TrainingConfig, training_preset


@dataclass
class TrainOptions(SourceOptions):
    """Train tokenizer, latent action model and dynamics on action-free video.

    After an interruption the same command resumes. `--preset`, or the run that `--init` names, and `--mode` choose the
    defaults of the other options.
    """

    GROUP: ClassVar[str] = "run"

    run: tyro.conf.Positional[Path] = tyro.MISSING
    """Run folder, made or resumed."""
    data: Annotated[str, Option("SRC")] = tyro.MISSING
    """Folder of RLDS, LeRobot, videos or numpy files, a frame cache, or a mixture A:0.7,B:0.3."""
    stage: Annotated[str, Option("STAGE")] = "all"
    """Stage of the mode to train: tokenizer, latent_action, dynamics or joint; or all in turn."""
    steps: int | None = None
    """Optimizer steps of every stage."""
    minutes: Annotated[float | None, Option("MINUTES")] = None
    """Training time of all stages together, instead of steps."""
    init: Annotated[Path | None, Option("RUN")] = None
    """Run whose model and weights training starts from, such as simulation before real video; codes are found again."""
    device: Annotated[str, Option("{auto,cpu,cuda}")] = "auto"
    """Device that computes."""
    precision: Annotated[str, Option("{auto,bfloat16,float32}")] = "auto"
    """Number format of matrix products."""
    split: Annotated[str | None, Option("NAME", group="data")] = None
    """Split to train on. Without it: train, or the only one."""
    drop_static: Annotated[float | None, Option("SHARE", group="data")] = None
    """Leave out clips in which at least this share of transitions is static; 1: only clips without any motion."""
    drop_cuts: Annotated[bool, Option(group="data")] = False
    """Leave out clips across a cut of the scene."""
    labels: Annotated[Path | None, Option("FILE.npz", group="data")] = None
    """True actions of some transitions, drawn with `genie-robotics labels`."""
    model: Annotated[GenieConfig, tyro.conf.arg(name="")] = field(default_factory=GenieConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    loop: Annotated[LoopConfig, tyro.conf.arg(name="")] = field(default_factory=LoopConfig)


def named(option: str, argv: list[str], default: str = "") -> str:
    """The value of an option that chooses the defaults of others."""
    for i, word in enumerate(argv):
        if word == option and i + 1 < len(argv):
            return argv[i + 1]
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
    return default


def defaults(argv: list[str]) -> tuple[GenieConfig, TrainingConfig]:
    """Model and training by --preset, or by the run of --init without it, for --mode."""
    from genie_robotics.models.presets import for_mode, preset
    from genie_robotics.pretrained import locate
    from genie_robotics.run_folder import load_config

    name, init, mode = (named(option, argv) for option in ("--preset", "--init", "--mode"))
    folder = locate(init) if init and not name else None
    if folder is None or not (folder / "config.json").exists():  # an --init that is gone may not be needed any more
        name = name or "nano"
        training = training_preset(name)
        return preset(name, mode or training.mode), training
    model = replace(load_config(folder), gap=None)  # which belongs to the video
    training = training_preset(model.preset or "nano")
    return for_mode(model, mode or training.mode), training


def train(argv: list[str]) -> int:
    model, training = defaults(argv)
    options = parse(
        TrainOptions,
        argv,
        prog="genie-robotics train",
        example="train runs/mine --data my_videos/ --hz 3 --preset nano",
        default=TrainOptions(model=model, training=training),
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
        reading=options.non_defaults(),
    )
    with process_group():
        train_run(options.run, source, training_split(source.splits, options.split), plan)
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        # All is saved. gloo's threads sometimes abort the end of the interpreter, which torchrun takes for a failure.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    return 0


def training_split(splits: dict, asked: str | None) -> str:
    """The split to train on; raises UserError if it must be chosen."""
    if asked is not None:
        return asked
    if "train" in splits:
        return "train"
    if len(splits) == 1:
        return next(iter(splits))
    raise UserError(f"the source has no split 'train'; choose one with --split: {', '.join(splits)}")
