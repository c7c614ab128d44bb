"""Figures of codes on real video: which dimension each tells, how consistent each is, where variance lies, what
follows what."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from genie_eval.codes.transitions import Transitions
from genie_eval.report.style import GOOD, GREY, INK, MODEL, PALETTE, RULE, figure, heat, shown_codes, whisker

DIMENSIONS = {
    "base": ("x (forward)", "y (left)", "z (up)"),
    "rotation": ("roll", "pitch", "yaw"),
    "gripper": ("gripper",),
}


def eta_squared(
    table: Transitions, codes: Int[np.ndarray, " M"], num_codes: int
) -> tuple[Float[np.ndarray, "K D"], list[str]]:
    """Each code's part of the share of variance that codes explain, by dimension; its sum over codes is eta squared.

    Dimensions that are not known, not finite or never change are left out.
    """
    columns, names = [], []
    for motion, words in DIMENSIONS.items():
        values = table.motions.get(motion)
        if values is None or not np.isfinite(values).all():
            continue
        for d, column in enumerate(values.reshape(len(codes), -1).T):
            if column.std() > 1e-9:
                columns.append((column - column.mean()) / column.std())
                names.append(words[d] if d < len(words) else f"{motion} {d}")
    if not columns:
        return np.zeros((num_codes, 0)), []
    scored = np.stack(columns, axis=1)
    count = np.bincount(codes, minlength=num_codes)
    total = np.stack([np.bincount(codes, weights=column, minlength=num_codes) for column in scored.T], axis=1)
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
        "Which part of the motion each code tells: its share of the variance of every dimension (eta squared, true "
        "motion). The last row adds them up: 1 would tell that dimension fully, near 0 is a dimension that no code "
        "speaks of (small things in the picture, such as gripper and rotation, are easily lost). A row that is dark in "
        "one place is a code with one meaning."
    )


MOST_ROWS = 32  # codes in one panel


def forest(
    path: Path, by_code: list[dict[str, Any]], by_scene: list[dict[str, Any]], whole: dict[str, Any], marks: dict
) -> str:
    """CTC with its interval: of all, by code, by scene. Rows: {"label", "value" (None: undefined), "ci95"}.

    marks: {"good": pass mark of all, "code": the least asked of each code}.
    """
    cut = len(by_code) > MOST_ROWS
    if cut:  # the least consistent are what one looks for
        known = sorted((row for row in by_code if row["value"] is not None), key=lambda row: row["value"])
        by_code = known[:MOST_ROWS]
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
                axis.axvline(marks["code"], color=GREY, lw=0.9, ls=":")
                axis.text(marks["code"] - 0.01, tall - 0.35, "least of a code", color=GREY, fontsize=7.5, ha="right")
            listed = [*rows, {"label": "all", **whole}][::-1]
            for place, row in enumerate(listed):
                if row.get("value") is None:
                    axis.text(0.02, place, "undefined", fontsize=7.5, color=GREY, va="center", style="italic")
                    continue
                whisker(axis, place, row["value"], row.get("ci95"), MODEL if place == 0 else INK)
            axis.set_yticks(range(len(listed)), [row["label"] for row in listed])
            axis.set_ylim(-0.6, tall + 0.1)
            low, high = axis.get_xlim()
            axis.set_xlim(max(min(low, -0.1), -1.5), min(max(high, 1.15), 2.5))
            axis.set_title(f"CTC by {by}")
    few = f"The {MOST_ROWS} codes with the lowest CTC are shown. " if cut else ""
    undefined = "Undefined: too rare, or without a motion of its own ('still'). "
    return (
        "Cross-trajectory consistency of each part, with 95 % intervals: of what a code reliably means inside a "
        f"trajectory, the share it means in all. {few}{undefined}One row far left of the others is a code"
        + (", or a scene," if by_scene else "")
        + " that hides behind the mean; an interval that reaches below the mark is not sure."
    )


VARIANCE_WORDS = {
    "code": "code: the same in all trajectories",
    "scene": "code, but another meaning in each scene",
    "trajectory": "code, but another meaning in each trajectory",
    "residual": "not told by the code",
}


def variance_bars(path: Path, rows: dict[str, dict[str, float | None]]) -> str:
    """One bar a row: shares (they add up to 1) of VARIANCE_WORDS. rows: label -> {part: share}."""
    colours = {"code": PALETTE[0], "scene": PALETTE[5], "trajectory": PALETTE[1], "residual": "#d0d6dc"}
    parts = [part for part in VARIANCE_WORDS if any(row.get(part) is not None for row in rows.values())]
    with figure(path, 7.6, 0.42 * len(rows) + 1.35, nrows=1, ncols=1) as (fig, axis):
        for place, row in enumerate(list(rows.values())[::-1]):
            left = 0.0
            for part in parts:
                share = max(row.get(part) or 0.0, 0.0)
                axis.barh(place, share, left=left, color=colours[part], height=0.62)
                if share >= 0.035:
                    colour = INK if part == "residual" else "white"
                    axis.text(
                        left + share / 2, place, f"{share:.0%}", ha="center", va="center", fontsize=8, color=colour
                    )
                left += share
        axis.set_yticks(range(len(rows)), list(rows)[::-1])
        axis.set_xlim(0, 1)
        axis.set_xlabel("share of the variance of true motion")
        handles = [axis.barh(-9, 0, color=colours[part], label=VARIANCE_WORDS[part]) for part in parts]
        axis.set_ylim(-0.5, len(rows) - 0.4)
        fig.legend(handles=handles, loc="outside upper left", ncols=2, fontsize=8)
    return (
        "Where the variance of true motion lies. Blue is what the code tells alike everywhere; orange what it tells "
        "only inside one trajectory or scene, under a meaning of its own; grey what it does not tell. A consistent "
        "model has blue and hardly any orange; much grey is normal for few codes."
    )


def transition_shares(table: Transitions, codes: Int[np.ndarray, " M"], num_codes: int) -> Float[np.ndarray, "K K"]:
    """Share of each next code after each code, inside trajectories; NaN rows for codes without a successor."""
    inside = table.trajectory[1:] == table.trajectory[:-1]
    cell = codes[:-1][inside] * num_codes + codes[1:][inside]
    count = np.bincount(cell, minlength=num_codes**2).reshape(num_codes, num_codes).astype(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        return count / count.sum(axis=1, keepdims=True)


def transition_chart(path: Path, shares: Float[np.ndarray, "K K"], cards: list[dict[str, Any]]) -> str:
    """Which code follows which: matrix, and the same as a graph."""
    shown = shown_codes(cards)
    part = shares[np.ix_(shown, shown)]
    wide = 0.42 * len(shown) + 2.4
    with figure(path, wide + 4.0, max(3.6, 0.36 * len(shown) + 1.2), nrows=1, ncols=2, width_ratios=[wide, 4.0]) as (
        _,
        axes,
    ):
        left, right = axes
        heat(left, part, max(0.5, float(np.nanmax(part)) if np.isfinite(part).any() else 0.5))
        left.set_xticks(range(len(shown)), [str(k) for k in shown])
        left.set_yticks(range(len(shown)), [f"{k}: {cards[k]['name']}" for k in shown])
        left.set_xlabel("next code")
        left.set_ylabel("code")
        _graph(right, part, shown, cards)
    return (
        "What follows what. Left: after the code of a row, how often each code comes next; the diagonal is how often a "
        "code is held. Right: the same as a graph: circles grow with the code's share, arrows with how often one "
        "follows the other (from 15 %, the code itself left out). Two codes that alternate without end are one action "
        "split in two."
    )


def _graph(axis: Any, shares: np.ndarray, shown: list[int], cards: list[dict[str, Any]]) -> None:
    from genie_eval.report.style import code_colour

    angle = np.pi / 2 - 2 * np.pi * np.arange(len(shown)) / len(shown)
    place = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    size = np.array([120 + 2600 * cards[k]["share"] for k in shown])
    for a in range(len(shown)):
        for b in range(len(shown)):
            if a != b and np.isfinite(shares[a, b]) and shares[a, b] >= 0.15:
                axis.annotate(
                    "", xy=place[b], xytext=place[a],
                    arrowprops={
                        "arrowstyle": "-|>", "color": code_colour(shown[a]), "lw": 0.6 + 5 * shares[a, b],
                        "alpha": 0.75, "shrinkA": np.sqrt(size[a]) / 2 + 1, "shrinkB": np.sqrt(size[b]) / 2 + 1,
                        "connectionstyle": "arc3,rad=0.14",
                    },
                )  # fmt: skip
    axis.scatter(*place.T, s=size, c=[code_colour(k) for k in shown], zorder=3)
    for (x, y), k in zip(place, shown, strict=True):
        axis.text(x, y, str(k), color="white", ha="center", va="center", fontsize=8.5, fontweight="bold", zorder=4)
    axis.set_xlim(-1.35, 1.35)
    axis.set_ylim(-1.35, 1.35)
    axis.set_aspect("equal")
    axis.set_axis_off()


def flip_bars(
    path: Path, by_nuisance: dict[str, Any], second: dict[str, Any], null: float | None, marks: tuple[float, float]
) -> str:
    """How many codes change under each nuisance. Rows: name -> {"flip_rate", "ci95", and maybe "leaves_null", ...}.

    second: nuisances on the later frame only; marks: the most allowed of both kinds.
    """
    groups = [(rows, mark) for rows, mark in ((by_nuisance, marks[0]), (second, marks[1])) if rows]
    titles = ["both frames look different"] if by_nuisance else []
    titles += ["the later frame only"] if second else []
    tall = max(len(rows) for rows, _ in groups)
    with figure(
        path, 4.5 * len(groups) + 0.4, 0.33 * tall + 1.2, nrows=1, ncols=len(groups), squeeze=False, sharex=True
    ) as (fig, axes):
        top = max(mark for _, mark in groups)
        for axis, (rows, mark), title in zip(axes[0], groups, titles, strict=True):
            order = sorted(rows, key=lambda name: rows[name]["flip_rate"])
            for place, name in enumerate(order):
                row = rows[name]
                over = row["flip_rate"] > mark
                axis.barh(place, row["flip_rate"], color="#c05621" if over else MODEL, height=0.55, alpha=0.85)
                if row.get("ci95") and row["ci95"][0] is not None:
                    axis.plot(row["ci95"], [place, place], color=INK, lw=1.4)
                    top = max(top, row["ci95"][1])
                if row.get("leaves_null") is not None:
                    axis.plot(row["leaves_null"], place, "D", color=INK, ms=5, mfc="white")
                    top = max(top, row["leaves_null"])
                top = max(top, row["flip_rate"])
            axis.axvline(mark, color=GOOD, lw=1, ls=":")
            axis.text(mark, len(order) - 0.35, f" at most {mark:g}", color=GOOD, fontsize=7.5)
            if null is not None:
                axis.axvline(null, color=GREY, lw=1, ls="--")
                axis.text(null, len(order) - 0.35, "unrelated codes ", color=GREY, fontsize=7.5, ha="right")
                top = max(top, null)
            axis.set_yticks(range(len(order)), [name.replace("_", " ") for name in order])
            axis.set_ylim(len(order) - tall - 0.6, len(order) + 0.1)
            axis.set_xlim(0, 1.08 * top)
            axis.set_title(title)
        fig.supxlabel("share of codes that change", fontsize=9)
    extra = (
        " Right: a change that is no action, on the later frame alone, which is harder; a diamond is the same change "
        "where nothing moves at all: how often it makes the model see an action."
        if second
        else ""
    )
    return (
        "Do things that are no action change the code? The same real steps seen again in other light, colour, from a "
        "slightly shifted camera: bars are the share of codes that change, lines their 95 % interval; orange bars are "
        f"above the mark. The dashed line is what codes read that have nothing to do with the picture.{extra}"
    )
