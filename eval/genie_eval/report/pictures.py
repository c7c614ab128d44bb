"""Figures made of frames: the same action from many starts, and dreams next to the truth."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from genie_eval.dreams.generation import DreamSet
from genie_eval.plotting import GRAY, code_color, figure, shown_codes


@dataclass(frozen=True)
class Arrows:
    """Displacement of the arm in the picture, in fractions of width (right) and height (down); NaN where not read.

    begin: position of the arm at the start; None: arrows begin at the middle of the picture.
    """

    dreamt: Float[np.ndarray, "S K 2"]
    true: Float[np.ndarray, "S K 2"] | None = None
    begin: Float[np.ndarray, "S 2"] | None = None


def dream_grid(
    path: Path,
    starts: UInt8[np.ndarray, "S H W 3"],
    dreams: UInt8[np.ndarray, "S K n H W 3"],
    cards: list[dict[str, Any]],
    arrows: Arrows | None = None,
) -> str:
    """Rows: starts. Columns: the start, then the last frame of the dream that repeats each code."""
    columns = shown_codes(cards)
    aspect = starts.shape[1] / starts.shape[2]
    with figure(
        path, 1.15 * (len(columns) + 1) + 0.2, 1.15 * aspect * len(starts) + (0.6 if arrows is None else 0.95),
        nrows=len(starts), ncols=len(columns) + 1, squeeze=False,
    ) as (fig, axes):  # fmt: skip
        for row, (start, dream) in enumerate(zip(starts, dreams, strict=True)):
            show(axes[row, 0], start)
            for axis, k in zip(axes[row, 1:], columns, strict=True):
                show(axis, dream[k, -1], code_color(k))
                if arrows is not None:
                    _draw_arrows(axis, arrows, row, k, starts.shape[1:3])
        axes[0, 0].set_title("start", fontsize=9)
        for axis, k in zip(axes[0, 1:], columns, strict=True):
            name = cards[k]["name"].replace(" and ", "\nand ").replace("gripper ", "gripper\n")
            axis.set_title(f"code {k}\n{name}", fontsize=8.5, color=code_color(k))
        if arrows is not None:
            _arrow_legend(fig, arrows)
    return (
        "The same latent action from different starts. Rows: starts, the real frame on the left. Columns: codes; the "
        f"last frame of a dream of {dreams.shape[2]} repetitions of the code. Better: the same change in all rows of a "
        f"column.{_arrow_words(arrows)} Names come from measured motion on real video, not from the dreams."
    )


def _draw_arrows(axis: Any, arrows: Arrows, row: int, k: int, size: tuple[int, ...]) -> None:
    from matplotlib.patheffects import Normal, Stroke

    scale = np.array([size[1], size[0]])  # width, height
    begin = np.array([0.5, 0.5]) if arrows.begin is None else np.clip(arrows.begin[row], 0.02, 0.98)
    for moved, color, width in ((arrows.true, _TRUE, 2.6), (arrows.dreamt, _DREAMT, 1.7)):
        if moved is None:
            continue
        if not np.isfinite(moved[row, k]).all():
            if moved is arrows.dreamt:
                halo = [Stroke(linewidth=2, foreground="black"), Normal()]
                axis.text(*(0.06 * scale), "?", color=_DREAMT, fontsize=10, va="top", path_effects=halo)
            continue
        tail, tip = begin * scale - 0.5, (begin + moved[row, k]) * scale - 0.5
        if np.linalg.norm(tip - tail) < STILL * scale[0]:
            axis.plot(*tail, "o", color=color, ms=2 + 1.5 * width, mec="black", mew=0.7)
            continue
        axis.annotate(
            "", xy=tip, xytext=tail, annotation_clip=False,
            arrowprops={
                "arrowstyle": "-|>,head_length=0.28,head_width=0.16", "color": color, "lw": width,
                "shrinkA": 0, "shrinkB": 0,
                "path_effects": [Stroke(linewidth=width + 1.4, foreground="black"), Normal()],
            },
        )  # fmt: skip


STILL = 0.03  # share of the width; a shorter displacement is a dot
_DREAMT, _TRUE = "#ffb000", "#56b4e9"  # light, with a dark edge: visible on any picture


def _arrow_legend(fig: Any, arrows: Arrows) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=_DREAMT, lw=3, label="motion in the dream")]
    if arrows.true is not None:
        handles.append(Line2D([], [], color=_TRUE, lw=3, label="motion in the simulator"))
    if not np.isfinite(arrows.dreamt).all():
        handles.append(Line2D([], [], color=_DREAMT, marker="$?$", lw=0, label="read-out abstains"))
    fig.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=9)


def _arrow_words(arrows: Arrows | None) -> str:
    if arrows is None:
        return ""
    where = "from the arm" if arrows.begin is not None else "from the middle of the picture"
    true = ""
    if arrows.true is not None:
        true = "; blue: the simulator with the mean action of that code, both should agree"
    return f" Orange arrow, {where} (a dot where it hardly moves): motion of the arm by the read-out{true}."


def filmstrip(path: Path, dreams: DreamSet, clips: int = 3) -> str:
    """Truth, reconstruction, dream with inferred codes, dream with random codes, for a few clips."""
    change = np.abs(np.diff(dreams.truth.astype(np.int16), axis=1)).mean(axis=(1, 2, 3, 4))
    order = np.argsort(change)
    # not picked by hand: clips at fixed ranks of true motion
    chosen = order[np.unique((np.linspace(0.5, 0.95, clips) * (len(order) - 1)).astype(int))][::-1]
    steps = dreams.horizon
    labels = ("truth", "tokenizer", "dream,\ninferred codes", "dream,\nrandom codes")
    aspect = dreams.truth.shape[2] / dreams.truth.shape[3]
    heights = ([1.0] * 4 + [0.12]) * len(chosen)
    with figure(
        path, 0.98 * (steps + 1) + 1.0, 1.14 * aspect * sum(heights[:-1]),
        nrows=len(heights) - 1, ncols=steps + 1, squeeze=False, height_ratios=heights[:-1],
    ) as (_, axes):  # fmt: skip
        for spacer in axes[4::5].flat:
            spacer.set_axis_off()
        for n, c in enumerate(chosen):
            prompt = dreams.truth[c, :1]
            strips = (
                dreams.truth[c],
                dreams.reconstructed[c],
                np.concatenate([prompt, dreams.inferred[c]]),
                np.concatenate([prompt, dreams.random[c]]),
            )
            driven_by = (None, None, dreams.codes[c], dreams.random_codes[c])
            for r, (strip, codes) in enumerate(zip(strips, driven_by, strict=True)):
                row = axes[5 * n + r]
                for t, axis in enumerate(row):
                    if t >= len(strip):
                        axis.set_axis_off()
                        continue
                    show(axis, strip[t])
                    if r == 0:
                        axis.set_title("prompt" if t == 0 else f"t = {t}", fontsize=7.5, pad=2, color=GRAY)
                    elif codes is not None and t > 0:
                        axis.set_title(f"code {codes[t - 1]}", fontsize=7, pad=2, color=code_color(int(codes[t - 1])))
                row[0].set_ylabel(labels[r], rotation=0, ha="right", va="center", fontsize=8.5)
    return (
        f"Dreams next to the truth: {len(chosen)} held-out clips at fixed ranks of how much moves in them. The model "
        "sees the prompt frame only. Rows of each clip: the truth; the tokenizer's reconstruction, the best possible "
        "dream; the dream with the codes inferred from the truth; the dream with random codes. Columns: frames. "
        "Better: the third row follows the first, and the fourth does not."
    )


def show(axis: Any, frame: np.ndarray, color: Any = None) -> None:
    """Draws a frame without ticks, in an edge of this color (default: no edge)."""
    axis.imshow(frame, interpolation="nearest")
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(color is not None)
        spine.set_color(color)
        spine.set_linewidth(1.6)
