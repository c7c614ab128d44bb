"""`grounding_r2`: how much of the true motion does the code tell, in trajectories it was not fitted on?

The predictor says, for each code, the mean motion of that code in all OTHER trajectories. R2 compares its squared
error with that of the overall mean of the other trajectories.
"""

import numpy as np
from jaxtyping import Float

from genie_eval.codes.code_sums import CodeSums


def held_out_r2(sums: CodeSums, weights: Float[np.ndarray, "R I"] | None = None, chunk: int = 128) -> np.ndarray:
    """R2 of the leave-one-trajectory-out code means, for each row of weights (R,).

    A trajectory drawn twice is twice in the score and never in its own predictor: its copies leave with it.
    """
    weights = np.ones((1, len(sums.count))) if weights is None else weights
    return np.concatenate([_r2(sums, weights[i : i + chunk]) for i in range(0, len(weights), chunk)])


def _r2(sums: CodeSums, weights: Float[np.ndarray, "r I"]) -> Float[np.ndarray, " r"]:
    count, total = sums.count, sums.total
    w = weights[:, :, None]
    others = np.einsum("ri,ik->rk", weights, count)[:, None] - w * count  # (r, I, K)
    others_total = np.einsum("ri,ikd->rkd", weights, total)[:, None] - w[..., None] * total  # (r, I, K, D)
    n_others = others.sum(axis=2)
    overall = others_total.sum(axis=2) / np.maximum(n_others, 1)[..., None]  # (r, I, D)
    seen = others > 0
    mean = np.where(
        seen[..., None], others_total / np.where(seen, others, 1)[..., None], overall[:, :, None]
    )  # a code no other trajectory has: predict the overall mean
    error = sums.square - 2 * np.einsum("ikd,rikd->ri", total, mean) + np.einsum("ik,rikd->ri", count, mean**2)
    spread = (
        sums.square
        - 2 * np.einsum("id,rid->ri", total.sum(axis=1), overall)
        + count.sum(axis=1) * (overall**2).sum(axis=2)
    )
    usable = n_others > 0
    top = (weights * error * usable).sum(axis=1)
    bottom = (weights * spread * usable).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(bottom > 0, 1 - top / bottom, np.nan)
