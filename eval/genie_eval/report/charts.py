"""Figures of codes and baselines: motion of each code, use of the codes, comparison with other codes."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from genie_eval.codes.code_sums import code_sums, usage
from genie_eval.codes.naming import code_means
from genie_eval.codes.transitions import Transitions
from genie_eval.plotting import GOOD, GRAY, INK, MODEL, RULE, code_color, ellipse, figure, shown_codes
from genie_eval.report.findings import mark_of
from genie_eval.resampling import bootstrap_weights

Codes = Int[np.ndarray, " M"]
MIN_TRANSITIONS = 2  # of a code in a trajectory, for the trajectory to be drawn


@contextmanager
def panel_grid(
    path: Path, panels: int, across: int, size: tuple[float, float], margin: tuple[float, float], **subplots: Any
) -> Iterator[tuple[Any, Any]]:
    """Yields (figure, axes of the panels), at most `across` panels in a row; the other places stay empty.

    size: width and height of a panel; margin: what the figure has in addition, in inches.
    """
    columns = max(1, min(across, panels))
    rows = max(1, -(-panels // columns))
    wide, tall = size[0] * columns + margin[0], size[1] * rows + margin[1]
    with figure(path, wide, tall, nrows=rows, ncols=columns, squeeze=False, **subplots) as (fig, axes):
        for axis in axes.flat[panels:]:
            axis.set_axis_off()
        yield fig, axes.flat[:panels]


def trajectory_means(
    codes: Codes, values: Float[np.ndarray, "M D"], table: Transitions, num_codes: int
) -> tuple[Float[np.ndarray, "I K D"], Bool[np.ndarray, "I K"]]:
    """Mean of each code in each trajectory, and whether it has enough transitions there to be drawn."""
    sums = code_sums(codes, values, table.trajectory, num_codes)
    with np.errstate(divide="ignore", invalid="ignore"):
        return sums.total / sums.count[..., None], sums.count >= MIN_TRANSITIONS


def motion_quiver(path: Path, table: Transitions, codes: Codes, cards: list[dict[str, Any]], draws: int) -> str:
    """One panel per code: a thin line for each trajectory's mean motion, a thick one for the mean of all."""
    motion, x, y, third, words = plane(table)
    values = table.motions[motion]
    mean, drawn = code_means(table, values, codes, len(cards), bootstrap_weights(table.num_trajectories, draws))
    own, enough = trajectory_means(codes, values, table, len(cards))
    shown = shown_codes(cards)
    reach = max(float(np.nanquantile(np.abs(own[enough]), 0.97)), 1e-9)
    with panel_grid(path, len(shown), 4, (2.35, 2.5), (0, 0.3)) as (fig, axes):
        for axis, k in zip(axes, shown, strict=True):
            quiver_panel(axis, own[enough[:, k], k], mean[k], drawn[:, k], x, y, third, reach, code_color(k))
            axis.set_title(f"code {k}: {cards[k]['name']}\n{cards[k]['share']:.0%} of transitions", color=code_color(k))
        fig.supxlabel(words["x"], fontsize=9)
        fig.supylabel(words["y"], fontsize=9)
    bars = f" The bar on the right is {words['third']}, with its 95 % interval." if third is not None else ""
    return (
        f"Motion of each code in real video: {words['what']}. One panel per code: a thin line per trajectory (from 0 "
        "to its mean over the code's transitions), a thick line for the mean of all with the 95 % region of that mean. "
        f"Better: thin lines that point the same way, because the code then means the same in every trajectory.{bars}"
    )


def plane(table: Transitions) -> tuple[str, tuple[int, float], tuple[int, float], int | None, dict[str, str]]:
    """The motion to draw: (name, (dimension, sign) to the right, the same upwards, third dimension, words)."""
    if table.why_unusable("base") is None:
        return (
            "base", (1, -1.0), (0, 1.0), 2,
            {
                "what": "end-effector motion in one step, seen from above, in mm",
                "x": "to the robot's right →   (mm)", "y": "away from the robot →   (mm)",
                "third": "vertical motion (up is up) on the same scale",
            },
        )  # fmt: skip
    return (
        "flow", (0, 1.0), (1, -1.0), None,
        {
            "what": "mean optical flow of the moving pixels in one step, in % of the image (there is no true motion)",
            "x": "right →   (% of the width)", "y": "up →   (% of the height)",
        },
    )  # fmt: skip


def quiver_panel(axis, own, mean, drawn, x, y, third, reach, color) -> None:
    """Draws own (n, D) as thin lines and mean (D,) as a thick one, with the 95 % region of its draws (R, D).

    x, y: (dimension, sign) to the right and upwards. third: dimension of the bar on the right. reach: axis limit.
    """
    axis.axhline(0, color=RULE, lw=0.7)
    axis.axvline(0, color=RULE, lw=0.7)
    (dx, sx), (dy, sy) = x, y
    unit = 1000.0 if third is not None else 100.0
    for motion in own:
        axis.plot([0, unit * sx * motion[dx]], [0, unit * sy * motion[dy]], color=color, lw=0.5, alpha=0.3)
    axis.scatter(unit * sx * own[:, dx], unit * sy * own[:, dy], s=4, color=color, alpha=0.35, lw=0)
    if np.isfinite(mean).all():
        tip = unit * np.array([sx * mean[dx], sy * mean[dy]])
        axis.plot([0, tip[0]], [0, tip[1]], color=INK, lw=2.2, zorder=4, solid_capstyle="round")
        axis.plot(*tip, "o", color=INK, ms=5, zorder=4)
        ellipse(axis, unit * np.stack([sx * drawn[:, dx], sy * drawn[:, dy]]), tip, INK)
    limit = unit * reach * 1.08
    axis.set_xlim(-limit, limit * (1.3 if third is not None else 1))
    axis.set_ylim(-limit, limit)
    axis.set_aspect("equal")
    axis.locator_params(nbins=5)
    if third is not None and np.isfinite(mean).all():
        place, (low, high) = 1.16 * limit, np.nanquantile(unit * drawn[:, third], [0.025, 0.975])
        axis.plot([1.02 * limit, 1.3 * limit], [0, 0], color=GRAY, lw=0.7)
        axis.bar(place, unit * mean[third], width=0.13 * limit, color=color)
        axis.plot([place, place], [low, high], color=INK, lw=1.2)
        axis.text(place, 0.9 * limit, "z", ha="center", fontsize=8, color=GRAY)


def code_usage(path: Path, table: Transitions, codes: Codes, cards: list[dict[str, Any]]) -> str:
    """Bars of the codes' shares above a heat map of the shares in every trajectory."""
    count = usage(codes, table.trajectory, len(cards))
    share = count / count.sum(axis=1, keepdims=True)
    order = np.argsort(share.argmax(axis=1), kind="stable")  # trajectories with the same most used code together
    wide = 0.42 * len(cards) + 2.6
    with figure(path, max(wide, 5.2), 5.4, nrows=2, ncols=1, height_ratios=[1, 1.7], sharex=True) as (fig, axes):
        top, heat = axes
        shares = [card["share"] for card in cards]
        top.bar(range(len(cards)), shares, color=[code_color(k) for k in range(len(cards))], width=0.75)
        for k, s in enumerate(shares):
            top.text(k, s, f"{s:.0%}", ha="center", va="bottom", fontsize=8)
        top.axhline(1 / len(cards), color=GRAY, lw=0.8, ls=":")
        top.set_title("dotted: equal use of all codes", fontsize=8, color=GRAY, loc="right")
        top.set_ylabel("share of\ntransitions")
        top.set_ylim(0, max(shares) * 1.25)
        image = heat.imshow(
            share[order], aspect="auto", cmap="Blues", vmin=0, vmax=max(0.5, np.quantile(share, 0.99)),
            interpolation="nearest",
        )  # fmt: skip
        heat.set_ylabel(f"{len(share)} trajectories,\nby most used code")
        heat.set_yticks([])
        heat.set_xticks(range(len(cards)), [f"{k}" for k in range(len(cards))])
        heat.set_xlabel("code")
        fig.colorbar(image, ax=heat, label="share within the trajectory", location="bottom", shrink=0.6, aspect=40)
    return (
        "Use of the codes. Columns: codes. Above: share of all transitions. Below: one row per trajectory, darker for "
        "a larger share. Better: all columns used, in all rows; a column that is dark in a few rows and white "
        "elsewhere is a code that belongs to a few trajectories."
    )


def baseline_chart(path: Path, rows: list[dict[str, Any]], suffix: str) -> str:
    """Grounding skill and CTC of every set of codes, with 95 % intervals.

    rows: `ladder` of report.json. suffix: "" for true motion, "_flow" for optical flow.
    """
    kept = [row for row in rows if row.get(f"grounding{suffix}_skill") is not None]
    order = sorted(kept, key=lambda row: row[f"grounding{suffix}_skill"])
    shown = {row["name"] for row in order}
    with figure(path, 8.2, 0.3 * len(order) + 1.1, nrows=1, ncols=2, sharey=True, width_ratios=[1.35, 1]) as (_, axes):
        for axis, metric, title, mark in (
            (axes[0], f"grounding{suffix}_skill", "grounding skill", mark_of("grounding_r2").good),
            (axes[1], f"ctc{suffix}", "cross-trajectory consistency (CTC)", mark_of("ctc").good),
        ):
            axis.axvline(0, color=RULE, lw=1)
            axis.axvline(1, color=RULE, lw=1)
            axis.axvline(mark, color=GOOD, lw=0.9, ls=":")
            axis.text(mark + 0.02, len(order) - 0.45, "pass from here", color=GOOD, fontsize=7.5)
            for place, row in enumerate(order):
                own = row["name"] == "model"
                color = MODEL if own else GRAY
                if row[metric] is None:
                    axis.text(0.02, place, "undefined", fontsize=7.5, color=GRAY, va="center", style="italic")
                    continue
                low, high = row["ci95"][metric]
                axis.plot([low, high], [place, place], color=color, lw=2.6 if own else 1.6, solid_capstyle="butt")
                axis.plot(row[metric], place, "o", color=color, ms=6 if own else 4)
            axis.set_title(title)
            axis.set_ylim(-0.7, len(order) - 0.1)
            axis.set_xlim(min(-0.15, axis.get_xlim()[0]), max(1.15, axis.get_xlim()[1]))
        axes[0].set_yticks(range(len(order)), [row["name"].replace("_", " ") for row in order])
        for label, row in zip(axes[0].get_yticklabels(), order, strict=True):
            label.set_color(MODEL if row["name"] == "model" else INK)
            label.set_fontweight("bold" if row["name"] == "model" else "normal")
    idm = "idm: supervised inverse dynamics. " if "idm" in shown else ""
    what = "true motion" if not suffix else "optical flow (this source has no true motion)"
    return (
        f"The model and other codes, measured on {what}. Rows: sets of codes. Columns: the two metrics, higher is "
        "better; 0 is reached by codes without meaning, 1 by the oracle, k-means of the motion itself. flow kmeans and "
        f"pca kmeans: baselines without learning, which the model should exceed. {idm}permuted per trajectory: "
        "consistent within every trajectory but not across them, so that its CTC must be 0. undefined: not related to "
        "motion within a trajectory."
    )
