"""What the figures of the report add to the one look for all (genie_eval.plotting)."""

from typing import Any

import numpy as np
from jaxtyping import Float

from genie_eval.plotting import GREY, INK, PALETTE, RULE, code_colour, figure

GOOD, BAD, MODEL = "#2f855a", "#c05621", "#2b6cb0"
DREAM, TRUTH = "#d55e00", "#0072b2"  # of one picture: what was dreamt, what is true (Okabe-Ito, told apart by all)
MAX_CODES = 16  # codes that one figure shows; of larger codebooks those most used
ELLIPSE = 2.4477  # radius in SDs of the 95 % region of a 2-D normal

__all__ = [
    "BAD", "DREAM", "ELLIPSE", "GOOD", "GREY", "INK", "MAX_CODES", "MODEL", "PALETTE", "RULE", "TRUTH", "band",
    "code_colour", "ellipse", "figure", "heat", "shown_codes", "whisker",
]  # fmt: skip


def shown_codes(cards: list[dict[str, Any]], most: int = MAX_CODES) -> list[int]:
    """The most used codes, in their order."""
    return sorted(sorted(range(len(cards)), key=lambda k: -cards[k]["share"])[:most])


def whisker(axis: Any, place: float, value: float, ci95: Any, colour: str, size: float = 5.5) -> None:
    """A point with its interval, horizontally."""
    if ci95 is not None and all(end is not None for end in ci95):
        axis.plot(list(ci95), [place, place], color=colour, lw=2.2, solid_capstyle="butt")
    axis.plot(value, place, "o", color=colour, ms=size)


def band(axis: Any, x: Any, reading: dict[str, Any], colour: str, label: str, style: Any = "-") -> None:
    """A line {"value" (n,), "ci95" (n, 2)} over its interval; gaps where a number is null."""
    value = np.array(reading["value"], float)
    axis.plot(x, value, color=colour, lw=1.8, label=label, ls=style)
    if reading.get("ci95") is not None:
        low, high = np.array(reading["ci95"], float).T
        axis.fill_between(x, low, high, color=colour, alpha=0.15, lw=0)


def ellipse(axis: Any, cloud: Float[np.ndarray, "2 R"], tip: Float[np.ndarray, " 2"], colour: str) -> None:
    """The 95 % region of a mean, from its bootstrap draws."""
    from matplotlib.patches import Ellipse

    cloud = cloud[:, np.isfinite(cloud).all(axis=0)]
    if cloud.shape[1] < 3:
        return
    spread, axes = np.linalg.eigh(np.cov(cloud))
    width, height = 2 * ELLIPSE * np.sqrt(np.maximum(spread, 0))
    angle = np.degrees(np.arctan2(axes[1, 0], axes[0, 0]))
    axis.add_patch(Ellipse((tip[0], tip[1]), width, height, angle=angle, fc="none", ec=colour, lw=1.0, zorder=6))


def heat(axis: Any, table: Float[np.ndarray, "R C"], top: float, digits: int = 2, cmap: str = "Blues") -> Any:
    """A heat map with its numbers written in, where there are not too many; NaN stays white with a dash."""
    image = axis.imshow(table, cmap=cmap, vmin=0, vmax=top, aspect="auto", interpolation="nearest")
    if table.size <= 300:
        size = 8 if max(table.shape) <= 10 else 6
        for (r, c), value in np.ndenumerate(table):
            text = f"{value:.{digits}f}" if np.isfinite(value) else "–"
            text = text.removeprefix("0") if digits else text
            colour = "white" if np.isfinite(value) and value > 0.6 * top else INK
            axis.text(c, r, text, ha="center", va="center", fontsize=size, color=colour)
    for spine in axis.spines.values():
        spine.set_visible(False)
    axis.tick_params(length=0)
    return image
