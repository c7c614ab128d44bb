"""Baseline codes: k-means of a description of each transition, never fitted on the trajectory that it labels."""

import numpy as np
from jaxtyping import Float, Int

FOLDS = 5
COMPONENTS = 16  # principal components of frame differences
OUTLIER = 4.0  # SD; values further out are clipped, or one glitch would take a code for itself
FIT_ROWS = 20_000  # enough for either fit; more only cost time


def k_means(
    values: Float[np.ndarray, "M D"], num_codes: int, seed: int = 0, start: np.ndarray | None = None
) -> Float[np.ndarray, "K D"]:
    """Centers of k-means; fewer than `num_codes` where there are fewer distinct values.

    start: initial centers, so that the numbering of the codes carries over from another fit.
    """
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    if start is not None:
        fit = KMeans(len(start), init=start, n_init=1, random_state=seed)
    else:
        fit = KMeans(min(num_codes, len(np.unique(values, axis=0))), n_init=10, random_state=seed)
    with threadpool_limits(limits=1):  # the problem is small: on a busy machine a second thread waits for minutes
        return fit.fit(values).cluster_centers_


def nearest_center(values: Float[np.ndarray, "M D"], centers: Float[np.ndarray, "K D"]) -> Int[np.ndarray, " M"]:
    score = values @ centers.T - 0.5 * (centers**2).sum(axis=1)
    return score.argmax(axis=1).astype(np.int64)


def quantize(
    values: Float[np.ndarray, "M D"],
    trajectory: Int[np.ndarray, " M"],
    num_codes: int,
    train: Float[np.ndarray, "Q D"] | None = None,
    components: int | None = None,
    seed: int = 0,
) -> Int[np.ndarray, " M"]:
    """Code of each row by k-means, on `components` principal components if given.

    train: rows of other trajectories, on which everything is fitted. Without them the codes are cross-fitted: each fold
    of trajectories is labeled by a fit on the other folds. All folds start from the centers of one fit, so that code 3
    of one fold is code 3 of the others.
    """
    rng = np.random.default_rng(seed)
    if train is not None and len(train) >= 10 * num_codes:
        return _Fit(_subset(train, rng), num_codes, components, seed)(values)
    first = _Fit(_subset(values, rng), num_codes, components, seed)
    trajectories = int(trajectory[-1]) + 1
    fold = rng.permutation(trajectories) % min(FOLDS, trajectories)
    codes = np.empty(len(values), dtype=np.int64)
    for f in range(fold.max() + 1):
        held_out = fold[trajectory] == f
        rest = _subset(values[~held_out], rng)
        if len(rest) < len(first.centers):  # too few rows to leave any out
            codes[held_out] = first(values[held_out])
            continue
        codes[held_out] = _Fit(rest, num_codes, components, seed, start=first.centers)(values[held_out])
    return codes


def _subset(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return values if len(values) <= FIT_ROWS else values[np.sort(rng.choice(len(values), FIT_ROWS, replace=False))]


class _Fit:
    """Scaling, projection and centers. `centers` are in the space of the input, so that another fit can start there."""

    def __init__(self, values, num_codes, components, seed, start=None):
        self.mean = values.mean(axis=0)
        if components is None:
            spread = values.std(axis=0)
            self.basis = np.diag(1 / np.where(spread > 1e-9, spread, np.inf))
            self.inverse = np.diag(spread)
        else:
            from sklearn.decomposition import PCA

            few = min(components, len(values) - 1, values.shape[1])
            pca = PCA(few, svd_solver="randomized", random_state=seed).fit(values)
            self.basis, self.inverse = pca.components_.T, pca.components_
        self.limit = OUTLIER if components is None else np.inf
        self.local = k_means(self._project(values), num_codes, seed, None if start is None else self._project(start))
        self.centers = self.local @ self.inverse + self.mean

    def __call__(self, values: np.ndarray) -> np.ndarray:
        return nearest_center(self._project(values), self.local)

    def _project(self, values: np.ndarray) -> np.ndarray:
        return np.clip((values - self.mean) @ self.basis, -self.limit, self.limit)
