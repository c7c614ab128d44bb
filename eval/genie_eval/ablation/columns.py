"""The columns of the tables: metrics of the suite, and numbers that only ablations have."""

from dataclasses import dataclass

from genie_eval.metrics import METRICS
from genie_eval.report.cells import number


@dataclass(frozen=True)
class Column:
    """One column. claimed: variants are called better or worse by it. power: a power law is fitted along an axis."""

    name: str
    title: str
    digits: int = 2
    lower_is_better: bool = False
    claimed: bool = True
    power: bool = False
    about: str = ""


def metric(name: str, digits: int = 2, claimed: bool = True) -> Column:
    """The column of a metric of the suite."""
    definition = METRICS[name]
    about = f"`{name}`: {definition.about}"
    return Column(name, definition.short, digits, definition.lower_is_better, claimed, about=about)


COLUMNS: dict[str, tuple[Column, ...]] = {
    "codes": (
        Column(
            "grounding_skill", "skill",
            about="skill of `grounding_r2`: 0 for codes swapped among trajectories, 1 for k-means of the true motion",
        ),
        Column(
            "linear_r2_x", "linear x", claimed=False,
            about="R2 of the motion along x (y, z) by ridge from the latent before quantization, in other trajectories",
        ),
        Column("linear_r2_y", "linear y", claimed=False),
        Column("linear_r2_z", "linear z", claimed=False),
        metric("ctc"),
        Column("worst_code", "worst code", claimed=False),
        metric("codebook_perplexity", 1, claimed=False),
        metric("state_leak"),
        metric("nuisance_flip_rate"),
    ),
    "dreams": (
        metric("delta_psnr_t4"),
        metric("action_attributable_fraction"),
        metric("dream_psnr"),
        Column("dream_psnr_t15", "dream t=15 dB", claimed=False),
        metric("tokenizer_psnr"),
    ),
    "commands": (metric("command_bits"),),
    "losses": (
        Column(
            "error_share", "error share", 3, lower_is_better=True, power=True,
            about="error of the predicted frame, from codes, divided by that of repeating the last one",
        ),
        Column(
            "token_loss", "token loss", 3, lower_is_better=True, power=True,
            about="cross-entropy of the dynamics, nats per masked token",
        ),
    ),
}  # fmt: skip
LEGEND = {column.title: column.about for group in COLUMNS.values() for column in group if column.about}


def signed(value: float, digits: int) -> str:
    text = number(value, digits)
    return text if text.startswith("-") or float(text) == 0 else f"+{text}"
