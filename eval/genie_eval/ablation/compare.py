"""Is one variant better than another? From a few training seeds and many trajectories, with both kinds of chance.

Within a seed the difference is paired: both models were measured under the same resampled trajectories. Over seeds it
is the mean. Two things could have come out otherwise, the trajectories and the seeds, and their variances add:

    var(mean difference) = var over bootstrap draws of the mean over seeds + (variance between seeds) / seeds

The degrees of freedom are Welch's and Satterthwaite's for such a sum. With one seed only the first part is known, and
nothing is claimed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from genie_eval.ablation.reading import Reading
from genie_eval.resampling import holm

LEAST_SEEDS = 3  # for a claim
LEVEL = 0.05  # of Holm's adjusted p
HALF_WIDTH = 3.919927969  # SDs in a 95 % interval of a normal


@dataclass(frozen=True)
class Difference:
    """Of a metric, variant less reference; over the seeds that both have. paired: by resampled trajectories."""

    value: float
    ci95: tuple[float, float] | None
    p: float | None
    seeds: int
    paired: bool


def difference(own: Sequence[Reading], reference: Sequence[Reading] | None = None) -> Difference | None:
    """own[i] and reference[i] are of one seed; no reference: of `own` to nothing. None where no seed has both."""
    zero = [Reading(0.0, (0.0, 0.0), None if r.draws is None else np.zeros_like(r.draws), r.units) for r in own]
    pairs = [
        (a, b)
        for a, b in zip(own, zero if reference is None else reference, strict=True)
        if a.value is not None and b.value is not None
    ]
    if not pairs:
        return None
    by_seed = np.array([a.value - b.value for a, b in pairs])  # type: ignore[operator]
    seeds, value = len(by_seed), float(by_seed.mean())
    units = min(min(a.units, b.units) for a, b in pairs)
    drawn = [_paired(a, b) for a, b in pairs]
    paired = all(d is not None for d in drawn)
    if paired:
        of_draws = np.mean([d for d in drawn if d is not None], axis=0)
        chance = float(of_draws[np.isfinite(of_draws)].var())
    else:
        each = [_variance(a) + _variance(b) for a, b in pairs]
        chance = float(np.mean(each))  # as if seeds told nothing new of the trajectories
    between = float(by_seed.var(ddof=1) / seeds) if seeds > 1 else 0.0
    if not np.isfinite(chance):  # no interval was given: the seeds alone
        chance, units = 0.0, 0
    return Difference(value, *_t_test(value, chance, units - 1, between, seeds - 1), seeds, paired)


def _paired(a: Reading, b: Reading) -> np.ndarray | None:
    if a.draws is None or b.draws is None or len(a.draws) != len(b.draws) or a.units != b.units:
        return None
    return np.asarray(a.draws) - np.asarray(b.draws)


def _variance(reading: Reading) -> float:
    if reading.ci95 is None or None in list(reading.ci95):
        return float("nan")
    return float(((reading.ci95[1] - reading.ci95[0]) / HALF_WIDTH) ** 2)


def _t_test(
    value: float, chance: float, chance_df: float, between: float, between_df: float
) -> tuple[tuple[float, float] | None, float | None]:
    """(95 % interval, two-sided p of no difference) of a value whose variance is a sum of two."""
    from scipy.stats import t

    variance = chance + between
    if variance == 0:
        return (None, None) if value or not (chance_df > 0 or between_df > 0) else ((0.0, 0.0), 1.0)
    parts = [(v, df) for v, df in ((chance, chance_df), (between, between_df)) if v > 0]
    if any(df <= 0 for _, df in parts):
        return None, None
    freedom = variance**2 / sum(v**2 / df for v, df in parts)
    reach = float(t.ppf(0.975, freedom) * np.sqrt(variance))
    return (value - reach, value + reach), float(2 * t.sf(abs(value) / np.sqrt(variance), freedom))


def adjusted(differences: Mapping[str, Difference | None]) -> dict[str, float]:
    """Adjusted p over the variants of which something could be claimed."""
    p = {v: d.p for v, d in differences.items() if d is not None and d.p is not None and d.seeds >= LEAST_SEEDS}
    return dict(zip(p, holm(np.array(list(p.values()))).tolist(), strict=True)) if p else {}


def verdict(found: Difference | None, adjusted_p: float | None, less_is_better: bool) -> str:
    """better, worse, no difference shown, or that there are too few seeds to say."""
    if found is None:
        return "not measured"
    if found.seeds < LEAST_SEEDS:
        return f"no claim: {found.seeds} seed{'s' if found.seeds > 1 else ''}"
    if adjusted_p is None or adjusted_p > LEVEL:
        return "no difference shown"
    return "better" if (found.value < 0) == less_is_better else "worse"
