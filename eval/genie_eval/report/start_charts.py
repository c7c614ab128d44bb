"""Figures of any start: pictures and their dreams, and how much of them is left along the dream."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from genie_eval.plotting import DREAM, GOOD, GRAY, TRUTH, figure
from genie_eval.report.findings import mark_of
from genie_eval.report.pictures import show

if TYPE_CHECKING:
    from genie_eval.dreams.picture_starts import PictureDreams

PER_KIND = 2  # pictures of each kind that are shown
MAX_ROWS = 12
ALONG = ("scene_retention", "start_command_bits", "long_command_bits", "object_permanence")  # panels of one figure


def start_sheet(path: Path, dreams: "PictureDreams") -> str:
    """Rows: pictures. Columns: the picture, step 0, and the dream after each step."""
    starts, found = dreams.starts, dreams.found
    kinds = list(dict.fromkeys(starts.kinds))
    rows = [i for kind in kinds for i in [n for n, k in enumerate(starts.kinds) if k == kind][:PER_KIND]]
    if len(kinds) == 1:
        rows = list(range(len(starts)))
    rows = rows[:MAX_ROWS]
    titles = ["start", "step 0", *(f"step {step}" for step in found.steps)]
    aspect = starts.frames.shape[1] / starts.frames.shape[2]
    with figure(
        path, 1.15 * len(titles) + 0.9, 1.15 * aspect * len(rows) + 0.4,
        nrows=len(rows), ncols=len(titles), squeeze=False,
    ) as (_, axes):  # fmt: skip
        for r, i in enumerate(rows):
            for c, frame in enumerate([starts.frames[i], *found.frames[i]]):
                show(axes[r, c], frame)
                if r == 0:
                    axes[r, c].set_title(titles[c], fontsize=8.5, color=GRAY)
            axes[r, 0].set_ylabel(starts.kinds[i], fontsize=8.5)
    return (
        "Pictures of other kinds and the dreams that start from them. Rows: start pictures as the model sees them, "
        f"{'the first ' + str(PER_KIND) + ' of each kind' if len(kinds) > 1 else 'the first'}. Columns: the picture; "
        "what the world shows of it before any action; the dream of random codes after so many steps. Better: "
        "everything but the arm, and what it touches, stays as it is, and the arm does not."
    )


def along_the_dream(path: Path, metrics: dict[str, Any]) -> str:
    """Retention, bits and objects against steps, each with its null or oracle."""
    panels: list[tuple[str, str, list[tuple[str, dict[int, Any], str, str]]]] = []
    kept = metrics.get("scene_retention") or {}
    if kept.get("by_step"):
        lines = [("dream", _by_step(kept), DREAM, "-")]
        panels.append(("PSNR of what the arm cannot reach, dB", "scene_retention", lines))
    for name, title in (
        ("start_command_bits", "bits of a command in pictures"),
        ("long_command_bits", "bits of a command at simulated tables"),
    ):
        metric = metrics.get(name) or {}
        if metric.get("by_step"):
            reader = "independent" if _by_step(metric, "independent") else "flow"
            lines = [("dream", _by_step(metric, reader), DREAM, "-")]
            if reader != "flow":
                lines.append(("dream, optical flow", _by_step(metric, "flow"), DREAM, ":"))
            lines.append(("simulator", _by_step(metric, "simulator", reader), TRUTH, "--"))
            panels.append((title, name, lines))
    objects = metrics.get("object_permanence") or {}
    if objects.get("by_step"):
        oracle = {step: {**row, "ci95": None} for step, row in _by_step(objects, value="oracle").items()}
        lines = [("dream", _by_step(objects), DREAM, "-"), ("simulator", oracle, TRUTH, "--")]
        panels.append(("share of untouched objects with their color", "object_permanence", lines))
    with figure(path, 2.7 * len(panels) + 1.5, 2.9, nrows=1, ncols=len(panels), squeeze=False) as (fig, axes):
        for axis, (title, name, lines) in zip(axes[0], panels, strict=True):
            for label, rows, color, style in lines:
                _line(axis, rows, color, style, label)
            axis.axhline(mark_of(name).good, color=GOOD, lw=0.9, ls=":")
            axis.set_title(title, fontsize=8.5)
            axis.set_xlabel("steps into the dream")
            axis.set_ylim(0, None)
        legend: dict[str, Any] = {}
        for axis in axes[0]:
            handles, labels = axis.get_legend_handles_labels()
            legend |= dict(zip(labels, handles, strict=True))
        fig.legend(legend.values(), legend.keys(), loc="outside right center", fontsize=8)
    return (
        "What is left along the dream, with 95 % intervals over pictures or tables. Dotted green: the pass mark. "
        "Higher is better. The simulator executes the same codes, and its arm too comes to its limits. Retention and "
        "bits of pictures are of the same dreams: one without the other counts for nothing."
    )


def _by_step(metric: dict[str, Any], *path: str, value: str = "value") -> dict[int, Any]:
    """step -> {"value", "ci95"} of a metric's `by_step`."""
    rows = {}
    for step, row in metric["by_step"].items():
        for key in path:
            row = (row or {}).get(key)
        if row and row.get(value) is not None:
            rows[int(step)] = {"value": row[value], "ci95": row.get("ci95")}
    return rows


def _line(axis: Any, rows: dict[int, Any], color: str, style: str, label: str) -> None:
    if not rows:
        return
    steps = sorted(rows)
    axis.plot(steps, [rows[s]["value"] for s in steps], style, color=color, marker="o", ms=3.5, lw=1.6, label=label)
    known = [s for s in steps if rows[s]["ci95"] is not None and None not in rows[s]["ci95"]]
    if known:
        low, high = np.array([rows[s]["ci95"] for s in known], float).T
        axis.fill_between(known, low, high, color=color, alpha=0.12, lw=0)
