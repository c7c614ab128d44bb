"""Figures of commanded dreams: their motion, the judges, their consistency, and the error of the read-out."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from genie_eval.dreams.readout_error import ReadoutError
from genie_eval.dreams.sequences import sequence_share
from genie_eval.plotting import (
    DREAM,
    GOOD,
    GRAY,
    INK,
    MODEL,
    RULE,
    TRUTH,
    band,
    code_color,
    figure,
    heat,
    shown_codes,
    whisker,
)
from genie_eval.report.charts import panel_grid, quiver_panel
from genie_eval.report.findings import at
from genie_eval.resampling import bootstrap_weights, interval

QUIVER_DRAWS = 500  # bootstrap draws for the region of a mean


def dream_quiver(
    path: Path,
    dreamt: Float[np.ndarray, "S K 3"],
    true: Float[np.ndarray, "S K 3"] | None,
    cards: list[dict[str, Any]],
    steps: int,
) -> str:
    """One panel per code: displacement of the arm in the dream of each start, its mean, and that of the simulator.

    dreamt, true: displacement after `steps` repetitions of the code, base frame, meters; NaN where the read-out
    abstains.
    """
    known = np.isfinite(dreamt).all(axis=-1)
    weights = bootstrap_weights(len(dreamt), QUIVER_DRAWS)
    shown = shown_codes(cards)
    reach = max(float(np.nanquantile(np.abs(dreamt[known]), 0.97)), 1e-6) if known.any() else 1e-6
    with panel_grid(path, len(shown), 4, (2.35, 2.5), (0, 0.5)) as (fig, axes):
        for axis, k in zip(axes, shown, strict=True):
            own = dreamt[known[:, k], k]
            filled = np.where(known[:, k, None], dreamt[:, k], 0.0)
            with np.errstate(divide="ignore", invalid="ignore"):
                drawn = (weights @ filled) / (weights @ known[:, k].astype(float))[:, None]
            mean = own.mean(axis=0) if len(own) else np.full(3, np.nan)
            quiver_panel(axis, own, mean, drawn, (1, -1.0), (0, 1.0), 2, reach, code_color(k))
            if true is not None and np.isfinite(true[:, k]).all(axis=-1).any():
                _true_mean(axis, np.nanmean(true[:, k], axis=0), reach)
            lost = "" if known[:, k].all() else f", {(~known[:, k]).mean():.0%} not read"
            axis.set_title(f"code {k}: {cards[k]['name']}\n{len(own)} dreams{lost}", color=code_color(k))
        fig.supxlabel("to the robot's right →   (mm)", fontsize=9)
        fig.supylabel("away from the robot →   (mm)", fontsize=9)
    simulator = ""
    if true is not None:
        simulator = (
            " The dashed blue line with a cross is the mean of the simulator's own futures of that code, through the "
            "same read-out; the thick line should end at the cross."
        )
    return (
        f"Motion of each code in the DREAMS: displacement of the arm after {steps} repetitions of the code, measured "
        "by the motion read-out, seen from above, in mm. One panel per code: a thin line per start, a thick line for "
        "their mean with its 95 % region; the bar on the right is vertical motion. Better: thin lines that point the "
        f"same way, because the code then has the same effect from every start.{simulator} Names come from real video."
    )


def _true_mean(axis: Any, mean: Float[np.ndarray, " 3"], reach: float) -> None:
    tip = 1000 * np.array([-mean[1], mean[0]])
    axis.plot([0, tip[0]], [0, tip[1]], color=TRUTH, lw=1.8, ls=(0, (3, 1.2)), zorder=7)
    axis.plot(*tip, "x", color=TRUTH, ms=7, mew=2, zorder=7)
    place = 1.16 * 1000 * reach * 1.08
    axis.plot(place, 1000 * mean[2], "x", color=TRUTH, ms=6, mew=1.8, zorder=7)


@dataclass(frozen=True)
class Judge:
    """One judge: counts[sent, read], bits with their interval, and the bits of the same judge on real video."""

    title: str
    counts: Float[np.ndarray, "K K"]
    bits: float | None = None
    ci95: Any = None
    ceiling: float | None = None


def judges(metrics: dict[str, Any]) -> list[Judge]:
    """The judges in the JSON metrics of a report: own, independent, physical, and the simulator's futures."""
    found = []
    rows = {**(at(metrics, "command_bits", "judges") or {}), "physical": metrics.get("command_bits_physical")}
    titles = {"own": "own latent action model", "independent": "independent model", "physical": "physical read-out"}
    for name, title in titles.items():
        row = rows.get(name) or {}
        if row.get("confusion"):
            counts, read = np.array(row["confusion"], float), (row.get(n) for n in ("bits", "ci95", "ceiling_bits"))
            found.append(Judge(title, counts, *read))
    truth = metrics.get("counterfactual_id", {})
    if truth.get("confusion"):
        found.append(Judge("nearest simulated future", np.array(truth["confusion"], float)))
    return found


def command_confusion(path: Path, panels: list[Judge]) -> str:
    """Confusion of each judge: code that was played (rows) and code that the judge reads (columns)."""
    codes = len(panels[0].counts)
    side = max(2.5, 0.24 * min(codes, 24) + 0.5)
    across = min(len(panels), 2 if codes > 10 else 4)
    with panel_grid(path, len(panels), across, (side + 0.25, side + 1.15), (0, 0)) as (_, axes):
        for n, (axis, judge) in enumerate(zip(axes, panels, strict=True)):
            sent = judge.counts.sum(axis=1, keepdims=True)
            with np.errstate(divide="ignore", invalid="ignore"):
                share = judge.counts / sent
            heat(axis, share, 1.0)
            axis.set_aspect("equal")
            ticks = range(codes) if codes <= 16 else range(0, codes, 8)
            axis.set_xticks(ticks)
            axis.set_yticks(ticks)
            axis.set_title(_judge_title(judge, codes), fontsize=8.5)
            axis.set_xlabel("read back" if judge.bits is not None else "nearest future of")
            if n % across == 0:
                axis.set_ylabel("code that was played")
    return (
        "Can the command be read back? Every code was played from every start; each panel is a judge that sees the "
        "dream without knowing the command. Rows: the code that was played. Columns: the code that the judge reads. "
        "Better: dark on the diagonal. Bits: information of the reading on the command; 'real video': the same judge "
        "on real video, where it should be right (for the read-out: on the simulator's futures). If only the model's "
        "own judge is right, the code is hidden in the dream in a way that nobody else sees."
    )


def _judge_title(judge: Judge, codes: int) -> str:
    if judge.bits is None:
        hit = np.trace(judge.counts) / max(judge.counts.sum(), 1e-9)
        return f"{judge.title}\n{hit:.0%} right (chance {1 / codes:.0%})"
    ci = "" if judge.ci95 is None else f" [{judge.ci95[0]:.2f}, {judge.ci95[1]:.2f}]"
    best = "" if judge.ceiling is None else f"\nreal video: {judge.ceiling:.2f}; most: {np.log2(codes):.1f}"
    return f"{judge.title}\n{judge.bits:.2f} bits{ci}{best}"


@dataclass(frozen=True)
class ByStep:
    """Constant codes after 1 .. n steps: sequence consistency, mean displacement and scatter of the ends in mm."""

    share: dict[str, Any]  # value (n,), ci95 (n, 2)
    displacement: Float[np.ndarray, " n"]
    scatter: Float[np.ndarray, " n"]


def sequence_steps(moved: Float[np.ndarray, "S K n 3"], spread: Float[np.ndarray, " 3"], draws: int) -> ByStep:
    """moved: displacement after every step in meters, NaN where not read. spread: SD of a real step by dimension."""
    weights = bootstrap_weights(len(moved), draws)
    value, ci, far, scatter = [], [], [], []
    for t in range(moved.shape[2]):
        share = sequence_share(moved[:, :, t] / spread, weights)
        value.append(share.value)
        ci.append(interval(share.drawn).tolist())
        mean = np.nanmean(moved[:, :, t], axis=0)
        far.append(1000 * np.sqrt(np.nanmean((mean**2).sum(axis=-1))))
        scatter.append(1000 * np.sqrt(np.nanmean(((moved[:, :, t] - mean) ** 2).sum(axis=-1))))
    return ByStep({"value": value, "ci95": ci}, np.array(far), np.array(scatter))


def sequence_chart(path: Path, metric: dict[str, Any], flow: dict[str, Any], steps: ByStep | None, good: float) -> str:
    """Consistency by kind of sequence and by number of steps, and displacement with its scatter over starts.

    metric, flow: `sequence_consistency` and `sequence_consistency_flow` (or empty) of report.json. good: the pass mark.
    """
    rows = []
    if metric.get("value") is not None:
        rows.append((f"one code, {metric.get('steps', 5)} times", metric["value"], metric.get("ci95"), MODEL))
    words = {"pairs": "two codes", "triples": "three codes, from the data", "longer": "five codes, from the data"}
    for name, row in (metric.get("by_kind") or {}).items():
        rows.append((words.get(name, name), row["value"], row.get("ci95"), MODEL))
    if flow.get("value") is not None:
        rows.append(("one code, optical flow", flow["value"], flow.get("ci95"), GRAY))
    panels = 3 if steps is not None else 1
    widths = [1.25, 1, 1][:panels]
    with figure(
        path, 3.6 * panels + (0.4 if panels > 1 else 2.4), 0.38 * max(len(rows), 5) + 0.9, nrows=1, ncols=panels,
        squeeze=False, width_ratios=widths,
    ) as (_, axes):  # fmt: skip
        left = axes[0, 0]
        left.axvline(0, color=RULE, lw=1)
        left.axvline(1, color=RULE, lw=1)
        left.axvline(good, color=GOOD, lw=0.9, ls=":")
        for place, (_, value, ci, color) in enumerate(rows[::-1]):
            whisker(left, place, value, ci, color)
        left.text(good + 0.01, len(rows) - 0.45, "pass from here", color=GOOD, fontsize=7.5)
        left.set_yticks(range(len(rows)), [row[0] for row in rows[::-1]])
        left.set_ylim(-0.6, len(rows) - 0.15)
        left.set_xlim(min(-0.05, left.get_xlim()[0]), 1.08)
        left.set_title("sequence consistency")
        if steps is not None:
            t = np.arange(1, len(steps.displacement) + 1)
            middle, right = axes[0, 1:]
            band(middle, t, steps.share, MODEL, "")
            middle.axhline(good, color=GOOD, lw=0.9, ls=":")
            middle.set_ylim(min(-0.05, middle.get_ylim()[0]), 1.05)
            middle.set_title("consistency of a repeated code")
            right.plot(t, steps.displacement, color=INK, lw=1.8, label="mean displacement of a code")
            right.plot(t, steps.scatter, color=DREAM, lw=1.8, ls="--", label="scatter over starts")
            right.set_ylim(0, 1.35 * max(steps.displacement.max(), steps.scatter.max(), 1e-9))
            right.set_title("displacement, mm")
            right.legend(fontsize=7.5, loc="upper left")
            for axis in (middle, right):
                axis.set_xlabel("repetitions of the code")
                axis.set_xticks(t)
    caption = (
        "Sequence consistency: share of the effect of a sequence that is the same from every start. Rows: kinds of "
        "sequence. Higher is better: 1 is the same displacement everywhere, 0 none in common."
    )
    if flow.get("value") is not None:
        caption += " Gray: on optical flow, which needs no read-out."
    if steps is not None:
        caption += " Middle and right: one code repeated; the scatter should stay below the displacement."
    return caption


def readout_histogram(path: Path, error: ReadoutError) -> str:
    """Histograms of the read-out's error and of the true displacement."""
    errors_mm, moved_mm, gap = error.errors_mm, error.moved_mm, error.gap
    top = float(np.quantile(np.concatenate([errors_mm, moved_mm]), 0.995))
    edges = np.linspace(0, max(top, 1e-9), 50)
    with figure(path, 6.6, 2.9, nrows=1, ncols=1) as (_, axis):
        for values, color, label in (
            (moved_mm, GRAY, "true displacement"),
            (errors_mm, DREAM, "error of the read-out"),
        ):
            axis.hist(np.minimum(values, top), edges, color=color, alpha=0.55, label=label)
            axis.axvline(np.median(values), color=color, lw=1.6, ls="--")
            axis.text(
                np.median(values), 1.0, f" median {np.median(values):.0f} mm", color=color, fontsize=8,
                transform=axis.get_xaxis_transform(), va="bottom", ha="left",
            )  # fmt: skip
        axis.set_xlabel(f"length over {gap} steps, mm")
        axis.set_ylabel("pairs of frames")
        axis.legend(title=f"R2 of displacement: {error.reliability:.2f}", fontsize=8, title_fontsize=8)
    return (
        f"Error of the motion read-out over {gap} steps, on the tokenizer's reconstruction of held-out real video "
        "(orange), and the true displacement of the arm (gray). Better: errors far to the left of the displacements. "
        "Where they overlap, the read motion of a single dream cannot be trusted."
    )
