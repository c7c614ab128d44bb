"""The hyperparameters of the presets and where each comes from: a table of docs/parameters.md."""

from collections.abc import Callable
from dataclasses import dataclass

from genie_robotics.models.config import GenieConfig
from genie_robotics.models.presets import preset
from genie_robotics.training.config import StageConfig, TrainingConfig, training_preset

SHOWN = ("nano", "small", "coinrun", "robotics_1b", "robotics_2_5b", "platformers_11b")
SILENT = "**ours**: the paper does not say"


@dataclass(frozen=True)
class Row:
    what: str
    value: Callable[[GenieConfig, TrainingConfig], object]
    source: str
    """Of the paper's sizes; `nano` and `small` are ours throughout."""


def stack(width: int, blocks: int, heads: int, head_dim: int | None = None) -> str:
    return f"{blocks} x {width}, {heads} x {head_dim or width // heads}"


def rates(stage: StageConfig) -> str:
    muon = f", Muon {stage.matrix_rate:g}" if stage.matrix_rate else ""
    return f"{stage.learning_rate:g} to {stage.learning_rate * stage.final_rate:g}{muon}"


def late(training: TrainingConfig) -> StageConfig:
    """The stage in which the dynamics learns."""
    return training.dynamics if training.mode == "frozen" else training.joint


def start(config: GenieConfig, part: str) -> str:
    book = getattr(config, part).codebook
    return f"{book.start_share:.0%} of the stage, then held" if book.hold else f"{book.start_after} steps"


def yes(value: bool) -> str:
    return "yes" if value else "no"


ROWS = (
    Row("picture, frames", lambda c, t: "{} x {}, {}".format(*c.image_size, c.clip_length),
        "section 3: 160x90, 16; 96 rows divide by both patches. CoinRun: Procgen's 64x64"),
    Row("**tokenizer** patch", lambda c, t: c.tokenizer.patch, "tables 7, 15"),
    Row("encoder: blocks x width, heads x size", lambda c, t: stack(
        c.tokenizer.encoder_width, c.tokenizer.encoder_blocks, c.tokenizer.encoder_heads), "tables 7, 15"),
    Row("decoder", lambda c, t: stack(
        c.tokenizer.decoder_width, c.tokenizer.decoder_blocks, c.tokenizer.decoder_heads), "tables 7, 15"),
    Row("codes x width", lambda c, t: f"{c.tokenizer.codebook.num_codes} x {c.tokenizer.codebook.latent_dim}",
        "tables 7, 15"),
    Row("codes start after", lambda c, t: start(c, "tokenizer"), SILENT),
    Row("extra weight of what moves", lambda c, t: f"{c.tokenizer.motion_weight:g}", "0: standard VQ-VAE, section 2.1"),
    Row("steps x clips", lambda c, t: f"{t.tokenizer.steps:,} x {t.tokenizer.batch_size}",
        "tables 8, 15; 384 is table 6's larger, which one was kept is not said"),
    Row("rate", lambda c, t: rates(t.tokenizer), "table 8"),
    Row("warm-up, betas, weight decay", lambda c, t: settings(t.tokenizer), "table 8"),
    Row("**latent action model** patch", lambda c, t: c.latent_action.patch, "table 5; CoinRun's is not printed"),
    Row("encoder", lambda c, t: stack(
        c.latent_action.width, c.latent_action.encoder_blocks, c.latent_action.heads), "tables 5, 16"),
    Row("decoder", lambda c, t: stack(
        c.latent_action.width, c.latent_action.decoder_blocks, c.latent_action.heads), "tables 5, 16"),
    Row("codes x width", lambda c, t: f"{c.latent_action.codebook.num_codes} x {c.latent_action.codebook.latent_dim}",
        "table 5; CoinRun has 6 codes in table 16, ours 8"),
    Row("codes start after", lambda c, t: start(c, "latent_action"), SILENT),
    Row("history seen by encoder / decoder", lambda c, t:
        f"{yes(c.latent_action.encoder_history)} / {yes(c.latent_action.decoder_history)}", "section 2.1"),
    Row("reads and predicts the change", lambda c, t: yes(c.latent_action.predict_change),
        "no: frames, through a sigmoid (C.1)"),
    Row("a frame becomes one vector by", lambda c, t: c.latent_action.pool, SILENT),
    Row("codes whitened; latents remembered", lambda c, t:
        f"{c.latent_action.codebook.whiten:g}; {c.latent_action.codebook.num_remembered:,}", SILENT),
    Row("steps x clips", lambda c, t: f"{t.latent_action.steps:,} x {t.latent_action.batch_size}" if t.mode == "frozen"
        else "with the dynamics", "section 2.1"),
    Row("rate", lambda c, t: rates(t.latent_action if t.mode == "frozen" else t.joint),
        "table 9; for Platformers it is printed of the dynamics alone"),
    Row("**dynamics** blocks x width, heads x size", lambda c, t: stack(
        c.dynamics.width, c.dynamics.num_blocks, c.dynamics.heads, c.dynamics.head_dim),
        "tables 11, 12, 17; 1B **inferred**, see Robotics"),
    Row("actions enter both models by", lambda c, t: c.dynamics.action_input, "section 2.1: added"),
    Row("reads the token a frame earlier", lambda c, t: yes(c.dynamics.see_before), "no"),
    Row("mask rate from", lambda c, t: f"{c.dynamics.min_mask_rate:g}", "section 2.1"),
    Row("MaskGIT steps, temperature", lambda c, t: f"{c.dynamics.maskgit_steps}, {c.dynamics.temperature:g}",
        "section 3; table 17"),
    Row("trained with the latent actions", lambda c, t: yes(t.mode != "frozen"), "section 2.1: co-trained"),
    Row("steps x clips", lambda c, t: f"{late(t).steps:,} x {late(t).batch_size}",
        "tables 10, 12, F; for robotics those of table 10"),
    Row("rate", lambda c, t: rates(late(t)), "table 9"),
    Row("warm-up, betas, weight decay", lambda c, t: settings(late(t)), "table 9"),
    Row("schedule", lambda c, t: shape(late(t)), "table 8's cosine, said of the tokenizer"),
    Row("**all**: largest gradient norm of each component", lambda c, t: f"{late(t).clip_gradient:g}", SILENT),
    Row("codebooks: commitment, decay of averages", lambda c, t:
        f"{c.tokenizer.codebook.commitment:g}, {c.tokenizer.codebook.decay:g}", SILENT),
    Row("revived below, of a fair share", lambda c, t: f"{c.latent_action.codebook.revive_below:g}", SILENT),
)  # fmt: skip


def settings(stage: StageConfig) -> str:
    return f"{stage.warmup:,}, {stage.beta1:g} {stage.beta2:g}, {stage.weight_decay:g}"


def shape(stage: StageConfig) -> str:
    return f"wsd, decay {stage.decay:g}" if stage.schedule == "wsd" else stage.schedule


def table() -> str:
    trainings = {name: training_preset(name) for name in SHOWN}
    models = {name: preset(name, training.mode) for name, training in trainings.items()}
    lines = ["| | " + " | ".join(f"`{name}`" for name in SHOWN) + " | source |", "|---" * (len(SHOWN) + 2) + "|"]
    for row in ROWS:
        values = " | ".join(str(row.value(models[name], trainings[name])) for name in SHOWN)
        lines.append(f"| {row.what} | {values} | {row.source} |")
    return "\n".join(lines)
