"""Counts and sums of motion by trajectory and code: all that grounding and consistency need, also when resampled."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True)
class CodeSums:
    """count (I, K) transitions, total (I, K, D) sums of motion, square (I,) sums of its squared length."""

    count: Float[np.ndarray, "I K"]
    total: Float[np.ndarray, "I K D"]
    square: Float[np.ndarray, " I"]


def code_sums(
    codes: Int[np.ndarray, " M"], motion: Float[np.ndarray, "M D"], trajectory: Int[np.ndarray, " M"], num_codes: int
) -> CodeSums:
    trajectories = int(trajectory[-1]) + 1
    cell = trajectory * num_codes + codes
    cells = trajectories * num_codes
    total = np.stack([np.bincount(cell, weights=column, minlength=cells) for column in motion.T], axis=1)
    return CodeSums(
        count=np.bincount(cell, minlength=cells).reshape(trajectories, num_codes).astype(np.float64),
        total=total.reshape(trajectories, num_codes, motion.shape[1]),
        square=np.bincount(trajectory, weights=(motion**2).sum(axis=1), minlength=trajectories),
    )
