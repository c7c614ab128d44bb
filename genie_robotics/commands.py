"""The commands of this package: `train` and `bench`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from genie_datasets.errors import UserError
from genie_datasets.options import SourceOptions
from genie_robotics.config import GenieConfig
from genie_robotics.training.config import TrainingConfig, training_preset


@dataclass
class TrainOptions(SourceOptions):
    """Train tokenizer, latent action model and dynamics on action-free video. The same command resumes."""

    run: tyro.conf.Positional[Path] = tyro.MISSING
    """The run folder, made or resumed."""
    data: str = tyro.MISSING
    """RLDS/TFDS directory, folder of mp4, frame cache, or a weighted mix A:0.7,B:0.3."""
    preset: str = "nano"
    """nano, small, coinrun, robotics_1b, robotics_2_5b or platformers_11b; every field below starts from it."""
    stage: str = "all"
    """all, tokenizer, latent_action or dynamics."""
    steps: int | None = None
    """Optimizer steps of every stage."""
    minutes: float | None = None
    """Training time of all stages together, instead of steps."""
    split: str | None = None
    """Split to train on: 'train' if there is one, else the only one."""
    size: str | None = None
    """HEIGHTxWIDTH in pixels that the models see; the preset's otherwise."""
    seed: int = 0
    save_every: int = 500
    """Steps between checkpoints."""
    log_every: int = 20
    """Steps between lines of metrics.jsonl."""
    workers: int = 0
    """Loader processes."""
    device: str = "auto"
    """auto, cpu or cuda."""
    precision: str = "auto"
    """auto, bfloat16 or float32."""
    model: Annotated[GenieConfig, tyro.conf.arg(name="")] = field(default_factory=GenieConfig)
    """Every field of the model; sizes that follow from others are set by them."""
    training: TrainingConfig = field(default_factory=TrainingConfig)


def named_preset(argv: list[str], default: str = "nano") -> str:
    """The value of --preset, which decides the defaults of all other options."""
    for i, word in enumerate(argv):
        if word == "--preset" and i + 1 < len(argv):
            return argv[i + 1]
        if word.startswith("--preset="):
            return word.partition("=")[2]
    return default


def train(argv: list[str]) -> int:
    from genie_robotics.presets import preset

    name = named_preset(argv)
    options = tyro.cli(
        TrainOptions,
        args=argv,
        prog="genie-robotics train",
        default=TrainOptions(preset=name, model=preset(name), training=training_preset(name)),
    )

    from genie_datasets.fit import parse_size
    from genie_robotics.training.run import RunPlan, train_run
    from genie_robotics.training.trainer import LoopConfig

    source = options.open(options.data)
    if options.size is not None:
        options.model.image_size = parse_size(options.size)
    if options.steps is not None:
        for stage in (options.training.tokenizer, options.training.latent_action, options.training.dynamics):
            stage.steps = options.steps
    loop = LoopConfig(options.seed, options.save_every, options.log_every, options.workers)
    plan = RunPlan(
        options.model,
        options.training,
        loop,
        stage=options.stage,
        minutes=options.minutes,
        device=options.device,
        precision=options.precision,
    )
    train_run(options.run, source, training_split(source.splits, options.split), plan)
    return 0


def training_split(splits: dict, asked: str | None) -> str:
    if asked is not None:
        return asked
    if "train" in splits:
        return "train"
    if len(splits) == 1:
        return next(iter(splits))
    raise UserError(f"no split 'train'; choose one with --split: {', '.join(splits)}")
