"""Motion made comparable: z-scored, and for consistency also freed of phase and of each trajectory's own mean."""

import numpy as np
from jaxtyping import Float, Int

PHASE_BINS = 8
STILL = 1e-9  # a dimension whose spread is below this does not move


FAR = 5.0  # times the 99 % quantile of the distance from the median; what lies further out is a glitch


def draw_in(motion: Float[np.ndarray, "M D"]) -> tuple[Float[np.ndarray, "M D"], int]:
    """Motion with glitches drawn in to FAR, and of how many transitions: one wrong reading must not decide a mean.

    A normal dimension ends at 13 SD, so honest data is left as it is. Values that are not finite stay.
    """
    finite = np.isfinite(motion).all(axis=1)
    if not finite.any():
        return motion, 0
    middle = np.median(motion[finite], axis=0)
    reach = FAR * np.quantile(np.abs(motion[finite] - middle), 0.99, axis=0)
    reach = np.where(reach > 0, reach, np.inf)
    out = finite & (np.abs(motion - middle) > reach).any(axis=1)
    if not out.any():
        return motion, 0
    drawn = motion.copy()
    drawn[out] = np.clip(motion[out], middle - reach, middle + reach)
    return drawn, int(out.sum())


def zscore(motion: Float[np.ndarray, "M D"]) -> Float[np.ndarray, "M D2"]:
    """Each dimension to mean 0, SD 1 over all transitions; dimensions that never move are dropped."""
    spread = motion.std(axis=0)
    moving = spread > STILL
    return (motion[:, moving] - motion[:, moving].mean(axis=0)) / spread[moving]


def group_means(values: Float[np.ndarray, "M D"], group: Int[np.ndarray, " M"], groups: int) -> np.ndarray:
    """(groups, D) means; 0 for a group without rows."""
    count = np.bincount(group, minlength=groups)
    sums = np.stack([np.bincount(group, weights=column, minlength=groups) for column in values.T], axis=1)
    return sums / np.maximum(count, 1)[:, None]


def without_phase(motion: Float[np.ndarray, "M D"], phase: Float[np.ndarray, " M"]) -> Float[np.ndarray, "M D2"]:
    """z-scored motion minus the mean of its phase (8 bins): no code can predict it from "how far into the episode"."""
    values = zscore(motion)
    bins = np.minimum((phase * PHASE_BINS).astype(np.int64), PHASE_BINS - 1)
    return values - group_means(values, bins, PHASE_BINS)[bins]


def without_trajectory(values: Float[np.ndarray, "M D"], trajectory: Int[np.ndarray, " M"]) -> Float[np.ndarray, "M D"]:
    """Minus the mean of each trajectory: no code can predict it from "which episode"."""
    return values - group_means(values, trajectory, int(trajectory[-1]) + 1)[trajectory]
