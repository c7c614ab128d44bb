"""How a metric goes with size, data or batch: a straight line against the logarithm, with its uncertainty.

A line through the means of V variants is a weighted sum of them, so the slope of each seed has bootstrap draws like any
other reading, and its chance is that of a difference (genie_eval.ablation.compare): trajectories, drawn alike for all
variants and seeds, and seeds. A quantity above zero that falls by a power law is fitted as its own logarithm: the slope
is the exponent. `bend` is the same sum for a parabola, free of the line: where its interval leaves out 0, the line is
not the shape, and going on with it beyond what was measured says nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from genie_eval.ablation.compare import Difference, difference
from genie_eval.ablation.reading import Reading


@dataclass(frozen=True)
class Trend:
    """Slope: of the metric a factor of ten of x; of a power law, its exponent."""

    x: tuple[float, ...]
    mean: tuple[float, ...]
    """Over the seeds that all variants have."""
    power: bool
    slope: Difference
    bend: Difference
    """A parabola's part, as the metric's departure in the middle from the line through the ends."""
    at: float
    """The line's value (its logarithm, of a power law) at x = 1."""

    def line(self, x: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        height = self.at + self.slope.value * np.log10(x)
        return 10**height if self.power else height


def trend(x: Sequence[float], readings: Sequence[Sequence[Reading]], power: bool = False) -> Trend | None:
    """readings[v][s]: of variant v, whose size is x[v], and seed s. None where fewer than three variants, or no seed,
    have a value everywhere.

    power: y = a x^b is fitted, for values above zero; a value at or below makes it None.
    """
    seeds = [s for s in range(min(map(len, readings), default=0)) if all(r[s].value is not None for r in readings)]
    if len(set(x)) < 3 or not seeds:
        return None
    table = [[_logarithm(r[s]) if power else r[s] for s in seeds] for r in readings]
    if any(reading.value is None for row in table for reading in row):
        return None
    place = np.log10(np.asarray(x, float))
    for_slope, for_bend = weights_of(place)
    found = difference([_sum([row[s] for row in table], for_slope) for s in range(len(seeds))])
    bent = difference([_sum([row[s] for row in table], for_bend) for s in range(len(seeds))])
    assert found is not None
    assert bent is not None
    values = np.array([[reading.value for reading in row] for row in table], float)
    mean = np.array([[r[s].value for s in seeds] for r in readings], float).mean(axis=1)
    at = float(values.mean() - found.value * place.mean())
    return Trend(tuple(map(float, x)), tuple(mean.tolist()), power, found, bent, at)


def weights_of(place: Float[np.ndarray, " V"]) -> tuple[Float[np.ndarray, " V"], Float[np.ndarray, " V"]]:
    """What of each variant's value makes the slope, and what makes the bend: least squares of 1, place, place²."""
    centred = place - place.mean()
    slope = centred / (centred**2).sum()
    curve = centred**2 - (centred**2).mean()
    curve = curve - centred * (curve * centred).sum() / (centred**2).sum()
    half = np.ptp(place) / 2  # a parabola c x² departs by c half² in the middle of its range
    return slope, -curve / (curve**2).sum() * half**2


def _sum(readings: list[Reading], weights: Float[np.ndarray, " V"]) -> Reading:
    """The weights sum to 0, but for rounding: so of differences to the first, which of equal values are exactly 0."""
    first = readings[0]
    assert first.value is not None
    value = float(
        sum(w * (r.value - first.value) for w, r in zip(weights, readings, strict=True) if r.value is not None)
    )
    units = min(r.units for r in readings)
    drawn = [r.draws for r in readings if r.draws is not None]
    if len(drawn) < len(readings) or len({len(d) for d in drawn}) > 1 or len({r.units for r in readings}) > 1:
        spread = np.sqrt(sum((w * _half(r)) ** 2 for w, r in zip(weights, readings, strict=True)))
        return Reading(value, (value - spread, value + spread), None, units)
    return Reading(value, None, np.tensordot(weights, np.stack(drawn) - drawn[0], axes=1), units)


def _half(reading: Reading) -> float:
    ends = reading.ci95
    return float("nan") if ends is None or None in list(ends) else float(ends[1] - ends[0]) / 2


def _logarithm(reading: Reading) -> Reading:
    if reading.value is None or reading.value <= 0:
        return Reading(None)
    with np.errstate(invalid="ignore", divide="ignore"):
        draws = None if reading.draws is None else np.log10(reading.draws)
    ends = reading.ci95
    if ends is not None and None not in list(ends) and min(ends) > 0:
        ends = (float(np.log10(ends[0])), float(np.log10(ends[1])))
    else:
        ends = None
    return Reading(float(np.log10(reading.value)), ends, draws, reading.units)
