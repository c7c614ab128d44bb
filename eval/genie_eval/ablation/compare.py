"""Is one variant better than another? Differences over a few training seeds and many trajectories.

Within a seed, both models are measured on the same resampled trajectories, so their difference is paired. Over seeds
the mean is taken. Both trajectories and seeds are random, and their variances add:

    var(mean difference) = var over bootstrap draws of the mean over seeds + (variance between seeds) / seeds

The degrees of freedom follow Welch and Satterthwaite. With one seed the second term is unknown, and nothing is claimed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from genie_eval.ablation.reading import Reading
from genie_eval.resampling import holm

MIN_SEEDS = 3  # below, nothing is claimed
LEVEL = 0.05  # largest p, after Holm's correction, of a claim
INTERVAL_WIDTH = 3.919927969  # standard deviations in a 95 % interval of a normal distribution


@dataclass(frozen=True)
class Difference:
    """Variant minus reference in one metric, mean over the seeds that both have."""

    value: float
    ci95: tuple[float, float] | None
    p: float | None
    seeds: int
    paired: bool
    """True if the bootstrap draws of both are of the same trajectories."""


def difference(own: Sequence[Reading], reference: Sequence[Reading] | None = None) -> Difference | None:
    """own[i] and reference[i] are of the same seed (default reference: 0). None if no seed has both values."""
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
    drawn = [_paired_draws(a, b) for a, b in pairs]
    paired = all(d is not None for d in drawn)
    if paired:
        mean_draws = np.mean([d for d in drawn if d is not None], axis=0)
        within = float(mean_draws[np.isfinite(mean_draws)].var())
    else:  # as if all seeds were measured on the same trajectories, which is the wider choice
        within = float(np.mean([_variance(a) + _variance(b) for a, b in pairs]))
    between = float(by_seed.var(ddof=1) / seeds) if seeds > 1 else 0.0
    if not np.isfinite(within):  # no intervals: only the variance between seeds is known
        within, units = 0.0, 0
    return Difference(value, *_t_test(value, within, units - 1, between, seeds - 1), seeds, paired)


def _paired_draws(a: Reading, b: Reading) -> np.ndarray | None:
    if a.draws is None or b.draws is None or len(a.draws) != len(b.draws) or a.units != b.units:
        return None
    return np.asarray(a.draws) - np.asarray(b.draws)


def _variance(reading: Reading) -> float:
    return float("nan") if reading.ends is None else float((np.ptp(reading.ends) / INTERVAL_WIDTH) ** 2)


def _t_test(
    value: float, within: float, within_df: float, between: float, between_df: float
) -> tuple[tuple[float, float] | None, float | None]:
    """95 % interval and two-sided p of a value whose variance is a sum of two, each with its degrees of freedom."""
    from scipy.stats import t

    variance = within + between
    if variance == 0:
        return (None, None) if value or not (within_df > 0 or between_df > 0) else ((0.0, 0.0), 1.0)
    parts = [(v, df) for v, df in ((within, within_df), (between, between_df)) if v > 0]
    if any(df <= 0 for _, df in parts):
        return None, None
    freedom = variance**2 / sum(v**2 / df for v, df in parts)
    reach = float(t.ppf(0.975, freedom) * np.sqrt(variance))
    return (value - reach, value + reach), float(2 * t.sf(abs(value) / np.sqrt(variance), freedom))


def adjusted(differences: Mapping[str, Difference | None]) -> dict[str, float]:
    """p after Holm's correction over all differences that have enough seeds for a claim."""
    p = {v: d.p for v, d in differences.items() if d is not None and d.p is not None and d.seeds >= MIN_SEEDS}
    return dict(zip(p, holm(np.array(list(p.values()))).tolist(), strict=True)) if p else {}


def verdict(found: Difference | None, adjusted_p: float | None, lower_is_better: bool) -> str:
    """better, worse, no difference shown, not measured, or no claim for lack of seeds."""
    if found is None:
        return "not measured"
    if found.seeds < MIN_SEEDS:
        return f"no claim: {found.seeds} seed{'s' if found.seeds > 1 else ''}"
    if adjusted_p is None or adjusted_p > LEVEL:
        return "no difference shown"
    return "better" if (found.value < 0) == lower_is_better else "worse"
