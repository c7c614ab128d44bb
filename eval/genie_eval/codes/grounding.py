"""`grounding_r2`: share of the variance of the true motion that the code explains, in trajectories held out.

The predictor of a transition is the mean motion of its code in all OTHER trajectories. R2 compares its squared error
with that of the overall mean of the other trajectories.
"""

import numpy as np
from jaxtyping import Float

from genie_eval.codes.code_sums import CodeSums

CELLS = 1 << 15  # numbers of one (draws, trajectories) block; a few such blocks fit into a processor's cache


def held_out_r2(sums: CodeSums, weights: Float[np.ndarray, "R I"] | None = None) -> Float[np.ndarray, " R"]:
    """R2 of the leave-one-trajectory-out code means for each row of weights; (1,) without weights.

    A trajectory that is drawn twice counts twice in the score and never in its own predictor: its copies leave with it.
    """
    if weights is None:
        return _r2_once(sums)
    rows = max(1, CELLS // weights.shape[1])
    return np.concatenate([_r2(sums, weights[i : i + rows]) for i in range(0, len(weights), rows)])


def _r2_once(sums: CodeSums) -> Float[np.ndarray, " 1"]:
    """R2 with every trajectory once, all codes together: a permutation test calls it a thousand times."""
    total, count = sums.total, sums.count
    whole, number = total.sum(axis=1), count.sum(axis=1)
    all_total, code_total = whole.sum(axis=0), total.sum(axis=0)
    n_others = number.sum() - number
    usable = n_others > 0.5
    base = sums.square @ usable
    square = (whole**2).sum(axis=1)
    spread = base - _explained(1.0, number, whole @ all_total, square, (all_total**2).sum(), n_others) @ usable

    others = count.sum(axis=0) - count
    cross, square = np.einsum("ikd,kd->ik", total, code_total), np.einsum("ikd,ikd->ik", total, total)
    gain = _explained(1.0, count, cross, square, (code_total**2).sum(axis=1), others)
    alone = (others < 0.5) & (count > 0) & usable[:, None]
    if alone.any():
        i, k = np.nonzero(alone)
        overall = (all_total - whole[i]) / n_others[i, None]
        gain[i, k] = _explained_by_overall(total[i, k], count[i, k], overall)
    explained = gain.sum(axis=1) @ usable
    return np.array([1 - (base - explained) / spread if spread > 0 else np.nan])


def _r2(sums: CodeSums, weights: Float[np.ndarray, "r I"]) -> Float[np.ndarray, " r"]:
    """R2 for each row of weights.

    The squared error of a mean over others is expanded into products of sums, one (r, I') matrix product per code (I'
    trajectories that have it), so that no array of size r x I x K x D is needed.
    """
    whole, number = sums.total.sum(axis=1), sums.count.sum(axis=1)  # (I, D), (I,)
    all_total, all_number = weights @ whole, weights @ number  # (r, D), (r,)
    n_others = all_number[:, None] - weights * number
    usable = weights * (n_others > 0.5)
    base = usable @ sums.square
    all_square = (all_total**2).sum(axis=1)[:, None]
    saved = _explained(weights, number, all_total @ whole.T, (whole**2).sum(axis=1), all_square, n_others)
    spread = base - np.einsum("ri,ri->r", usable, saved)

    explained = np.zeros(len(weights))
    for k in np.flatnonzero(sums.count.any(axis=0)):
        has = np.flatnonzero(sums.count[:, k])
        w, count, own = weights[:, has], sums.count[has, k], sums.total[has, k]
        code_total = w @ own  # (r, D)
        others = (w @ count)[:, None] - w * count
        code_square = (code_total**2).sum(axis=1)[:, None]
        gain = _explained(w, count, code_total @ own.T, (own**2).sum(axis=1), code_square, others)
        alone = (others < 0.5) & (usable[:, has] > 0)
        if alone.any():
            r, i = np.nonzero(alone)
            overall = (all_total[r] - w[r, i, None] * whole[has[i]]) / n_others[r, has[i], None]
            gain[r, i] = _explained_by_overall(own[i], count[i], overall)
        explained += np.einsum("ri,ri->r", usable[:, has], gain)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(spread > 0, 1 - (base - explained) / spread, np.nan)


def _explained(w, count, cross, square, total_square, others) -> np.ndarray:
    """Squared length minus squared error of `count` motions of one trajectory, predicted by the mean of the others.

    The motions sum to `own`, the trajectory has weight w, and m = (total - w own) / others is the predictor: the result
    is 2 own . m - count |m|^2. cross: own . total. square: |own|^2. total_square: |total|^2. All shapes broadcast to
    that of `cross`.
    """
    inverse = 1 / np.maximum(others, 0.5)
    squares = w * square
    length = w * (squares - 2 * cross)
    length += total_square  # |total - w own|^2
    length *= inverse
    length *= count
    gain = 2 * (cross - squares)
    gain -= length
    gain *= inverse
    return gain


def _explained_by_overall(own, count, overall) -> np.ndarray:
    """`_explained` for a code that no other trajectory has: it is predicted by the overall mean of the others."""
    return 2 * (own * overall).sum(axis=1) - count * (overall**2).sum(axis=1)
