"""Configuration of training: one small class per stage, one for what all stages share, and the presets' choices."""

import math
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

import tyro

from genie_datasets.base.command_help import Option
from genie_datasets.base.errors import UserError
from genie_robotics.models.presets import SCALING


@dataclass
class StageConfig:
    """Training of one stage."""

    steps: int = 200_000
    """Optimizer steps."""
    share: float = 1 / 3
    """Fraction of --minutes, if training is limited by time."""
    batch_size: int = 36
    """Clips per step, over all ranks."""
    micro_batches: int = 1
    """Micro-batches in which each rank computes its clips of a step, to save activation memory."""
    learning_rate: float = 3e-5
    """Peak learning rate of AdamW."""
    muon_learning_rate: float = 0.0
    """Peak learning rate of Muon on the transformers' matrices; 0 trains them with AdamW (paper)."""
    weight_decay: float = 1e-4
    """Weight decay."""
    beta1: float = 0.9
    """First beta of AdamW."""
    beta2: float = 0.9
    """Second beta of AdamW (paper: 0.9, tables 8 and 9)."""
    warmup_steps: int = 5000
    """Steps of linear warm-up."""
    schedule: Literal["cosine", "wsd"] = "cosine"
    """Learning rate after the warm-up: cosine over the whole stage (paper), or a plateau and a linear decay (wsd)."""
    decay: float = 0.1
    """Fraction of the stage in which the rate falls, for schedule wsd."""
    final_rate: float = 0.1
    """Final learning rate as a fraction of its peak (paper: 1 for the tokenizer, 0.1 otherwise)."""
    clip_gradient: float = 1.0
    """Largest gradient norm of each component."""
    ema: float = 0.0
    """Decay of the moving average of the weights that becomes the result; 0 keeps the last weights."""


@dataclass
class LabelConfig:
    """Use of --labels in stages that train the latent action model."""

    GROUP: ClassVar[str] = "advanced: labels"

    weight: float = 1.0
    """Weight of the label loss, which is 1 for a head that knows nothing; 0 only measures it."""
    batch_size: int = 16
    """Labeled transitions per step, over all ranks."""
    columns: tuple[int, ...] = ()
    """Numbers of an action to use, such as 0 1 2 for RT-1's translation (default: all)."""


@dataclass
class TrainingConfig:
    """Training of all stages."""

    GROUP: ClassVar[str] = "training"

    mode: Annotated[Literal["frozen", "cotrain", "end_to_end", "warmup"], tyro.conf.arg(prefix_name=False)] = "cotrain"
    """Order of the stages and their losses: see docs/training.md."""
    tokenizer: Annotated[StageConfig, Option(group="advanced: training of the tokenizer")] = field(
        default_factory=lambda: StageConfig(
            steps=300_000, batch_size=48, learning_rate=3e-4, warmup_steps=10_000, final_rate=1.0
        )
    )
    latent_action: Annotated[StageConfig, Option(group="advanced: training of the latent action model")] = field(
        default_factory=StageConfig
    )
    dynamics: Annotated[StageConfig, Option(group="advanced: training of the dynamics")] = field(
        default_factory=StageConfig
    )
    joint: Annotated[StageConfig, Option(group="advanced: training of latent actions and dynamics together")] = field(
        default_factory=StageConfig
    )
    labels: LabelConfig = field(default_factory=LabelConfig)

    def stage(self, name: str) -> StageConfig:
        return getattr(self, name)


@dataclass
class LoopConfig:
    """Options that all stages share."""

    GROUP: ClassVar[str] = "training"

    seed: int = 0
    """Random seed."""
    save_every: int = 500
    """Steps between checkpoints."""
    keep: int = 2
    """Newest checkpoints kept per stage."""
    keep_every: int = 0
    """Checkpoints at multiples of this step are kept too; 0: none."""
    log_every: int = 20
    """Steps between lines of metrics.jsonl."""
    health_every: int = 100
    """Steps between health checks; 0: none."""
    loggers: tuple[str, ...] = ()
    """Further loggers: tensorboard, wandb."""
    workers: int = 0
    """Loader processes; the frame cache needs none."""
    token_cache: bool = False
    """Keep tokens and latent actions of all clips on disk for the dynamics; faster from the second epoch on."""
    checkpoint_activations: bool = False
    """Recompute activations in the backward pass: less memory, about a third slower."""
    compile: Annotated[Literal["auto", "yes", "no"], Option("{auto,yes,no}")] = "auto"
    """Compile the transformer blocks; auto: in stages of at least 500 steps or 4 minutes."""
    sharding: Literal["none", "full"] = "none"
    """With several processes: none (each holds the whole model), or full (weights, gradients and optimizer state are
    sharded across ranks, FSDP2)."""
    quiet: tyro.conf.Suppress[bool] = False

    def compiles(self, steps: int, seconds: float | None) -> bool:
        """True if a stage of this length is compiled. Depends only on options: a resumed run then computes the same."""
        if self.compile == "auto":
            return seconds >= COMPILED_SECONDS if seconds else steps >= COMPILED_STEPS
        return self.compile == "yes"


COMPILED_STEPS = 500
COMPILED_SECONDS = 240.0


def nano_stage(steps: int, share: float, batch_size: int, decay: float = 0.3) -> StageConfig:
    return StageConfig(
        steps=steps,
        share=share,
        batch_size=batch_size,
        learning_rate=2e-3,
        muon_learning_rate=0.02,
        beta2=0.95,
        warmup_steps=50,
        schedule="wsd",
        decay=decay,
        final_rate=0.01,
    )


def training_preset(name: str) -> TrainingConfig:
    """Training configuration of the model preset `name`; the paper's for its own sizes."""
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
"""(steps, clips per step) of the dynamics: tables 10 to 12. The paper prints none for robotics; table 10's are used."""
TOKENIZER_BATCH = 384
"""The larger of table 6; the paper does not say which one it used."""


def check(config: StageConfig, name: str) -> None:
    """Raises UserError that names the first option that is out of range."""
    option = f"--training.{name.replace('_', '-')}"

    def require(field_name: str, ok: bool, expected: str) -> None:
        if not ok:
            value = getattr(config, field_name)
            raise UserError(f"{option}.{field_name.replace('_', '-')} must be {expected}, got {value}")

    for field_name, least in {"batch_size": 1, "micro_batches": 1, "steps": 1, "warmup_steps": 0}.items():
        require(field_name, getattr(config, field_name) >= least, f"at least {least}")
    for field_name in ("share", "learning_rate", "clip_gradient"):
        require(field_name, 0 < getattr(config, field_name) < math.inf, "above 0")
    for field_name in ("muon_learning_rate", "weight_decay", "final_rate", "decay"):
        require(field_name, 0 <= getattr(config, field_name) < math.inf, "at least 0")
    for field_name in ("ema", "beta1", "beta2"):
        require(field_name, 0 <= getattr(config, field_name) < 1, "at least 0 and below 1")
    require("schedule", config.schedule in ("cosine", "wsd"), "cosine or wsd")


def check_batch(config: StageConfig, name: str, processes: int, labels: bool = False) -> None:
    """Raises UserError if the batch cannot be divided."""
    option = f"--training.{name.replace('_', '-')}"
    if config.batch_size % (processes * config.micro_batches):
        each = f" and {config.micro_batches} micro-batches ({option}.micro-batches)" if config.micro_batches > 1 else ""
        raise UserError(
            f"{option}.batch-size {config.batch_size} must be a multiple of {processes} processes{each}; "
            "it counts the clips of all processes"
        )
    if labels and config.micro_batches > 1:
        raise UserError(f"{option}.micro-batches cannot be combined with --labels; leave one of them out")


def check_labels(config: LabelConfig, world_size: int = 1) -> None:
    """Raises UserError that names the first option that is out of range."""
    if not 0 <= config.weight < math.inf:
        raise UserError(f"--training.labels.weight must be at least 0, got {config.weight:g}")
    if config.batch_size < 1 or config.batch_size % world_size:
        several = f" and a multiple of {world_size} processes" if world_size > 1 else ""
        raise UserError(f"--training.labels.batch-size must be at least 1{several}, got {config.batch_size}")


def check_loop(loop: LoopConfig) -> None:
    """Raises UserError that names the first option that is out of range."""
    least = {"save_every": 1, "log_every": 1, "keep": 1, "keep_every": 0, "health_every": 0, "workers": 0, "seed": 0}
    for name, value in least.items():
        if getattr(loop, name) < value:
            raise UserError(f"--{name.replace('_', '-')} must be at least {value}, got {getattr(loop, name)}")
    if loop.seed >= 2**63:
        raise UserError(f"--seed must be below 2**63, got {loop.seed}")
