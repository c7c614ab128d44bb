"""The lines along a study's axes: fitted, judged together, and as a table."""

from dataclasses import asdict
from typing import Any

import numpy as np

from genie_eval.ablation.columns import Column, markdown_table, signed
from genie_eval.ablation.compare import LEVEL, adjusted, verdict
from genie_eval.ablation.reading import Reading
from genie_eval.ablation.results_file import Cell
from genie_eval.ablation.study import Study
from genie_eval.ablation.trend import Trend, trend


def size_of(cell: Cell, axis: str) -> float:
    """Where a cell lies on an axis of genie_eval.ablation.study.AXES."""
    costs = cell.content["cost"].values()
    if axis == "parameters":
        return float(sum(cost["parameters"] for cost in costs))
    if axis == "batch":
        return float(next(iter(costs))["batch_size"])
    return float(cell.content["details"].get("episodes", "nan"))


def trends(study: Study, cells: dict[str, dict[int, Cell]], columns: list[Column]) -> dict[str, Any]:
    """{axis: {metric: Trend}}, of the axes whose variants have cells and a known place. Of the metrics that something
    is claimed about with Holm's p over all of the study, slopes and bends each."""
    found: dict[tuple[str, str], Trend] = {}
    missing = Reading(None)
    for axis, members in study.axes.items():
        names = [name for name in members if cells[name]]
        seeds = sorted(set.intersection(*(set(cells[name]) for name in names))) if names else []
        if not seeds:
            continue
        x = [size_of(cells[name][seeds[0]], axis) for name in names]
        if not np.isfinite(x).all():
            continue  # measured before cells said how many episodes they saw
        for column in columns:
            readings = [[cells[name][s].readings.get(column.name, missing) for s in seeds] for name in names]
            line = trend(x, readings, column.power)
            if line is not None:
                found[axis, column.name] = line
    claimed = {column.name for column in columns if column.claimed}
    judged = {f"{axis} {name}": line for (axis, name), line in found.items() if name in claimed}
    sloped = adjusted({key: line.slope for key, line in judged.items()})
    bent = adjusted({key: line.bend for key, line in judged.items()})
    lower = {column.name for column in columns if column.less_is_better}
    told: dict[str, Any] = {}
    for (axis, name), line in found.items():
        p, p_bend = (each.get(f"{axis} {name}") for each in (sloped, bent))
        names = [member for member in study.axes[axis] if cells[member]]
        entry = asdict(line) | {"names": names, "p_holm": p, "verdict": verdict(line.slope, p, name in lower)}
        entry |= {"bend_p_holm": p_bend, "bends": p_bend is not None and p_bend < LEVEL}
        if name not in claimed:
            entry["verdict"] = "not judged"
        told.setdefault(axis, {})[name] = entry
    return told


def trend_table(found: dict[str, Any], columns: list[Column]) -> list[str]:
    """One row an axis, one column a metric."""
    by_axis = found.get("trends") or {}
    if not by_axis:
        return []
    shown = [c for c in columns if any(c.name in entries for entries in by_axis.values())]
    body = []
    for axis, entries in by_axis.items():
        x = next(iter(entries.values()))["x"]
        body.append(
            [
                f"{axis}: {', '.join(f'{size:.3g}' for size in x)}",
                *(_trend(entries.get(c.name), c) for c in shown),
            ]
        )
    return [
        "",
        "What ten times as much gives: slope of a line against the logarithm, 95 % interval (p after Holm over all of "
        "this table, of what is judged); of what is marked x^, the exponent of a power law. *bends*: a line is not its "
        "shape (p < .05, corrected alike).",
        "",
        *markdown_table(["along", *(c.title + (" x^" if c.power else "") for c in shown)], body),
    ]


def _trend(entry: dict[str, Any] | None, column: Column) -> str:
    if entry is None:
        return "–"
    slope = entry["slope"]
    text = signed(slope["value"], max(2, column.digits))
    if slope["ci95"] is not None:
        low, high = (signed(end, max(2, column.digits)) for end in slope["ci95"])
        text += f" [{low}, {high}]"
    if entry["p_holm"] is not None:
        text += f" ({entry['p_holm']:.2g})"
        text = f"**{text}**" if entry["verdict"] in ("better", "worse") else text
    return text + (" *bends*" if entry["bends"] else "")
