"""How the three stages are trained: one small configuration each, with the presets' choices."""

from dataclasses import dataclass, field

from genie_datasets.errors import UserError


@dataclass
class StageConfig:
    steps: int = 200_000
    """Optimizer steps."""
    share: float = 1 / 3
    """Share of --minutes, where training is given a time instead of steps."""
    batch_size: int = 36
    """Clips a step, over all ranks."""
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
    decay: float = 0.1
    """Share of the stage at its end over which the rate falls to a hundredth (WSD: the plateau can be extended)."""
    clip_gradient: float = 1.0


@dataclass
class TrainingConfig:
    tokenizer: StageConfig = field(
        default_factory=lambda: StageConfig(steps=300_000, batch_size=48, learning_rate=3e-4, warmup=10_000)
    )
    latent_action: StageConfig = field(default_factory=StageConfig)
    dynamics: StageConfig = field(default_factory=StageConfig)

    def stage(self, name: str) -> StageConfig:
        return getattr(self, name)


def nano_stage(steps: int, share: float, batch_size: int, decay: float = 0.3) -> StageConfig:
    return StageConfig(
        steps=steps,
        share=share,
        batch_size=batch_size,
        learning_rate=2e-3,
        matrix_rate=0.02,
        beta2=0.95,
        warmup=50,
        decay=decay,
    )


def training_preset(name: str) -> TrainingConfig:
    """Training choices that go with the model preset `name`; the paper's for its own sizes."""
    if name == "nano":
        return TrainingConfig(
            tokenizer=nano_stage(1200, 0.30, 4),
            latent_action=nano_stage(1500, 0.35, 4, decay=0.4),
            dynamics=nano_stage(1500, 0.35, 4),
        )
    if name == "small":
        small = [nano_stage(steps, share, 8) for steps, share in ((10_000, 0.3), (20_000, 0.35), (20_000, 0.35))]
        return TrainingConfig(*small)
    return TrainingConfig()


def check(config: StageConfig, name: str) -> None:
    if config.batch_size < 1 or config.steps < 1:
        raise UserError(f"{name}: steps and batch_size must be at least 1, not {config.steps} and {config.batch_size}")
