"""The metrics as the tables show them."""

from dataclasses import dataclass

from genie_eval.report.cells import number


@dataclass(frozen=True)
class Column:
    """A metric as the table shows it. claimed: variants are said to be better or worse by it."""

    name: str
    title: str
    digits: int = 2
    less_is_better: bool = False
    claimed: bool = True
    power: bool = False
    """Along an axis it is fitted by a power law."""


COLUMNS: dict[str, tuple[Column, ...]] = {
    "codes": (
        Column("grounding_skill", "skill"),
        Column("linear_r2_x", "linear x", claimed=False),
        Column("linear_r2_y", "linear y", claimed=False),
        Column("linear_r2_z", "linear z", claimed=False),
        Column("ctc", "ctc"),
        Column("worst_code", "worst code", claimed=False),
        Column("codebook_perplexity", "perplexity", 1, claimed=False),
        Column("state_leak", "leak", less_is_better=True),
        Column("nuisance_flip_rate", "flips", less_is_better=True),
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
        Column("error_share", "error share", 3, less_is_better=True, power=True),
        Column("token_loss", "token loss", 3, less_is_better=True, power=True),
    ),
}
LEGEND = {
    "skill": "`grounding_r2` between codes swapped among trajectories (0) and k-means of the true motion (1)",
    "linear x": "R2 of the motion along x (y, z) from the latent before quantisation, by ridge, in other trajectories",
    "ctc": "of what a code means in one trajectory, the share it means in all",
    "leak": "`state_leak`, less is better",
    "flips": "`nuisance_flip_rate`, less is better",
    "delta-PSNR dB": "what inferred codes gain over random ones at the fourth frame",
    "AAF": "`action_attributable_fraction`: the same above the tokenizer's own error",
    "dream dB": "one prompt frame, inferred codes, mean of t = 1..8",
    "error share": "error of the predicted frame, from codes, over that of repeating the last one",
    "token loss": "cross-entropy of the dynamics, nats a masked token",
    "bits": "`command_bits`: commanded codes read back by the model itself; log2 K at most",
}


def signed(value: float, digits: int) -> str:
    text = number(value, digits)
    return text if text.startswith("-") or float(text) == 0 else f"+{text}"


def markdown_table(head: list[str], body: list[list[str]]) -> list[str]:
    def line(cells: list[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |"

    return [line(head), line(["---"] * len(head)), *(line(cells) for cells in body)]
