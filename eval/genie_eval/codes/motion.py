"""Motion made comparable: glitches clipped, z-scored or scaled; sums and means of groups of transitions."""

import numpy as np
from jaxtyping import Float, Int

STILL = 1e-9  # a dimension whose SD is below this does not move
FAR = 5.0  # times the 99 % quantile of the distance from the median; values further out are glitches


def clip_glitches(motion: Float[np.ndarray, "M D"]) -> tuple[Float[np.ndarray, "M D"], int]:
    """Motion clipped to FAR, and the number of transitions that were clipped: one wrong reading must not decide a mean.

    FAR of a normal distribution is 13 SD, so that correct data stays as it is. Values that are not finite stay.
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
    clipped = motion.copy()
    clipped[out] = np.clip(motion[out], middle - reach, middle + reach)
    return clipped, int(out.sum())


def zscore(motion: Float[np.ndarray, "M D"]) -> Float[np.ndarray, "M D2"]:
    """Each dimension with mean 0 and SD 1 over all transitions; dimensions that never move are dropped."""
    spread = motion.std(axis=0)
    moving = spread > STILL
    return (motion[:, moving] - motion[:, moving].mean(axis=0)) / spread[moving]


def scaled(motion: Float[np.ndarray, "M D"]) -> Float[np.ndarray, "M D"]:
    """Each dimension divided by its SD and not centered, so that 0 stays "no motion"; 0 where it never moves."""
    spread = motion.std(axis=0)
    return motion / np.where(spread > STILL, spread, np.inf)


def group_sums(values: Float[np.ndarray, "M D"], group: Int[np.ndarray, " M"], groups: int) -> np.ndarray:
    """(groups, D) sums of the rows of each group."""
    return np.stack([np.bincount(group, weights=column, minlength=groups) for column in values.T], axis=1)


def group_means(values: Float[np.ndarray, "M D"], group: Int[np.ndarray, " M"], groups: int) -> np.ndarray:
    """(groups, D) means of the rows of each group; 0 for a group without rows."""
    count = np.bincount(group, minlength=groups)
    return group_sums(values, group, groups) / np.maximum(count, 1)[:, None]
