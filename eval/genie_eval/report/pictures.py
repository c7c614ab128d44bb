"""Figures made of frames: the same action from many starts, and dreams beside the truth."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from genie_eval.dreams.generation import DreamSet
from genie_eval.report.style import GREY, code_colour, figure

MAX_COLUMNS = 16  # codes in one grid; larger codebooks show those most used


def dream_grid(
    path: Path,
    starts: UInt8[np.ndarray, "S H W 3"],
    dreams: UInt8[np.ndarray, "S K n H W 3"],
    cards: list[dict[str, Any]],
) -> str:
    """Rows: starts. Columns: the start, then for every code the last frame of a dream that repeats it."""
    columns = sorted(sorted(range(len(cards)), key=lambda k: -cards[k]["share"])[:MAX_COLUMNS])
    aspect = starts.shape[1] / starts.shape[2]
    with figure(
        path, 1.15 * (len(columns) + 1) + 0.2, 1.15 * aspect * len(starts) + 0.6,
        nrows=len(starts), ncols=len(columns) + 1, squeeze=False,
    ) as (_, axes):  # fmt: skip
        for row, (start, dream) in enumerate(zip(starts, dreams, strict=True)):
            _show(axes[row, 0], start)
            for axis, k in zip(axes[row, 1:], columns, strict=True):
                _show(axis, dream[k, -1], code_colour(k))
        axes[0, 0].set_title("start", fontsize=9)
        for axis, k in zip(axes[0, 1:], columns, strict=True):
            name = cards[k]["name"].replace(" and ", "\nand ").replace("gripper ", "gripper\n")
            axis.set_title(f"code {k}\n{name}", fontsize=8.5, color=code_colour(k))
    return (
        f"The same latent action from different starts. Each row begins at the real frame on the left; each column "
        f"shows what the model dreams after {dreams.shape[2]} times the same code. If a code means one thing, its "
        "column shows one change, whatever the row. Names come from measured motion on real video, not from the dreams."
    )


def filmstrip(path: Path, dreams: DreamSet, clips: int = 3) -> str:
    """Truth, reconstruction, dream with inferred codes, dream with random codes, for a few clips."""
    change = np.abs(np.diff(dreams.truth.astype(np.int16), axis=1)).mean(axis=(1, 2, 3, 4))
    order = np.argsort(change)
    # not picked by hand: clips at fixed ranks of how much really moves
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
                dreams.rebuilt[c],
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
                    _show(axis, strip[t])
                    if r == 0:
                        axis.set_title("prompt" if t == 0 else f"t = {t}", fontsize=7.5, pad=2, color=GREY)
                    elif codes is not None and t > 0:
                        axis.set_title(f"code {codes[t - 1]}", fontsize=7, pad=2, color=code_colour(int(codes[t - 1])))
                row[0].set_ylabel(labels[r], rotation=0, ha="right", va="center", fontsize=8.5)
    return (
        f"Dreams beside the truth, {len(chosen)} held-out clips at fixed ranks of how much moves in them. The model "
        "sees the prompt frame only. First row: what happened; second: the tokenizer's reconstruction, the best a "
        "dream can look; third: the dream driven by the codes inferred from the truth; fourth: with random codes. "
        "Where codes matter, the third row follows the first and the fourth does not."
    )


def _show(axis: Any, frame: np.ndarray, colour: Any = None) -> None:
    axis.imshow(frame, interpolation="nearest")
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(colour is not None)
        spine.set_color(colour)
        spine.set_linewidth(1.6)
