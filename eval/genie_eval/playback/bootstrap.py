"""Intervals whose unit is the trajectory."""

import numpy as np
from jaxtyping import Float

DRAWS = 2000


def mean_interval(values: Float[np.ndarray, "E *rest"], seed: int = 0) -> Float[np.ndarray, "2 *rest"]:
    """95 % percentile bootstrap interval of the mean over the first axis, E trajectories drawn with replacement."""
    count = len(values)
    weights = np.random.default_rng([seed, 61]).multinomial(count, np.full(count, 1 / count), size=DRAWS) / count
    return np.quantile(np.tensordot(weights, values, axes=1), [0.025, 0.975], axis=0)
