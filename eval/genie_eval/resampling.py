"""Resampling of whole trajectories: bootstrap intervals, permutation tests, Holm's correction.

Transitions of one trajectory resemble each other, so single frames are not independent observations: a bootstrap over
frames covers the true value in 33-57 % of the cases instead of 95 %, and shuffling frames rejects 96 % of true null
hypotheses. Everything here moves whole trajectories.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

DRAWS = 2000  # bootstrap draws
LEVEL = 0.95  # of all intervals
MAX_SHIFT = 0.5  # SD; a larger bias correction is not trusted
MAX_GROUPS = 200  # of the jackknife
SWAPS = 999  # permutations; the smallest p they can give is 1 / (SWAPS + 1)


def bootstrap_weights(trajectories: int, draws: int = DRAWS, seed: int | Sequence[int] = 0) -> Float[np.ndarray, "R I"]:
    """Counts of I trajectories in each of R draws with replacement."""
    counts = np.full(trajectories, 1 / trajectories)
    return np.random.default_rng(seed).multinomial(trajectories, counts, size=draws).astype(np.float64)


def interval(draws: Float[np.ndarray, "R *rest"]) -> Float[np.ndarray, "2 *rest"]:
    """95 % percentile interval over the first axis, of the finite draws; NaN where none is finite."""
    tail = (1 - LEVEL) / 2
    finite = np.where(np.isfinite(draws), draws, np.nan)
    empty = np.isnan(finite).all(axis=0)
    return np.where(empty, np.nan, np.nanquantile(np.where(empty, 0.0, finite), [tail, 1 - tail], axis=0))


def jackknife_weights(trajectories: int, seed: int = 0) -> Float[np.ndarray, "G I"]:
    """0 or 1 for each trajectory: row g leaves out one trajectory, or one of MAX_GROUPS random groups of them."""
    group = np.random.default_rng(seed).permutation(trajectories) % min(trajectories, MAX_GROUPS)
    return (group != np.arange(group.max() + 1)[:, None]).astype(np.float64)


def corrected_interval(
    value: Float[np.ndarray, "*rest"] | float,
    draws: Float[np.ndarray, "R *rest"],
    left_out: Float[np.ndarray, "G *rest"],
) -> Float[np.ndarray, "2 *rest"]:
    """Percentile interval of a cross-fitted statistic, corrected for its bias and for few trajectories.

    value: the statistic. draws: the statistic under bootstrap weights. left_out: under `jackknife_weights`.

    A statistic that predicts trajectories from others is lower the fewer there are, and lower still in bootstrap draws,
    which hold fewer distinct trajectories: plain percentiles lie below the true value. They are therefore shifted as in
    the bias-corrected (BC) interval, by the bias that the jackknife finds, and widened as Student's t, with a
    correction for the bootstrap's sqrt((n-1)/n) (Hesterberg 2015, "expanded percentiles"). The acceleration of BCa is
    left out: it lowers the coverage (`tools.calibration`), because the third moment that it needs is mostly noise here.
    """
    from scipy.stats import norm, t

    shape = np.shape(value)
    values = np.reshape(np.asarray(value, dtype=np.float64), -1)
    draws, left_out = draws.reshape(len(draws), -1), left_out.reshape(len(left_out), -1)
    bounds = np.full((2, len(values)), np.nan)
    for column, (center, drawn, left) in enumerate(zip(values, draws.T, left_out.T, strict=True)):
        drawn, left = drawn[np.isfinite(drawn)], left[np.isfinite(left)]
        groups = len(left)
        if not np.isfinite(center) or len(drawn) == 0 or groups < 2:
            bounds[:, column] = interval(drawn) if len(drawn) else np.nan
            continue
        spread = drawn.std()
        shift = (groups - 1) * (center - left.mean()) / spread if spread > 0 else 0.0
        reach = t.ppf(0.5 + LEVEL / 2, groups - 1) * np.sqrt(groups / (groups - 1)) * np.array([-1, 1])
        bounds[:, column] = np.quantile(drawn, norm.cdf(2 * np.clip(shift, -MAX_SHIFT, MAX_SHIFT) + reach))
    return bounds.reshape(2, *shape)


def one_sided_p(draws: Float[np.ndarray, " R"]) -> float:
    """Bootstrap p of "not above zero": the share of draws at or below 0."""
    finite = draws[np.isfinite(draws)]
    return float((1 + (finite <= 0).sum()) / (1 + len(finite)))


def permutation_p(value: float, null: Float[np.ndarray, " R"]) -> float:
    """Share of null values that reach `value`; the observed arrangement counts as one of them."""
    return float((1 + (null >= value - 1e-12).sum()) / (1 + len(null)))


def swap_codes(
    codes: Int[np.ndarray, " M"], starts: Int[np.ndarray, " I+1"], order: Int[np.ndarray, " I"], by: str = "phase"
) -> Int[np.ndarray, " M"]:
    """Gives trajectory i the codes of trajectory order[i], in step order.

    Where lengths differ, the donor is read at the same phase (start to start, end to end). A phase profile that codes
    and motion share then survives the swap and cannot be mistaken for a relation between them. by="step" reads the
    donor at the same step instead (its last where it is shorter), for profiles that depend on the step.
    """
    length = np.diff(starts)
    own = np.repeat(np.arange(len(length)), length)
    step = np.arange(len(codes)) - starts[:-1][own]
    donor = order[own]
    if by == "step":
        return codes[starts[:-1][donor] + np.minimum(step, length[donor] - 1)]
    phase = step / np.maximum(length[own] - 1, 1)
    return codes[starts[:-1][donor] + np.rint(phase * (length[donor] - 1)).astype(np.int64)]


def swapped_rows(starts: Int[np.ndarray, " I+1"], seed: int) -> Int[np.ndarray, " M"]:
    """For each row, the row of another trajectory at the same phase.

    Trajectories are shifted cyclically in a random order, so that none keeps its own rows.
    """
    order = np.random.default_rng(seed).permutation(len(starts) - 1)
    donor = np.empty_like(order)
    donor[order] = np.roll(order, 1)
    return swap_codes(np.arange(starts[-1]), starts, donor)


def swap_null(
    statistic: Callable[[Int[np.ndarray, " M"]], Any],
    codes: Int[np.ndarray, " M"],
    starts: Int[np.ndarray, " I+1"],
    swaps: int = SWAPS,
    seed: int = 0,
    by: str = "phase",
) -> Float[np.ndarray, " R"]:
    """Values of the statistic (a number, or several) when trajectories exchange their codes at random."""
    rng = np.random.default_rng(seed)
    length = np.diff(starts)
    longest_first = np.argsort(-length, kind="stable")
    as_long = np.searchsorted(-length[longest_first], -length, side="right")  # how many are at least as long

    def order() -> Int[np.ndarray, " I"]:
        if by == "phase":
            return rng.permutation(len(length))
        return longest_first[rng.integers(as_long)]  # a donor that has all the steps; the longest may keep their own

    return np.array([statistic(swap_codes(codes, starts, order(), by)) for _ in range(swaps)])


def sign_flip_p(differences: Float[np.ndarray, " I"]) -> float:
    """One-sided p that the mean of paired differences (one per trajectory) is above 0, by random sign flips."""
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(SWAPS, len(differences)))
    return permutation_p(float(differences.mean()), signs @ differences / len(differences))


def holm(p: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Holm's adjusted p values (family-wise error)."""
    order = np.argsort(p)
    raised = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    adjusted = np.empty_like(raised)
    adjusted[order] = np.minimum(raised, 1.0)
    return adjusted
