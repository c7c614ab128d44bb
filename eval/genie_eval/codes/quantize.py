"""Baseline codes: k-means of some description of each transition, never fitted on the trajectory it labels."""

import numpy as np
from jaxtyping import Float, Int

from genie_eval.codes.nulls import k_means, nearest_centre

FOLDS = 5
COMPONENTS = 16  # of the PCA of frame differences
OUTLIER = 4.0  # SD; what lies further out is drawn in, or one glitch would take a code for itself
FIT_ROWS = 20_000  # enough for either fit; more only costs time


def quantise(
    values: Float[np.ndarray, "M D"],
    trajectory: Int[np.ndarray, " M"],
    num_codes: int,
    train: Float[np.ndarray, "Q D"] | None = None,
    components: int | None = None,
    seed: int = 0,
) -> Int[np.ndarray, " M"]:
    """Codes of each row, by k-means (of `components` principal components, if given).

    With `train` (rows of other trajectories) everything is fitted there. Without, it is cross-fitted: rows of each
    fold of trajectories are labelled by a fit on the other folds. All folds begin from the centres of one fit, so that
    code 3 of one fold is code 3 of the others.
    """
    rng = np.random.default_rng(seed)
    if train is not None and len(train) >= 10 * num_codes:
        return _Fit(_some(train, rng), num_codes, components, seed)(values)
    first = _Fit(_some(values, rng), num_codes, components, seed)
    trajectories = int(trajectory[-1]) + 1
    fold = rng.permutation(trajectories) % min(FOLDS, trajectories)
    codes = np.empty(len(values), dtype=np.int64)
    for f in range(fold.max() + 1):
        held_out = fold[trajectory] == f
        rest = _some(values[~held_out], rng)
        if len(rest) < len(first.centres):  # a handful of rows: nothing can be left out
            codes[held_out] = first(values[held_out])
            continue
        codes[held_out] = _Fit(rest, num_codes, components, seed, start=first.centres)(values[held_out])
    return codes


def _some(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return values if len(values) <= FIT_ROWS else values[np.sort(rng.choice(len(values), FIT_ROWS, replace=False))]


class _Fit:
    """Scaling, projection and centres; `centres` are in the space of the input, so that another fit can start there."""

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
        self.centres = self.local @ self.inverse + self.mean

    def __call__(self, values: np.ndarray) -> np.ndarray:
        return nearest_centre(self._project(values), self.local)

    def _project(self, values: np.ndarray) -> np.ndarray:
        return np.clip((values - self.mean) @ self.basis, -self.limit, self.limit)
