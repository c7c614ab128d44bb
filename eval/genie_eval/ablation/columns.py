"""The metrics of each group as columns of the tables, and the words that explain them."""

from dataclasses import dataclass

from genie_eval.report.cells import number


@dataclass(frozen=True)
class Column:
    name: str
    title: str
    digits: int = 2
    lower_is_better: bool = False
    claimed: bool = True
    """True if variants are called better or worse by this metric."""
    power: bool = False
    """True if its trend is a power law instead of a line."""


COLUMNS: dict[str, tuple[Column, ...]] = {
    "codes": (
        Column("grounding_skill", "skill"),
        Column("linear_r2_x", "linear x", claimed=False),
        Column("linear_r2_y", "linear y", claimed=False),
        Column("linear_r2_z", "linear z", claimed=False),
        Column("ctc", "ctc"),
        Column("worst_code", "worst code", claimed=False),
        Column("codebook_perplexity", "perplexity", 1, claimed=False),
        Column("state_leak", "leak", lower_is_better=True),
        Column("nuisance_flip_rate", "flips", lower_is_better=True),
    ),
    "dreams": (
        Column("delta_psnr_t4", "delta-PSNR dB"),
        Column("action_attributable_fraction", "AAF"),
        Column("dream_psnr", "dream dB"),
        Column("dream_psnr_t15", "dream t=15 dB", claimed=False),
        Column("tokenizer_psnr", "tokenizer dB"),
    ),
    "commands": (Column("command_bits", "bits"),),
    "losses": (
        Column("error_share", "error share", 3, lower_is_better=True, power=True),
        Column("token_loss", "token loss", 3, lower_is_better=True, power=True),
    ),
}
LEGEND = {
    "skill": "`grounding_r2`, scaled so that codes swapped among trajectories have 0 and k-means of the true motion 1",
    "linear x": "R2 of the motion along x (y, z), by ridge regression from the latent before quantization, in held-out "
    "trajectories",
    "ctc": "agreement of a code's mean motion across trajectories (0 = none, 1 = perfect)",
    "leak": "`state_leak`, lower is better",
    "flips": "`nuisance_flip_rate`, lower is better",
    "delta-PSNR dB": "PSNR of dreams with inferred codes minus PSNR with random codes, at the fourth frame",
    "AAF": "`action_attributable_fraction`: the same gain, as a fraction of what the tokenizer allows",
    "dream dB": "PSNR of dreams from one prompt frame with inferred codes, mean over t = 1..8",
    "error share": "error of the predicted frame, as a fraction of the error of repeating the previous one, lower is "
    "better",
    "token loss": "cross-entropy of the dynamics, nats per masked token, lower is better",
    "bits": "`command_bits`: information about the commanded codes that the model reads back from its dreams; at most "
    "log2 K",
}


def signed(value: float, digits: int) -> str:
    text = number(value, digits)
    return text if text.startswith("-") or float(text) == 0 else f"+{text}"


def markdown_table(head: list[str], body: list[list[str]]) -> list[str]:
    def line(texts: list[str]) -> str:
        return "| " + " | ".join(text.replace("|", "/") for text in texts) + " |"

    return [line(head), line(["---"] * len(head)), *(line(texts) for texts in body)]
