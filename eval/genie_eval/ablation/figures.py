"""Figures of a study: differences to the reference, trends, metrics against labels, dreams frame by frame."""

from pathlib import Path
from typing import Any

import numpy as np

from genie_eval.ablation.columns import Column
from genie_eval.ablation.study import Study
from genie_eval.plotting import BAD, GOOD, GRAY, INK, PALETTE, RULE, figure, whisker
from genie_eval.report.charts import panel_grid

PANELS_PER_ROW = 4
MIN_LABELS = 0.005  # place of "no labels" on the logarithmic axis of label fractions
COLORS = {"better": GOOD, "worse": BAD}
Rows = list[dict[str, Any]]


def draw(study: Study, found: dict[str, Any], columns: list[Column], out: Path) -> list[str]:
    """Writes the figures that the results have data for, and returns their file names. columns: the metrics shown."""
    rows = [row for row in found["variants"] if row["seeds"]]
    drawn = []
    compared = [row for row in rows if any(m["difference"] for m in row["metrics"].values())]
    if compared:
        differences(out / "differences.png", study.reference, compared, columns)
        drawn.append("differences.png")
    labeled = [row for row in rows if not row["set"]]
    if len({row["labels"] for row in labeled}) > 2:
        label_curve(out / "labels.png", sorted(labeled, key=lambda r: r["labels"]), columns, found["about"])
        drawn.append("labels.png")
    trends = (found.get("trends") or {}).values()
    if any(varies(entries.get(column.name)) for column in columns for entries in trends):
        trend_lines(out / "trends.png", found, columns)
        drawn.append("trends.png")
    if "dreams" in study.measure:
        dreams_by_frame(out / "dreams.png", rows)
        drawn.append("dreams.png")
    return drawn


def title(column: Column) -> str:
    return column.title + (" (lower is better)" if column.lower_is_better else "")


def seed_values(entry: dict[str, Any]) -> list[float]:
    return [value for value in entry["values"].values() if value is not None]


def differences(path: Path, reference: str, rows: Rows, columns: list[Column]) -> None:
    """A panel per metric and a row per variant: the difference to the reference with its interval. Green: better,
    orange: worse, gray: no difference shown."""
    shown = [c for c in columns if any((r["metrics"].get(c.name) or {}).get("difference") for r in rows)]
    height = 0.26 * len(rows) + 0.9
    with figure(path, 2.1 * len(shown) + 1.6, height, ncols=len(shown), sharey=True, squeeze=False) as (fig, axes):
        for axis, column in zip(axes[0], shown, strict=True):
            axis.axvline(0, color=RULE, lw=1)
            for place, row in enumerate(rows):
                gap = (row["metrics"].get(column.name) or {}).get("difference")
                if gap is not None:
                    whisker(axis, place, gap["value"], gap["ci95"], COLORS.get(gap["verdict"], GRAY), 4.5)
            axis.set_yticks(range(len(rows)), [row["name"] for row in rows])
            axis.set_ylim(len(rows) - 0.4, -0.6)
            axis.set_title(title(column))
        fig.suptitle(f"Difference to {reference}", x=0.01, ha="left", fontsize=9.5, color=INK)


def label_curve(path: Path, rows: Rows, columns: list[Column], about: dict[str, Any]) -> None:
    """Every metric against the fraction of labeled transitions: each seed and the mean."""
    shown = [c for c in columns if any((r["metrics"].get(c.name) or {}).get("mean") is not None for r in rows)]
    places = [max(row["labels"], MIN_LABELS) for row in rows]
    with panel_grid(path, len(shown), PANELS_PER_ROW, (2.3, 2.1), (0.4, 0)) as (_, axes):
        for axis, column in zip(axes, shown, strict=True):
            entries = [row["metrics"][column.name] for row in rows]
            mean = [np.nan if e["mean"] is None else e["mean"] for e in entries]
            axis.plot(places, mean, color=PALETTE[0], lw=1.8)
            for place, entry in zip(places, entries, strict=True):
                values = seed_values(entry)
                axis.plot([place] * len(values), values, "o", color=PALETTE[0], ms=3.5, alpha=0.7)
            flow = ((about.get("baselines") or {}).get("flow_kmeans") or {}).get(column.name)
            if flow is not None:
                axis.axhline(flow, color=GRAY, lw=1, ls=":")
                axis.text(places[-1], flow, "k-means of flow", color=GRAY, fontsize=7, ha="right", va="bottom")
            axis.set_xscale("log")
            axis.set_xticks(places, [f"{100 * row['labels']:g}" for row in rows])
            axis.minorticks_off()
            axis.set_title(title(column))
            axis.set_xlabel("labeled transitions (%)")


def trend_lines(path: Path, found: dict[str, Any], columns: list[Column]) -> None:
    """A row per axis and a panel per metric: each seed, the mean, the fitted line, and the 95 % band of its slope."""
    by_axis = found["trends"]
    shown = [c for c in columns if any(varies(entries.get(c.name)) for entries in by_axis.values())]
    metrics = {row["name"]: row["metrics"] for row in found["variants"]}
    size = (2.3 * len(shown) + 0.5, 2.1 * len(by_axis) + 0.2)
    with figure(path, *size, nrows=len(by_axis), ncols=len(shown), squeeze=False) as (_, axes):
        for panels, (name, entries) in zip(axes, by_axis.items(), strict=True):
            for axis, column in zip(panels, shown, strict=True):
                entry = entries.get(column.name)
                if entry is None:
                    axis.set_axis_off()
                    continue
                trend_panel(axis, entry, [seed_values(metrics[label][column.name]) for label in entry["names"]])
                axis.set_title(title(column))
                axis.set_xlabel({"batch": "clips per step", "episodes": "training episodes"}.get(name, name))


def trend_panel(axis: Any, entry: dict[str, Any], values: list[list[float]]) -> None:
    """values: of every seed, for each size of the trend."""
    axis.set_xscale("log")
    if entry["power"]:
        axis.set_yscale("log")
    for x, at_x in zip(entry["x"], values, strict=True):
        axis.plot([x] * len(at_x), at_x, "o", color=PALETTE[0], ms=3.2, alpha=0.55, mew=0)
    axis.plot(entry["x"], entry["mean"], "o", color=PALETTE[0], ms=5, mfc="white")
    x = np.array(entry["x"], float)
    place, slope = np.log10(x), entry["slope"]
    middle = entry["at"] + slope["value"] * place.mean()
    lines = [middle + b * (place - place.mean()) for b in (slope["value"], *(slope["ci95"] or ()))]
    lines = [10**line if entry["power"] else line for line in lines]
    color = COLORS.get(entry["verdict"], GRAY)
    axis.plot(x, lines[0], color=color, lw=1.6, zorder=1)
    if len(lines) == 3:
        axis.fill_between(x, lines[1], lines[2], color=color, alpha=0.15, lw=0, zorder=0)
    axis.set_xticks(x, [short(value) for value in x])
    if entry["power"]:  # four plain numbers instead of powers of ten
        ticks = np.geomspace(min(map(min, values)), max(map(max, values)), 4)
        axis.set_yticks(ticks, [f"{tick:.2f}" for tick in ticks])
    axis.minorticks_off()


def varies(entry: dict[str, Any] | None) -> bool:
    """False for a metric that is equal in all variants, such as that of a shared tokenizer."""
    return entry is not None and len(set(entry["mean"])) > 1


def short(value: float) -> str:
    """164500.0 -> "164k", 1750000.0 -> "1.8M"."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if value >= 100 * size:
            return f"{value / size:.0f}{unit}"
        if value >= size:
            return f"{value / size:.1f}".rstrip("0").rstrip(".") + unit
    return f"{value:g}"


def dreams_by_frame(path: Path, rows: Rows) -> None:
    """PSNR of dreams with inferred codes at each frame, mean over seeds."""
    with figure(path, 5.2, 3.2, ncols=1) as (_, axis):
        for place, row in enumerate(rows):
            by_t = {int(n.rpartition("_t")[2]): m["mean"] for n, m in row["metrics"].items() if "dream_psnr_t" in n}
            times = sorted(t for t, value in by_t.items() if value is not None)
            color, style = PALETTE[place % len(PALETTE)], ("-", "--", ":")[place // len(PALETTE) % 3]
            axis.plot(times, [by_t[t] for t in times], color=color, ls=style, lw=1.6, label=row["name"])
        axis.set_xlabel("frames after the prompt")
        axis.set_ylabel("PSNR of the dream (dB)")
        axis.legend(fontsize=7, ncols=2)
