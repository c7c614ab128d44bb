"""The tables drawn: differences to the reference; metrics against label share; dreams frame by frame."""

from pathlib import Path
from typing import Any

import numpy as np

from genie_eval.ablation.study import Study
from genie_eval.plotting import BAD, GOOD, GRAY, INK, PALETTE, RULE, figure, whisker

ACROSS = 4  # panels in a row
LEAST_SHARE = 0.005  # where "no labels" stands on the axis of label shares
COLOURS = {"better": GOOD, "worse": BAD}


def draw(study: Study, found: dict[str, Any], columns: list[Any], out: Path) -> list[str]:
    """Writes the figures that this study has something for, and returns their file names.

    columns: genie_eval.ablation.columns.Column of the metrics that something is claimed about.
    """
    rows = [row for row in found["variants"] if row["seeds"]]
    drawn = []
    compared = [row for row in rows if any(m["difference"] for m in row["metrics"].values())]
    if compared:
        differences(out / "differences.png", study.reference, compared, columns)
        drawn.append("differences.png")
    labelled = [row for row in rows if not row["set"]]
    if len({row["labels"] for row in labelled}) > 2:
        label_curve(out / "labels.png", sorted(labelled, key=lambda r: r["labels"]), columns, found["about"])
        drawn.append("labels.png")
    trends = (found.get("trends") or {}).values()
    if any(moves(entries.get(column.name)) for column in columns for entries in trends):
        trend_lines(out / "trends.png", found, columns)
        drawn.append("trends.png")
    if "dreams" in study.measure:
        dreams_by_frame(out / "dreams.png", rows)
        drawn.append("dreams.png")
    return drawn


def differences(path: Path, reference: str, rows: list[dict[str, Any]], columns: list[Any]) -> None:
    """One panel a metric, one row a variant: its difference to the reference with its interval. Green and orange say
    what the table claims; grey claims nothing."""
    shown = [c for c in columns if any((r["metrics"].get(c.name) or {}).get("difference") for r in rows)]
    height = 0.26 * len(rows) + 0.9
    with figure(path, 2.1 * len(shown) + 1.6, height, ncols=len(shown), sharey=True, squeeze=False) as (fig, axes):
        for axis, column in zip(axes[0], shown, strict=True):
            axis.axvline(0, color=RULE, lw=1)
            for place, row in enumerate(rows):
                gap = (row["metrics"].get(column.name) or {}).get("difference")
                if gap is not None:
                    whisker(axis, place, gap["value"], gap["ci95"], COLOURS.get(gap["verdict"], GRAY), 4.5)
            axis.set_yticks(range(len(rows)), [row["name"] for row in rows])
            axis.set_ylim(len(rows) - 0.4, -0.6)
            axis.set_title(column.title + (" (less is better)" if column.less_is_better else ""))
        fig.suptitle(f"Difference to {reference}", x=0.01, ha="left", fontsize=9.5, color=INK)


def label_curve(path: Path, rows: list[dict[str, Any]], columns: list[Any], about: dict[str, Any]) -> None:
    """Every metric against the share of transitions whose true action was told: mean over seeds, and each seed."""
    shown = [c for c in columns if any((r["metrics"].get(c.name) or {}).get("mean") is not None for r in rows)]
    across, down = min(ACROSS, len(shown)), -(-len(shown) // ACROSS)
    places = [max(row["labels"], LEAST_SHARE) for row in rows]
    with figure(path, 2.3 * across + 0.4, 2.1 * down, nrows=down, ncols=across, squeeze=False) as (_, axes):
        for axis in axes.flat[len(shown) :]:
            axis.set_axis_off()
        for axis, column in zip(axes.flat, shown, strict=False):
            entries = [row["metrics"][column.name] for row in rows]
            mean = [np.nan if e["mean"] is None else e["mean"] for e in entries]
            axis.plot(places, mean, color=PALETTE[0], lw=1.8)
            for place, entry in zip(places, entries, strict=True):
                values = [v for v in entry["values"].values() if v is not None]
                axis.plot([place] * len(values), values, "o", color=PALETTE[0], ms=3.5, alpha=0.7)
            flow = ((about.get("baselines") or {}).get("flow_kmeans") or {}).get(column.name)
            if flow is not None:
                axis.axhline(flow, color=GRAY, lw=1, ls=":")
                axis.text(places[-1], flow, "k-means of flow", color=GRAY, fontsize=7, ha="right", va="bottom")
            axis.set_xscale("log")
            axis.set_xticks(places, [f"{100 * row['labels']:g}" for row in rows])
            axis.minorticks_off()
            axis.set_title(column.title + (" (less is better)" if column.less_is_better else ""))
            axis.set_xlabel("labelled transitions (%)")


def trend_lines(path: Path, found: dict[str, Any], columns: list[Any]) -> None:
    """One row an axis, one panel a metric: every seed, the mean, the fitted line within what was measured, and between
    which lines its slope may lie (95 %)."""
    by_axis = found["trends"]
    shown = [c for c in columns if any(moves(entries.get(c.name)) for entries in by_axis.values())]
    rows = {row["name"]: row for row in found["variants"]}
    with figure(
        path, 2.3 * len(shown) + 0.5, 2.1 * len(by_axis) + 0.2, nrows=len(by_axis), ncols=len(shown), squeeze=False
    ) as (_, axes):
        for panels, (name, entries) in zip(axes, by_axis.items(), strict=True):
            for axis, column in zip(panels, shown, strict=True):
                entry = entries.get(column.name)
                if entry is None:
                    axis.set_axis_off()
                    continue
                axis.set_xscale("log")
                if entry["power"]:
                    axis.set_yscale("log")
                for x, label in zip(entry["x"], entry["names"], strict=True):
                    values = [v for v in rows[label]["metrics"][column.name]["values"].values() if v is not None]
                    axis.plot([x] * len(values), values, "o", color=PALETTE[0], ms=3.2, alpha=0.55, mew=0)
                axis.plot(entry["x"], entry["mean"], "o", color=PALETTE[0], ms=5, mfc="white")
                x = np.array(entry["x"], float)
                place, slope = np.log10(x), entry["slope"]
                middle = entry["at"] + slope["value"] * place.mean()
                lines = [middle + b * (place - place.mean()) for b in (slope["value"], *(slope["ci95"] or ()))]
                lines = [10**line if entry["power"] else line for line in lines]
                colour = COLOURS.get(entry["verdict"], GRAY)
                axis.plot(x, lines[0], color=colour, lw=1.6, zorder=1)
                if len(lines) == 3:
                    axis.fill_between(x, lines[1], lines[2], color=colour, alpha=0.15, lw=0, zorder=0)
                axis.set_xticks(x, [short(value) for value in x])
                axis.minorticks_off()
                axis.set_title(column.title + (" (less is better)" if column.less_is_better else ""))
                axis.set_xlabel({"batch": "clips a step", "episodes": "training episodes"}.get(name, name))
                if entry["power"]:
                    plain_ticks(axis, rows, entry, column.name)


def moves(entry: dict[str, Any] | None) -> bool:
    """It differs between the variants: what all share, such as a tokenizer, is no panel."""
    return entry is not None and len(set(entry["mean"])) > 1


def plain_ticks(axis: Any, rows: dict[str, Any], entry: dict[str, Any], name: str) -> None:
    """Four plain numbers on a logarithmic axis of a small range."""
    values = [v for label in entry["names"] for v in rows[label]["metrics"][name]["values"].values() if v is not None]
    ticks = np.geomspace(min(values), max(values), 4)
    axis.set_yticks(ticks, [f"{tick:.2f}".lstrip("0") for tick in ticks])
    axis.minorticks_off()


def short(value: float) -> str:
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if value >= size:
            return (
                f"{value / size:.1f}".rstrip("0").rstrip(".") + unit
                if value < 100 * size
                else f"{value / size:.0f}{unit}"
            )
    return f"{value:g}"


def dreams_by_frame(path: Path, rows: list[dict[str, Any]]) -> None:
    """PSNR of dreams with inferred codes at each frame, mean over seeds."""
    with figure(path, 5.2, 3.2, ncols=1) as (_, axis):
        for place, row in enumerate(rows):
            by_t = {int(n.rpartition("_t")[2]): m["mean"] for n, m in row["metrics"].items() if "dream_psnr_t" in n}
            times = sorted(t for t, value in by_t.items() if value is not None)
            colour, style = PALETTE[place % len(PALETTE)], ("-", "--", ":")[place // len(PALETTE) % 3]
            axis.plot(times, [by_t[t] for t in times], color=colour, ls=style, lw=1.6, label=row["name"])
        axis.set_xlabel("frames after the prompt")
        axis.set_ylabel("dream, dB")
        axis.legend(fontsize=7, ncols=2)
