"""`ctc`, cross-trajectory consistency: agreement of a code's motion across trajectories, relative to that within one.

X: mean product of the motions of two transitions with the same code in different trajectories, minus the same mean
   whatever their codes.
W: the same for two transitions of ONE trajectory, at least `lag` steps apart, minus the mean product of all pairs at
   the same lags (so that slow drift of the motion does not count).
CTC = X / W, both over the codes that have a motion of their own (`MotionStatistics.moving_codes`). It is undefined
unless W is significantly above 0: otherwise the codes are not related to motion in the first place.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from genie_eval.codes.code_sums import CodeSums, code_sums

ACF_GONE = 0.1  # autocorrelation below which the motion no longer depends on its past
MAX_LAGS = 128  # larger lags add cost and no information
CELLS = 1 << 18  # numbers of one (draws, lags, codes) block: bounds memory, and fits into the processor's cache


@dataclass(frozen=True)
class PairSums:
    """Products of motions within trajectories, by trajectory, lag and code; and the sums that X needs."""

    sums: CodeSums
    same: Float[np.ndarray, "I K"]  # sums of products of same-code pairs, over all lags
    same_count: Float[np.ndarray, "I G K"]  # number of such pairs at each lag
    every: Float[np.ndarray, "I G"]  # sums of products of all pairs
    every_count: Float[np.ndarray, "I G"]


@dataclass(frozen=True)
class Consistency:
    """X and W for every row of weights (R,), and by code (R, K)."""

    across: np.ndarray  # X
    within: np.ndarray  # W
    code_across: np.ndarray
    code_within: np.ndarray


def pad(motion: Float[np.ndarray, "M D"], trajectory: Int[np.ndarray, " M"]) -> tuple[np.ndarray, np.ndarray]:
    """(I, L, D) motion, each trajectory a row with zeros behind its end, and (I, L) where it is valid."""
    length = np.bincount(trajectory)
    valid = np.arange(length.max()) < length[:, None]
    padded = np.zeros((*valid.shape, motion.shape[1]))
    padded[valid] = motion
    return padded, valid


def decorrelation_lag(motion: Float[np.ndarray, "I L D"], valid: np.ndarray) -> int | None:
    """Smallest lag at which the pooled autocorrelation of motion is below ACF_GONE; None where there is none."""
    variance = (motion**2).sum() / valid.sum()
    for lag in range(1, motion.shape[1]):
        pairs = valid[:, lag:].sum()  # padding is at the end, so the earlier partner is valid too
        if pairs == 0:
            return None
        if (motion[:, :-lag] * motion[:, lag:]).sum() / pairs < ACF_GONE * variance:
            return lag
    return None


def pair_sums(
    codes: Int[np.ndarray, " M"],
    motion: Float[np.ndarray, "M D"],
    trajectory: Int[np.ndarray, " M"],
    num_codes: int,
    lag: int | None,
) -> PairSums:
    """Sums over pairs of transitions, at a cost linear in trajectories.

    motion: without phase profile and trajectory means (`MotionStatistics.residual`). lag: smallest distance in steps of
    two transitions of one trajectory; None: no pairs within trajectories.
    """
    padded, valid = pad(motion, trajectory)
    labels = np.zeros(valid.shape, dtype=np.int64)
    labels[valid] = codes
    trajectories, longest = valid.shape
    lags = [] if lag is None else range(lag, min(longest, lag + MAX_LAGS))

    shape = (trajectories, len(lags))
    same, same_count = np.zeros((trajectories, num_codes)), np.zeros((*shape, num_codes))
    every, every_count = np.zeros(shape), np.zeros(shape)
    row = np.arange(trajectories)[:, None] * num_codes
    cells = trajectories * num_codes
    for g, gap in enumerate(lags):
        product = (padded[:, :-gap] * padded[:, gap:]).sum(axis=2)
        pair = valid[:, gap:]
        every[:, g], every_count[:, g] = (product * pair).sum(axis=1), pair.sum(axis=1)
        equal = pair & (labels[:, :-gap] == labels[:, gap:])
        cell = (row + labels[:, gap:])[equal]
        same += np.bincount(cell, weights=product[equal], minlength=cells).reshape(-1, num_codes)
        same_count[:, g] = np.bincount(cell, minlength=cells).reshape(-1, num_codes)
    return PairSums(code_sums(codes, motion, trajectory, num_codes), same, same_count, every, every_count)


def products_across(sums: CodeSums, weights: Float[np.ndarray, "R I"]) -> tuple[np.ndarray, np.ndarray]:
    """(R, K) sum and number of the products of same-code motions of two different trajectories."""
    trajectories, codes, dims = sums.total.shape
    twice, total = weights**2, weights @ sums.total.reshape(trajectories, -1)
    top = (total**2).reshape(-1, codes, dims).sum(axis=2) - twice @ (sums.total**2).sum(axis=2)
    bottom = (weights @ sums.count) ** 2 - twice @ sums.count**2
    return top, bottom


def across_trajectories(
    sums: CodeSums, weights: Float[np.ndarray, "R I"] | None = None, chosen: Bool[np.ndarray, " K"] | None = None
) -> tuple[np.ndarray, ...]:
    """X (R,), over the `chosen` codes (default: all), and X by code (R, K).

    Pairs of one trajectory with itself, or with its own copy in a bootstrap draw, never count.
    """
    trajectories, codes, dims = sums.total.shape
    weights = np.ones((1, trajectories)) if weights is None else weights
    top, bottom = products_across(sums, weights)
    whole, number = sums.total.sum(axis=1), sums.count.sum(axis=1)
    any_top = ((weights @ whole) ** 2).sum(axis=1) - weights**2 @ (whole**2).sum(axis=1)
    any_bottom = (weights @ number) ** 2 - weights**2 @ number**2
    with np.errstate(divide="ignore", invalid="ignore"):
        any_code = any_top / any_bottom
        some = slice(None) if chosen is None else chosen
        return top[:, some].sum(axis=1) / bottom[:, some].sum(axis=1) - any_code, top / bottom - any_code[:, None]


def consistency(
    pairs: PairSums, weights: Float[np.ndarray, "R I"] | None = None, chosen: Bool[np.ndarray, " K"] | None = None
) -> Consistency:
    """X and W, over the `chosen` codes (default: all) and for each code, under each row of trajectory weights."""
    trajectories, lags, codes = pairs.same_count.shape
    weights = np.ones((1, trajectories)) if weights is None else weights
    across, code_across = across_trajectories(pairs.sums, weights, chosen)
    rows = max(1, CELLS // max(lags * codes, 1))
    parts = [_within(pairs, weights[i : i + rows], chosen) for i in range(0, len(weights), rows)]
    within, code_within = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Consistency(across, within, code_across, code_within)


def _within(
    pairs: PairSums, weights: Float[np.ndarray, "r I"], chosen: Bool[np.ndarray, " K"] | None
) -> tuple[np.ndarray, np.ndarray]:
    """W (r,) and W by code (r, K): the excess of same-code products over those of any pair at the same lag."""
    trajectories, lags, codes = pairs.same_count.shape
    count = (weights @ pairs.same_count.reshape(trajectories, -1)).reshape(len(weights), lags, codes)
    with np.errstate(divide="ignore", invalid="ignore"):
        usual = np.nan_to_num((weights @ pairs.every) / (weights @ pairs.every_count))
        excess = weights @ pairs.same - (usual[:, None] @ count)[:, 0]
        pairs_of_code = count.sum(axis=1)
        some = slice(None) if chosen is None else chosen
        return excess[:, some].sum(axis=1) / pairs_of_code[:, some].sum(axis=1), excess / pairs_of_code
