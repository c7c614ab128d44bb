"""Trends: how a metric changes with size, data or batch, as a line against the logarithm, with its uncertainty.

The slope of a least-squares line through the variants is a weighted sum of their values. So the slope of each seed has
bootstrap draws like any other reading, and its uncertainty is that of a difference (genie_eval.ablation.compare).
Metrics above zero that follow a power law are fitted as logarithms: the slope is the exponent. The bend is the same for
the quadratic term: if its interval excludes 0, a line is the wrong shape, and must not be extrapolated.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from genie_eval.ablation.columns import Column, signed
from genie_eval.ablation.compare import LEVEL, Difference, adjusted, difference, verdict
from genie_eval.ablation.reading import MISSING, Reading, TrialResult
from genie_eval.ablation.study import Study
from genie_eval.report.cells import markdown_table


@dataclass(frozen=True)
class Trend:
    x: tuple[float, ...]
    mean: tuple[float, ...]
    """Mean of each variant over the seeds that all variants have."""
    power: bool
    slope: Difference
    """Change of the metric per factor of ten in x; the exponent of a power law."""
    bend: Difference
    """Departure of the fitted parabola, in the middle of the range, from the line through its ends."""
    at: float
    """Value of the line at x = 1 (its logarithm, for a power law)."""


def trend(x: Sequence[float], readings: Sequence[Sequence[Reading]], power: bool = False) -> Trend | None:
    """Fits a line, or the power law y = a x^b, through the variants v: x[v] is the size, readings[v][s] is of seed s.

    None if fewer than three sizes differ, if no seed has a value for all variants, or if a power law meets a value at
    or below zero.
    """
    seeds = [s for s in range(min(map(len, readings), default=0)) if all(r[s].value is not None for r in readings)]
    if len(set(x)) < 3 or not seeds:
        return None
    table = [[_logarithm(r[s]) if power else r[s] for s in seeds] for r in readings]
    if any(reading.value is None for row in table for reading in row):
        return None
    place = np.log10(np.asarray(x, float))
    by_seed = list(zip(*table, strict=True))
    slope, bend = (difference([_weighted_sum(row, weights) for row in by_seed]) for weights in trend_weights(place))
    assert slope is not None
    assert bend is not None
    values = np.array([[reading.value for reading in row] for row in table], float)
    mean = np.array([[r[s].value for s in seeds] for r in readings], float).mean(axis=1)
    at = float(values.mean() - slope.value * place.mean())
    return Trend(tuple(map(float, x)), tuple(mean.tolist()), power, slope, bend, at)


def trend_weights(place: Float[np.ndarray, " V"]) -> tuple[Float[np.ndarray, " V"], Float[np.ndarray, " V"]]:
    """Weights of the variants' values in the slope and in the bend: least squares of 1, place and place²."""
    centered = place - place.mean()
    slope = centered / (centered**2).sum()
    curve = centered**2 - (centered**2).mean()
    curve = curve - centered * (curve * centered).sum() / (centered**2).sum()
    half = np.ptp(place) / 2  # a parabola c x² departs by c half² in the middle of its range
    return slope, -curve / (curve**2).sum() * half**2


def _weighted_sum(readings: Sequence[Reading], weights: Float[np.ndarray, " V"]) -> Reading:
    """The weights sum to 0 up to rounding. Summing differences to the first reading makes the sum of equal values
    exactly 0."""
    first = readings[0]
    assert first.value is not None
    value = float(
        sum(w * (r.value - first.value) for w, r in zip(weights, readings, strict=True) if r.value is not None)
    )
    units = min(r.units for r in readings)
    drawn = [r.draws for r in readings if r.draws is not None]
    if len(drawn) < len(readings) or len({len(d) for d in drawn}) > 1 or len({r.units for r in readings}) > 1:
        half = [float("nan") if r.ends is None else float(np.ptp(r.ends)) / 2 for r in readings]
        spread = np.sqrt(sum((w * h) ** 2 for w, h in zip(weights, half, strict=True)))
        return Reading(value, (value - spread, value + spread), None, units)
    return Reading(value, None, np.tensordot(weights, np.stack(drawn) - drawn[0], axes=1), units)


def _logarithm(reading: Reading) -> Reading:
    if reading.value is None or reading.value <= 0:
        return MISSING
    with np.errstate(invalid="ignore", divide="ignore"):
        draws = None if reading.draws is None else np.log10(reading.draws)
    ends = reading.ends
    ends = None if ends is None or min(ends) <= 0 else (float(np.log10(ends[0])), float(np.log10(ends[1])))
    return Reading(float(np.log10(reading.value)), ends, draws, reading.units)


# --------------------------------------------------------------------------------------------------- trends of a study
def size_of(trial: TrialResult, axis: str) -> float:
    """Position of a trial on an axis of genie_eval.ablation.study.AXES; NaN if it was not recorded."""
    costs = trial.content["cost"].values()
    if axis == "parameters":
        return float(sum(cost["parameters"] for cost in costs))
    if axis == "batch":
        return float(next(iter(costs))["batch_size"])
    return float(trial.content["details"].get("episodes", "nan"))


def trends(study: Study, trials: Mapping[str, Mapping[int, TrialResult]], columns: list[Column]) -> dict[str, Any]:
    """{axis: {metric: fields of Trend and its verdict}} of trials[variant][seed], for axes whose sizes are known.

    Slopes and bends of claimed metrics have p after Holm's correction over the whole study.
    """
    found: dict[tuple[str, str], Trend] = {}
    for axis, members in study.axes.items():
        names = [name for name in members if trials[name]]
        seeds = sorted(set.intersection(*(set(trials[name]) for name in names))) if names else []
        x = [size_of(trials[name][seeds[0]], axis) for name in names] if seeds else []
        if not x or not np.isfinite(x).all():
            continue
        for column in columns:
            readings = [[trials[name][s].readings.get(column.name, MISSING) for s in seeds] for name in names]
            fitted = trend(x, readings, column.power)
            if fitted is not None:
                found[axis, column.name] = fitted
    by_name = {column.name: column for column in columns}
    claimed = {key: fitted for key, fitted in found.items() if by_name[key[1]].claimed}
    slope_p = adjusted({" ".join(key): fitted.slope for key, fitted in claimed.items()})
    bend_p = adjusted({" ".join(key): fitted.bend for key, fitted in claimed.items()})
    entries: dict[str, Any] = {}
    for (axis, name), fitted in found.items():
        p, p_bend = (adjusted_p.get(f"{axis} {name}") for adjusted_p in (slope_p, bend_p))
        judged = verdict(fitted.slope, p, by_name[name].lower_is_better) if by_name[name].claimed else "not judged"
        entries.setdefault(axis, {})[name] = asdict(fitted) | {
            "names": [member for member in study.axes[axis] if trials[member]],
            "p_holm": p,
            "verdict": judged,
            "bend_p_holm": p_bend,
            "bends": p_bend is not None and p_bend < LEVEL,
        }
    return entries


def trend_table(found: dict[str, Any], columns: list[Column]) -> list[str]:
    """Markdown lines of a table with a row per axis and a column per metric; none without trends."""
    by_axis = found.get("trends") or {}
    if not by_axis:
        return []
    shown = [c for c in columns if any(c.name in entries for entries in by_axis.values())]
    body = []
    for axis, entries in by_axis.items():
        x = next(iter(entries.values()))["x"]
        sizes = f"{axis}: {', '.join(f'{size:.3g}' for size in x)}"
        body.append([sizes, *(_trend_text(entries.get(c.name), c) for c in shown)])
    return [
        "",
        "Change per factor of ten: slope of a line against the logarithm, 95 % interval (p after Holm's correction "
        "over all judged entries of this table). Columns marked x^: exponent of a power law. *bends*: a line is the "
        "wrong shape (p < 0.05, corrected in the same way).",
        "",
        *markdown_table(["along", *(c.title + (" x^" if c.power else "") for c in shown)], body),
    ]


def _trend_text(entry: dict[str, Any] | None, column: Column) -> str:
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
