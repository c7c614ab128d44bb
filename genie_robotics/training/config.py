"""How stages are trained: one small configuration each, one for what all share, and the presets' choices."""

import math
from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

from genie_datasets.base.errors import UserError
from genie_robotics.models.presets import SCALING


@dataclass
class StageConfig:
    steps: int = 200_000
    """Optimizer steps."""
    share: float = 1 / 3
    """Share of --minutes, where training is given a time instead of steps."""
    batch_size: int = 36
    """Clips a step, over all ranks."""
    accumulate: int = 1
    """In how many parts, one after the other, each rank takes its clips of a step: as much less memory for activations.
    A part's masked tokens and motion weights are relative to its own mean."""
    learning_rate: float = 3e-5
    """Peak of AdamW."""
    matrix_rate: float = 0.0
    """Peak of Muon on the transformers' matrices; 0 leaves them to AdamW (paper)."""
    weight_decay: float = 1e-4
    beta1: float = 0.9
    beta2: float = 0.9
    """Genie, tables 8 and 9: 0.9 and 0.9."""
    warmup: int = 5000
    """Steps of linear warm-up."""
    schedule: Literal["cosine", "wsd"] = "cosine"
    """After the warm-up: 'cosine' over the whole stage (paper), or 'wsd', a plateau and a linear decay at the end, so
    that a run can be extended."""
    decay: float = 0.1
    """wsd: share of the stage at its end over which the rate falls."""
    final_rate: float = 0.1
    """Where the rate ends, as a share of its peak (paper: 1 for the tokenizer, .1 else)."""
    clip_gradient: float = 1.0
    """Largest norm of each component's gradient."""
    ema: float = 0.0
    """Decay of the moving average of the weights that is kept as the result (.999, say); 0: the last weights are."""


@dataclass
class LabelConfig:
    """Of --labels FILE.npz, where the latent action model learns: alone and in a joint stage."""

    weight: float = 1.0
    """Of the error of a linear head that reads true actions from latents, 1 where it knows nothing, in the loss, whose
    part of predicting frames is 1 where nothing is predicted. 0: labels are measured by the head and change nothing."""
    batch_size: int = 16
    """Labelled transitions a step, over all ranks, beside the clips. With as few as clips hold by chance (1, 4) the toy
    of tests/genie_robotics/test_labels_training.py learnt nothing from 120 labels; with 16, on three seeds, all."""
    columns: tuple[int, ...] = ()
    """Which numbers of an action count, such as 0 1 2 for RT-1's translation without rotation and gripper: each that
    varies weighs alike, a gripper that seldom closes too. None given: all."""


@dataclass
class TrainingConfig:
    mode: Annotated[Literal["frozen", "cotrain", "end_to_end", "warmup"], tyro.conf.arg(prefix_name=False)] = "cotrain"
    """frozen: latent actions first, then the dynamics on them. cotrain: both at once, as in the paper. end_to_end: the
    dynamics' loss trains the latent actions. warmup: latent actions first, then both with all gradients."""
    tokenizer: StageConfig = field(
        default_factory=lambda: StageConfig(
            steps=300_000, batch_size=48, learning_rate=3e-4, warmup=10_000, final_rate=1.0
        )
    )
    latent_action: StageConfig = field(default_factory=StageConfig)
    dynamics: StageConfig = field(default_factory=StageConfig)
    joint: StageConfig = field(default_factory=StageConfig)
    """Latent action model and dynamics together, in the modes that have this stage."""
    labels: LabelConfig = field(default_factory=LabelConfig)

    def stage(self, name: str) -> StageConfig:
        return getattr(self, name)


@dataclass
class LoopConfig:
    """What all stages share."""

    seed: int = 0
    """Of the weights, the clips' order, masks: of everything."""
    save_every: int = 500
    """Steps between checkpoints."""
    keep: int = 2
    """How many of the newest checkpoints of each stage are kept."""
    keep_every: int = 0
    """Checkpoints whose step is a multiple of this are kept too; 0: none."""
    log_every: int = 20
    """Steps between lines of metrics.jsonl."""
    watch_every: int = 100
    """Steps between looks of the sentinel; 0: it does not look."""
    loggers: tuple[str, ...] = ()
    """Where the metrics go beside metrics.jsonl and the console: tensorboard, wandb."""
    workers: int = 0
    """Loader processes; the frame cache is a memory map and needs none."""
    token_cache: bool = False
    """Keeps the tokens and latent actions of every clip on disk for the dynamics: pays from the second epoch on."""
    checkpoint_activations: bool = False
    """Computes activations again in the backward pass instead of keeping them: less memory, about a third slower."""
    compile: bool = False
    """torch.compile of the transformers' blocks: half a minute a stage before it starts."""
    sharding: Literal["none", "full"] = "none"
    """Of several processes: 'none', each holds the whole model; 'full', weights, gradients and moments are cut over
    them (FSDP2)."""
    quiet: tyro.conf.Suppress[bool] = False


def nano_stage(steps: int, share: float, batch_size: int, decay: float = 0.3) -> StageConfig:
    return StageConfig(
        steps=steps,
        share=share,
        batch_size=batch_size,
        learning_rate=2e-3,
        matrix_rate=0.02,
        beta2=0.95,
        warmup=50,
        schedule="wsd",
        decay=decay,
        final_rate=0.01,
    )


def training_preset(name: str) -> TrainingConfig:
    """Training choices that go with the model preset `name`; the paper's for its own sizes."""
    if name == "nano":
        return TrainingConfig(
            mode="frozen",
            tokenizer=nano_stage(1200, 0.30, 4),
            latent_action=nano_stage(1500, 0.30, 4, decay=0.4),
            dynamics=nano_stage(1500, 0.40, 4),
            joint=nano_stage(1500, 0.50, 4),
        )
    if name == "small":
        return TrainingConfig(
            mode="frozen",
            tokenizer=nano_stage(10_000, 0.3, 8),
            latent_action=nano_stage(20_000, 0.35, 8),
            dynamics=nano_stage(20_000, 0.35, 8),
            joint=nano_stage(20_000, 0.5, 8),
        )
    config = TrainingConfig()  # coinrun: tables 15 to 17
    if name in BATCHES:
        steps, batch = BATCHES[name]
        for stage in (config.latent_action, config.dynamics, config.joint):
            stage.steps, stage.batch_size = steps, batch
        config.tokenizer.batch_size = TOKENIZER_BATCH
    return config


BATCHES = {"platformers_11b": (125_000, 512)} | dict.fromkeys(
    ("robotics_1b", "robotics_2_5b", *SCALING), (200_000, 256)
)
"""(steps, clips a step) of the dynamics: tables 10 to 12. For robotics the paper prints none; those of table 10."""
TOKENIZER_BATCH = 384
"""Table 6's larger; the paper does not say which one it kept."""


def check(config: StageConfig, name: str) -> None:
    """Raises UserError that names the first option that cannot be."""
    option = f"--training.{name.replace('_', '-')}"
    whole = {"batch_size": 1, "accumulate": 1, "steps": 1, "warmup": 0}
    for field_name, least in whole.items():
        if getattr(config, field_name) < least:
            raise UserError(f"{name}: {field_name} must be at least {least}, not {getattr(config, field_name)}")
    positive = ("share", "learning_rate", "clip_gradient")
    for field_name in (*positive, "matrix_rate", "weight_decay", "final_rate", "decay"):
        value = getattr(config, field_name)
        if not (value > 0 if field_name in positive else value >= 0) or not math.isfinite(value):
            bound = "above 0" if field_name in positive else "at least 0"
            raise UserError(f"{option}.{field_name.replace('_', '-')} must be {bound}, not {value:g}")
    if config.schedule not in ("cosine", "wsd"):
        raise UserError(f"{name}: schedule must be cosine or wsd, not {config.schedule}")
    for field_name in ("ema", "beta1", "beta2"):
        if not 0 <= getattr(config, field_name) < 1:
            raise UserError(f"{name}: {field_name} must be at least 0 and below 1, not {getattr(config, field_name)}")


def check_batch(config: StageConfig, name: str, processes: int, labels: bool = False) -> None:
    """Raises UserError where the batch cannot be shared out."""
    option = f"--training.{name.replace('_', '-')}"
    if config.batch_size % (processes * config.accumulate):
        parts = f" in {config.accumulate} parts ({option}.accumulate)" if config.accumulate > 1 else ""
        raise UserError(
            f"{name}: batch size {config.batch_size} does not divide by {processes} processes{parts}; "
            f"{option}.batch-size is over all of them"
        )
    if labels and config.accumulate > 1:
        raise UserError(f"{option}.accumulate does not go with --labels: leave one of them out")


def check_labels(config: LabelConfig, world_size: int = 1) -> None:
    """Raises UserError that names the first option that cannot be."""
    if not 0 <= config.weight < math.inf:
        raise UserError(f"--training.labels.weight must be at least 0, not {config.weight:g}")
    if config.batch_size < 1 or config.batch_size % world_size:
        several = f" and divide by {world_size} processes" if world_size > 1 else ""
        raise UserError(f"--training.labels.batch-size must be at least 1{several}, not {config.batch_size}")


def check_loop(loop: LoopConfig) -> None:
    """Raises UserError that names the first option that cannot be."""
    least = {"save_every": 1, "log_every": 1, "keep": 1, "keep_every": 0, "watch_every": 0, "workers": 0, "seed": 0}
    for name, value in least.items():
        if getattr(loop, name) < value:
            raise UserError(f"--{name.replace('_', '-')} must be at least {value}, not {getattr(loop, name)}")
    if loop.seed >= 2**63:
        raise UserError(f"--seed must be below 2**63, got {loop.seed}; pass a smaller seed")
