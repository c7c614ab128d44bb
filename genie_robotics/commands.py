"""The commands of this package: `train` and `bench`."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from genie_datasets.clip_filter import ClipFilter
from genie_datasets.errors import UserError
from genie_datasets.options import SourceOptions, parse
from genie_robotics.config import GenieConfig
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
    from genie_robotics.presets import preset

    name = named("--preset", argv, "nano")
    training = training_preset(name)
    options = parse(
        TrainOptions,
        argv,
        prog="genie-robotics train",
        default=TrainOptions(model=preset(name, named("--mode", argv, training.mode)), training=training),
    )

    from genie_robotics.training.run import RunPlan, train_run
    from genie_robotics.training.stages import TRAINED as STAGES

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


@dataclass
class BenchOptions:
    """Speed, as ratios measured side by side in one run."""

    what: tyro.conf.Positional[Literal["loader", "tabletop", "train", "generate", "play"]]
    """loader: ways to read clips; tabletop: episodes made; train: share of the machine's matrix throughput;
    generate: cache against none; play: from action to picture."""
    data: str | None = None
    """loader: the RLDS directory to read; without it one is made."""
    preset: str = "nano"
    world: str = "nano-tabletop"
    """play: a run folder, or a world that comes with the package."""
    actions: int = 400
    """play: how many."""
    batch_size: int | None = None
    """train: clips a step (4); generate: dreams at once (1)."""
    checkpoint_activations: bool = False
    """train: with activations computed again in the backward pass."""
    compile: bool = False
    """train: with torch.compile."""
    json: bool = False
    """Print one JSON object and nothing else."""


def bench(argv: list[str]) -> int:
    options = parse(BenchOptions, argv, prog="genie-robotics bench")
    if options.batch_size is not None and options.batch_size < 1:
        raise UserError(f"--batch-size must be at least 1, not {options.batch_size}")
    if options.what == "loader":
        from genie_datasets import bench_loader

        bench_loader.run(options.data, json=options.json)
        return 0
    if options.what == "tabletop":
        from genie_datasets.tabletop import bench as bench_tabletop

        bench_tabletop.run(json=options.json)
        return 0
    if options.what == "train":
        from genie_robotics.benchmarks.training import bench_train

        loop = LoopConfig(checkpoint_activations=options.checkpoint_activations, compile=options.compile)
        result = bench_train(options.preset, options.batch_size or 4, loop)
    elif options.what == "play":
        from genie_robotics.benchmarks.playing import bench_play

        if options.actions < 40:
            raise UserError(f"--actions {options.actions}: give at least 40, for a 95th percentile")
        result = bench_play(options.world, options.actions)
    else:
        from genie_robotics.benchmarks.sampling import bench_generate

        result = bench_generate(options.preset, options.batch_size or 1)
    if options.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:<22}{value:>10,.3g}")
    return 0
