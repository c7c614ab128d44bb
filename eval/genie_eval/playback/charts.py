"""Charts of a playback: drift over the horizon, and accuracy over the number of labels."""

from pathlib import Path
from typing import Any

import numpy as np

from genie_eval.playback.drift import Drifts, mean_interval
from genie_eval.plotting import GRAY, INK, RULE, figure

CONTROL_COLORS = {
    "true": "#1f2933", "oracle": "#2f855a", "decoded": "#2b6cb0", "zero": "#7b8794", "shuffled": "#c05621",
}  # fmt: skip
WORDS = {
    "true": "recorded actions",
    "oracle": "oracle: best {k} codes",
    "decoded": "decoded latent actions",
    "zero": "no action",
    "shuffled": "another episode's codes",
}


def drift_chart(path: Path, drifts: Drifts, num_codes: int, hz: float, seed: int) -> None:
    """Left: mean drift of every control with its interval. Right: paired difference of decoded to the others."""
    steps = np.arange(drifts.horizon + 1)
    with figure(path, 10.4, 3.9, nrows=1, ncols=2, width_ratios=[1.3, 1]) as (_, (left, right)):
        ends = []
        for name, values in drifts.drift.items():
            _band(left, steps, values, CONTROL_COLORS[name], seed, wide=name == "decoded")
            ends.append((float(values[:, -1].mean()), WORDS[name].format(k=num_codes), CONTROL_COLORS[name]))
        _label_ends(left, steps[-1], ends)
        left.set_ylabel("end-effector distance to the recorded one (cm)")
        left.set_title(f"drift, {len(values)} trajectories", loc="left")
        left.set_ylim(bottom=0 - 0.02 * left.get_ylim()[1])
        right.axhline(0, color=INK, lw=0.8)
        ends = []
        for name in ("shuffled", "zero"):
            paired = drifts.drift["decoded"] - drifts.drift[name]
            _band(right, steps, paired, CONTROL_COLORS[name], seed)
            ends.append((float(paired[:, -1].mean()), f"minus {WORDS[name]}", CONTROL_COLORS[name]))
        _label_ends(right, steps[-1], ends)
        right.set_ylabel("difference in drift (cm); below 0: decoded is closer")
        right.set_title("decoded minus control, paired", loc="left")
        for axis in (left, right):
            axis.set_xlabel(f"steps executed ({hz:g} per second)")
            axis.set_xlim(0, steps[-1])
            axis.locator_params(integer=True)
            axis.grid(axis="y", color=RULE, lw=0.6)


def _band(axis: Any, steps: np.ndarray, values: np.ndarray, color: str, seed: int, wide: bool = False) -> None:
    low, high = mean_interval(values, seed)
    axis.fill_between(steps, low, high, color=color, alpha=0.18, lw=0)
    axis.plot(steps, values.mean(axis=0), color=color, lw=2.4 if wide else 1.5)


def _label_ends(axis: Any, x: float, ends: list[tuple[float, str, str]]) -> None:
    """Writes the name of each line at its end, moved apart where they would overlap."""
    low, high = axis.get_ylim()
    apart, place = 0.06 * (high - low), -np.inf
    for y, words, color in sorted(ends):
        place = max(y, place + apart)
        axis.annotate(
            words, (x, y), xytext=(x * 1.02, place), textcoords="data", color=color, fontsize=8.5, va="center",
            annotation_clip=False,
        )  # fmt: skip


def label_chart(
    path: Path, curve: list[dict[str, Any]], oracle_r2: float, drift_lines: dict[str, float], fit_labels: int
) -> None:
    """Left: R2 of the decoded translation over the number of labels. Right: drift in the simulator with those maps."""
    sizes = [row["labels"] for row in curve]
    with figure(path, 8.6, 3.7, nrows=1, ncols=2, sharex=True) as (_, (left, right)):
        for mode, color, words in (
            ("mean", CONTROL_COLORS["decoded"], "mean of the labels"),
            ("sample", CONTROL_COLORS["shuffled"], "one label at random (Genie)"),
        ):
            low, high = np.array([row["interval95"][mode] for row in curve]).T
            left.fill_between(sizes, low, high, color=color, alpha=0.18, lw=0)
            left.plot(sizes, [row["r2"][mode] for row in curve], "o-", ms=3.5, color=color, lw=1.8, label=words)
        left.axhline(0, color=INK, lw=0.8)
        left.axhline(oracle_r2, color=CONTROL_COLORS["oracle"], ls="--", lw=1.2, label="oracle")
        left.set_ylim(max(-1.5, left.get_ylim()[0]), 1)
        left.set_ylabel("R2 of the decoded translation")
        left.set_title("held-out transitions; bands: 95 % of the sets of labels", loc="left")
        left.legend(fontsize=8, loc="upper right", bbox_to_anchor=(1, 0.9))
        if "drift_cm" in curve[0]:
            for row in curve:
                drifts = row["drift_cm"]
                right.plot([row["labels"]] * len(drifts), drifts, "o", ms=4, alpha=0.6, color=CONTROL_COLORS["decoded"])
            right.plot(sizes, [np.mean(row["drift_cm"]) for row in curve], color=CONTROL_COLORS["decoded"], lw=1.8)
            for name, value in drift_lines.items():
                color, words = CONTROL_COLORS[name], WORDS[name].partition(":")[0]
                right.axhline(value, color=color, ls="--", lw=1.2)
                right.text(sizes[0], value, f" {words}", color=color, fontsize=8.5, va="bottom")
            right.set_ylim(0, 1.12 * max([max(row["drift_cm"]) for row in curve] + list(drift_lines.values())))
            right.set_ylabel("drift (cm)")
            right.set_title(
                f"after {curve[0]['drift_horizon']} steps, {curve[0]['drift_trajectories']} trajectories; "
                "dots: sets of labels",
                loc="left",
            )
        for axis in (left, right):
            axis.set_xscale("log")
            axis.set_xticks(sizes, [f"{n}" for n in sizes])
            axis.minorticks_off()
            axis.axvline(fit_labels, color=GRAY, lw=0.8, ls=":")
            axis.annotate(
                "drift table", (fit_labels, 0), xycoords=("data", "axes fraction"), xytext=(3, 4),
                textcoords="offset points", color=GRAY, fontsize=8,
            )  # fmt: skip
            axis.set_xlabel("labeled transitions")
            axis.grid(axis="y", color=RULE, lw=0.6)
