"""Figures of codes on real video: dimensions, consistency, variance, transitions between codes, nuisances."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from genie_eval.codes.motion import group_sums
from genie_eval.codes.transitions import Transitions
from genie_eval.codes.usage_stats import transition_counts
from genie_eval.plotting import (
    BAD,
    GOOD,
    GRAY,
    INK,
    MODEL,
    PALETTE,
    RULE,
    code_color,
    figure,
    heat,
    shown_codes,
    whisker,
)
from genie_eval.report.findings import DIMENSION_NAMES

MAX_ROWS = 32  # codes in one panel
VARIANCE_WORDS = {
    "code": "code, the same in all trajectories",
    "scene": "code, different in each scene",
    "trajectory": "code, different in each trajectory",
    "residual": "not explained by the code",
}
ARROW_FROM = 0.15  # share of transitions from which an arrow is drawn


def eta_squared(
    table: Transitions, codes: Int[np.ndarray, " M"], num_codes: int
) -> tuple[Float[np.ndarray, "K D"], list[str]]:
    """Part of each code in the explained variance of each dimension, and the names of the dimensions.

    The sum over codes is eta squared. Dimensions that are not known, not finite or never change are left out.
    """
    columns, names = [], []
    for motion in ("base", "rotation", "gripper"):
        words, values = DIMENSION_NAMES[motion], table.motions.get(motion)
        if values is None or not np.isfinite(values).all():
            continue
        for d, column in enumerate(values.reshape(len(codes), -1).T):
            if column.std() > 1e-9:
                columns.append((column - column.mean()) / column.std())
                names.append(words[d] if d < len(words) else f"{motion} {d}")
    if not columns:
        return np.zeros((num_codes, 0)), []
    count = np.bincount(codes, minlength=num_codes)
    total = group_sums(np.stack(columns, axis=1), codes, num_codes)
    return total**2 / np.maximum(count, 1)[:, None] / len(codes), names


def eta_heat(path: Path, parts: Float[np.ndarray, "K D"], names: list[str], cards: list[dict[str, Any]]) -> str:
    """Heat map of code x dimension, and the sum over codes below it."""
    shown = shown_codes(cards)
    table = np.concatenate([parts[shown], parts.sum(axis=0, keepdims=True)])
    size = (0.85 * len(names) + 2.6, 0.3 * len(table) + 1.3)
    with figure(path, *size, nrows=2, ncols=1, sharex=True, height_ratios=[len(shown), 1]) as (_, axes):
        top, bottom = axes
        heat(top, parts[shown], max(0.1, float(parts[shown].max())))
        top.set_yticks(range(len(shown)), [f"{k}: {cards[k]['name']}" for k in shown])
        heat(bottom, table[-1:], 1.0, cmap="Greys")
        bottom.set_yticks([0], ["all codes"])
        bottom.set_xticks(range(len(names)), names, rotation=25, ha="right")
        top.tick_params(labelbottom=False)
    return (
        "Part of the motion that each code explains. Rows: codes. Columns: dimensions of the true motion. Cells: share "
        "of the variance of the dimension (eta squared), higher is better. The last row is the sum over codes: 1 is "
        "fully explained, near 0 is a dimension that no code encodes (motions that are small in the picture, such as "
        "gripper and rotation, are easily lost). A row that is dark in one column is a code with one meaning."
    )


def forest(
    path: Path, by_code: list[dict[str, Any]], by_scene: list[dict[str, Any]], whole: dict[str, Any], marks: dict
) -> str:
    """CTC with its interval: of all codes, by code, by scene. Rows: {"label", "value" (None: undefined), "ci95"}.

    marks: {"good": pass mark of all, "code": the minimum for each code}.
    """
    cut = len(by_code) > MAX_ROWS
    if cut:  # the least consistent codes are of interest
        known = sorted((row for row in by_code if row["value"] is not None), key=lambda row: row["value"])
        by_code = known[:MAX_ROWS]
    panels = [rows for rows in (by_code, by_scene) if rows]
    tall = max(len(rows) for rows in panels) + 1
    with figure(
        path, 4.4 * len(panels) + 0.6, 0.3 * tall + 0.9, nrows=1, ncols=len(panels), squeeze=False, sharex=True
    ) as (_, axes):
        for axis, rows in zip(axes[0], panels, strict=True):
            by = "code" if rows is by_code else "scene"
            axis.axvline(0, color=RULE, lw=1)
            axis.axvline(1, color=RULE, lw=1)
            axis.axvline(marks["good"], color=GOOD, lw=0.9, ls=":")
            axis.text(marks["good"] + 0.01, tall - 0.35, "pass", color=GOOD, fontsize=7.5, ha="left")
            if by == "code":
                axis.axvline(marks["code"], color=GRAY, lw=0.9, ls=":")
                axis.text(marks["code"] - 0.01, tall - 0.35, "minimum of a code", color=GRAY, fontsize=7.5, ha="right")
            listed = [*rows, {"label": "all", **whole}][::-1]
            for place, row in enumerate(listed):
                if row.get("value") is None:
                    axis.text(0.02, place, "undefined", fontsize=7.5, color=GRAY, va="center", style="italic")
                    continue
                whisker(axis, place, row["value"], row.get("ci95"), MODEL if place == 0 else INK)
            axis.set_yticks(range(len(listed)), [row["label"] for row in listed])
            axis.set_ylim(-0.6, tall + 0.1)
            low, high = axis.get_xlim()
            axis.set_xlim(max(min(low, -0.1), -1.5), min(max(high, 1.15), 2.5))
            axis.set_title(f"CTC by {by}")
    few = f"The {MAX_ROWS} codes with the lowest CTC are shown. " if cut else ""
    return (
        f"Cross-trajectory consistency with 95 % intervals. Rows: codes{' and scenes' if by_scene else ''}. {few}"
        "Higher is better: 1 is the same motion in all trajectories, 0 none in common. undefined: too rare, or without "
        "a motion of its own (as 'still'). The mean can hide a code"
        + (" or a scene" if by_scene else "")
        + " far to the left of the others."
    )


def variance_bars(path: Path, shares: dict[str, float | None]) -> str:
    """One stacked bar of the parts of VARIANCE_WORDS; shares add up to 1."""
    colors = {"code": PALETTE[0], "scene": PALETTE[5], "trajectory": PALETTE[1], "residual": "#d0d6dc"}
    parts = [part for part in VARIANCE_WORDS if shares.get(part) is not None]
    with figure(path, 7.6, 1.77, nrows=1, ncols=1) as (fig, axis):
        left = 0.0
        for part in parts:
            share = max(shares[part] or 0.0, 0.0)
            axis.barh(0, share, left=left, color=colors[part], height=0.62, label=VARIANCE_WORDS[part])
            if share >= 0.035:
                color = INK if part == "residual" else "white"
                axis.text(left + share / 2, 0, f"{share:.0%}", ha="center", va="center", fontsize=8, color=color)
            left += share
        axis.set_yticks([0], ["model"])
        axis.set_ylim(-0.5, 0.6)
        axis.set_xlim(0, 1)
        axis.set_xlabel("share of the variance of true motion")
        fig.legend(loc="outside upper left", ncols=2, fontsize=8)
    return (
        "Decomposition of the variance of true motion. Blue: explained by the code in the same way everywhere. Orange: "
        "explained by the code only within one trajectory or scene, with a different meaning in each. Gray: not "
        "explained by the code. Better: much blue and hardly any orange; much gray is normal for few codes."
    )


def transition_shares(table: Transitions, codes: Int[np.ndarray, " M"], num_codes: int) -> Float[np.ndarray, "K K"]:
    """Share of each next code (column) after each code (row); NaN rows for codes without a successor."""
    count = transition_counts(table, codes, num_codes)
    with np.errstate(divide="ignore", invalid="ignore"):
        return count / count.sum(axis=1, keepdims=True)


def transition_chart(path: Path, shares: Float[np.ndarray, "K K"], cards: list[dict[str, Any]]) -> str:
    """Shares of the next code as a matrix, and as a graph."""
    shown = shown_codes(cards)
    part = shares[np.ix_(shown, shown)]
    wide = 0.42 * len(shown) + 2.4
    size = (wide + 4.0, max(3.6, 0.36 * len(shown) + 1.2))
    with figure(path, *size, nrows=1, ncols=2, width_ratios=[wide, 4.0]) as (_, axes):
        left, right = axes
        heat(left, part, max(0.5, float(np.nanmax(part)) if np.isfinite(part).any() else 0.5))
        left.set_xticks(range(len(shown)), [str(k) for k in shown])
        left.set_yticks(range(len(shown)), [f"{k}: {cards[k]['name']}" for k in shown])
        left.set_xlabel("next code")
        left.set_ylabel("code")
        _graph(right, part, shown, cards)
    return (
        "Transitions between codes. Left: rows are codes, columns the next code, cells how often it follows; the "
        "diagonal is how often a code is held. Right: the same as a graph; circles grow with the share of the code, "
        f"arrows with how often one follows the other (from {ARROW_FROM:.0%}, repetitions left out). Two codes that "
        "alternate without end are one action split in two."
    )


def _graph(axis: Any, shares: np.ndarray, shown: list[int], cards: list[dict[str, Any]]) -> None:
    angle = np.pi / 2 - 2 * np.pi * np.arange(len(shown)) / len(shown)
    place = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    size = np.array([120 + 2600 * cards[k]["share"] for k in shown])
    for a in range(len(shown)):
        for b in range(len(shown)):
            if a != b and np.isfinite(shares[a, b]) and shares[a, b] >= ARROW_FROM:
                axis.annotate(
                    "", xy=place[b], xytext=place[a],
                    arrowprops={
                        "arrowstyle": "-|>", "color": code_color(shown[a]), "lw": 0.6 + 5 * shares[a, b],
                        "alpha": 0.75, "shrinkA": np.sqrt(size[a]) / 2 + 1, "shrinkB": np.sqrt(size[b]) / 2 + 1,
                        "connectionstyle": "arc3,rad=0.14",
                    },
                )  # fmt: skip
    axis.scatter(*place.T, s=size, c=[code_color(k) for k in shown], zorder=3)
    for (x, y), k in zip(place, shown, strict=True):
        axis.text(x, y, str(k), color="white", ha="center", va="center", fontsize=8.5, fontweight="bold", zorder=4)
    axis.set_xlim(-1.35, 1.35)
    axis.set_ylim(-1.35, 1.35)
    axis.set_aspect("equal")
    axis.set_axis_off()


def flip_bars(
    path: Path, by_nuisance: dict[str, Any], second: dict[str, Any], null: float | None, marks: tuple[float, float]
) -> str:
    """Share of codes that change under each nuisance: name -> {"flip_rate", "ci95", and optionally "leaves_null"}.

    second: nuisances on the later frame only. marks: largest share allowed of both kinds.
    """
    titles = ("all frames changed", "only the later frame changed")
    groups = [
        (title, rows, mark) for title, rows, mark in zip(titles, (by_nuisance, second), marks, strict=True) if rows
    ]
    tall = max(len(rows) for _, rows, _ in groups)
    with figure(
        path, 4.5 * len(groups) + 0.4, 0.33 * tall + 1.2, nrows=1, ncols=len(groups), squeeze=False, sharex=True
    ) as (fig, axes):
        top = max(mark for _, _, mark in groups)
        for axis, (title, rows, mark) in zip(axes[0], groups, strict=True):
            order = sorted(rows, key=lambda name: rows[name]["flip_rate"])
            for place, name in enumerate(order):
                top = max(top, _flip_bar(axis, place, rows[name], mark))
            axis.axvline(mark, color=GOOD, lw=1, ls=":")
            axis.text(mark, len(order) - 0.35, f" at most {mark:g}", color=GOOD, fontsize=7.5)
            if null is not None:
                axis.axvline(null, color=GRAY, lw=1, ls="--")
                axis.text(null, len(order) - 0.35, "unrelated codes ", color=GRAY, fontsize=7.5, ha="right")
                top = max(top, null)
            axis.set_yticks(range(len(order)), [name.replace("_", " ") for name in order])
            axis.set_ylim(len(order) - tall - 0.6, len(order) + 0.1)
            axis.set_xlim(0, 1.08 * top)
            axis.set_title(title)
        fig.supxlabel("share of codes that change", fontsize=9)
    extra = (
        " Right: a change that is not an action, on the later frame only, which is harder. Diamonds: the same change "
        "where nothing moves at all; the share in which the model sees an action."
        if second
        else ""
    )
    return (
        "Nuisances: changes that are not actions. The same real steps are seen again in other light, color, or from a "
        "slightly shifted camera. Rows: nuisances. Bars: share of codes that change, lower is better; lines: 95 % "
        f"interval; orange: above the mark. Dashed: codes that are unrelated to the picture.{extra}"
    )


def _flip_bar(axis: Any, place: int, row: dict[str, Any], mark: float) -> float:
    """Draws one nuisance and returns how far it reaches."""
    over, reach = row["flip_rate"] > mark, row["flip_rate"]
    axis.barh(place, row["flip_rate"], color=BAD if over else MODEL, height=0.55, alpha=0.85)
    if row.get("ci95") and row["ci95"][0] is not None:
        axis.plot(row["ci95"], [place, place], color=INK, lw=1.4)
        reach = max(reach, row["ci95"][1])
    if row.get("leaves_null") is not None:
        axis.plot(row["leaves_null"], place, "D", color=INK, ms=5, mfc="white")
        reach = max(reach, row["leaves_null"])
    return reach
