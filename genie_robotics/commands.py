"""The commands of this package: `train` and `bench`."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from genie_datasets.errors import UserError
from genie_datasets.options import SourceOptions, parse
from genie_robotics.config import GenieConfig
from genie_robotics.training.config import TrainingConfig, training_preset


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
    seed: int = 0
    save_every: int = 500
    """Steps between checkpoints."""
    keep: int = 2
    """Checkpoints kept of each stage: the newest so many,"""
    keep_every: int = 0
    """and every one whose step is a multiple of this; 0: no others."""
    log_every: int = 20
    """Steps between lines of metrics.jsonl."""
    watch_every: int = 100
    """Steps between looks of the sentinel (docs/training.md); 0: it does not look."""
    loggers: tuple[str, ...] = ()
    """Where the metrics go beside metrics.jsonl and the console: tensorboard, wandb."""
    workers: int = 0
    """Loader processes."""
    checkpoint_activations: bool = False
    """Compute activations again in the backward pass: less memory, about a third slower."""
    compile: bool = False
    """torch.compile of the transformers: half a minute or more a stage before it starts, then faster."""
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
    options = parse(
        TrainOptions,
        argv,
        prog="genie-robotics train",
        default=TrainOptions(model=preset(name), training=training_preset(name)),
    )

    from genie_robotics.training.run import RunPlan, train_run
    from genie_robotics.training.stages import TRAINED as STAGES
    from genie_robotics.training.trainer import LoopConfig

    source = options.open(options.data)
    if options.steps is not None:
        for stage in STAGES:
            options.training.stage(stage).steps = options.steps
    loop = LoopConfig(
        seed=options.seed,
        save_every=options.save_every,
        keep=options.keep,
        keep_every=options.keep_every,
        log_every=options.log_every,
        watch_every=options.watch_every,
        loggers=options.loggers,
        workers=options.workers,
        checkpoint_activations=options.checkpoint_activations,
        compile=options.compile,
    )
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


@dataclass
class BenchOptions:
    """Speed, as ratios measured side by side in one run."""

    what: tyro.conf.Positional[Literal["loader", "tabletop", "train", "generate"]]
    """loader: ways to read clips; tabletop: episodes made; train: share of the machine's matrix throughput;
    generate: cache against none."""
    data: str | None = None
    """loader: the RLDS directory to read; without it one is made."""
    preset: str = "nano"
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
        from genie_robotics.training.trainer import LoopConfig

        loop = LoopConfig(checkpoint_activations=options.checkpoint_activations, compile=options.compile)
        result = bench_train(options.preset, options.batch_size or 4, loop)
    else:
        from genie_robotics.benchmarks.sampling import bench_generate

        result = bench_generate(options.preset, options.batch_size or 1)
    if options.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:<22}{value:>10,.3g}")
    return 0
