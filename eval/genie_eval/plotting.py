"""One look for all figures: colours of the codes, a quiet grid, readable sizes. Agg only: no display is needed."""

import colorsys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

INK, GREY, RULE = "#1f2933", "#7b8794", "#d9dee4"
PALETTE = ("#2b6cb0", "#c05621", "#2f855a", "#b83280", "#6b46c1", "#b7791f", "#0987a0", "#822727")
DPI = 130


def code_colour(code: int) -> str:
    """Fixed for the first 8 codes; spread over the hues for larger codebooks."""
    if code < len(PALETTE):
        return PALETTE[code]
    return "#" + "".join(f"{round(255 * c):02x}" for c in colorsys.hsv_to_rgb((code * 0.618) % 1, 0.65, 0.65))


@contextmanager
def figure(path: Path, width: float, height: float, **subplots: Any) -> Iterator[tuple[Any, Any]]:
    """(figure, axes) of `matplotlib.subplots`, in inches, written to `path` as PNG at the end; maybe no axes."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    look: Any = {
        "font.size": 9, "axes.titlesize": 9.5, "axes.labelsize": 9, "axes.edgecolor": GREY, "axes.labelcolor": INK,
        "text.color": INK, "xtick.color": GREY, "ytick.color": GREY, "axes.spines.top": False,
        "axes.spines.right": False, "legend.frameon": False, "axes.axisbelow": True,
    }  # fmt: skip
    with matplotlib.rc_context(look):
        fig = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(fig)  # no pyplot: nothing global, so that a notebook's figures stay as they are
        yield fig, fig.subplots(**subplots) if subplots else None
        path.parent.mkdir(parents=True, exist_ok=True)
        fig.savefig(path, dpi=DPI, facecolor="white")
