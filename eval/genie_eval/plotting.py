"""One style for all figures: colors, a frame with readable sizes, and the marks that several figures draw.

Figures are drawn with Agg and without pyplot: no display is needed, and the figures of a notebook are not affected.
"""

import colorsys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

INK, GRAY, RULE = "#1f2933", "#7b8794", "#d9dee4"
GOOD, BAD, MODEL = "#2f855a", "#c05621", "#2b6cb0"
DREAM, TRUTH = "#d55e00", "#0072b2"  # Okabe-Ito: distinguishable with any color vision
PALETTE = ("#2b6cb0", "#c05621", "#2f855a", "#b83280", "#6b46c1", "#b7791f", "#0987a0", "#822727")
DPI = 130
MAX_CODES = 16  # codes in one figure; of larger codebooks the most used ones
ELLIPSE = 2.4477  # radius, in SDs, of the 95 % region of a 2-D normal distribution


def code_color(code: int) -> str:
    """Color of a code: fixed for the first 8, spread over the hues for larger codebooks."""
    if code < len(PALETTE):
        return PALETTE[code]
    return "#" + "".join(f"{round(255 * c):02x}" for c in colorsys.hsv_to_rgb((code * 0.618) % 1, 0.65, 0.65))


def shown_codes(cards: list[dict[str, Any]]) -> list[int]:
    """The MAX_CODES most used codes, in ascending order."""
    return sorted(sorted(range(len(cards)), key=lambda k: -cards[k]["share"])[:MAX_CODES])


@contextmanager
def figure(path: Path, width: float, height: float, **subplots: Any) -> Iterator[tuple[Any, Any]]:
    """Yields (figure, axes) as `matplotlib.subplots` does, size in inches; writes `path` as PNG at the end.

    axes is None without `subplots`.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    look: Any = {
        "font.size": 9, "axes.titlesize": 9.5, "axes.labelsize": 9, "axes.edgecolor": GRAY, "axes.labelcolor": INK,
        "text.color": INK, "xtick.color": GRAY, "ytick.color": GRAY, "axes.spines.top": False,
        "axes.spines.right": False, "legend.frameon": False, "axes.axisbelow": True,
    }  # fmt: skip
    with matplotlib.rc_context(look):
        fig = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(fig)
        yield fig, fig.subplots(**subplots) if subplots else None
        path.parent.mkdir(parents=True, exist_ok=True)
        fig.savefig(path, dpi=DPI, facecolor="white")


def whisker(axis: Any, place: float, value: float, ci95: Any, color: str, size: float = 5.5) -> None:
    """Draws a point with its horizontal interval."""
    if ci95 is not None and all(end is not None for end in ci95):
        axis.plot(list(ci95), [place, place], color=color, lw=2.2, solid_capstyle="butt")
    axis.plot(value, place, "o", color=color, ms=size)


def band(axis: Any, x: Any, reading: dict[str, Any], color: str, label: str, style: Any = "-") -> None:
    """Draws a line {"value" (n,), "ci95" (n, 2)} over its interval, with gaps where a number is null."""
    value = np.array(reading["value"], float)
    axis.plot(x, value, color=color, lw=1.8, label=label, ls=style)
    if reading.get("ci95") is not None:
        low, high = np.array(reading["ci95"], float).T
        axis.fill_between(x, low, high, color=color, alpha=0.15, lw=0)


def ellipse(axis: Any, cloud: Float[np.ndarray, "2 R"], tip: Float[np.ndarray, " 2"], color: str) -> None:
    """Draws the 95 % region of a mean at `tip` from its bootstrap draws."""
    from matplotlib.patches import Ellipse

    cloud = cloud[:, np.isfinite(cloud).all(axis=0)]
    if cloud.shape[1] < 3:
        return
    spread, axes = np.linalg.eigh(np.cov(cloud))
    width, height = 2 * ELLIPSE * np.sqrt(np.maximum(spread, 0))
    angle = np.degrees(np.arctan2(axes[1, 0], axes[0, 0]))
    axis.add_patch(Ellipse((tip[0], tip[1]), width, height, angle=angle, fc="none", ec=color, lw=1.0, zorder=6))


def heat(axis: Any, table: Float[np.ndarray, "R C"], top: float, cmap: str = "Blues") -> None:
    """Draws a heat map from 0 to `top`, with its numbers where there are not too many; NaN is white with a dash."""
    axis.imshow(table, cmap=cmap, vmin=0, vmax=top, aspect="auto", interpolation="nearest")
    if table.size <= 300:
        size = 8 if max(table.shape) <= 10 else 6
        for (r, c), value in np.ndenumerate(table):
            text = f"{value:.2f}" if np.isfinite(value) else "–"
            color = "white" if np.isfinite(value) and value > 0.6 * top else INK
            axis.text(c, r, text, ha="center", va="center", fontsize=size, color=color)
    for spine in axis.spines.values():
        spine.set_visible(False)
    axis.tick_params(length=0)
