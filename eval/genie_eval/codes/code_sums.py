"""Counts and sums of motion by trajectory and code: all that grounding and consistency need, also when resampled."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from genie_eval.codes.motion import group_sums


@dataclass(frozen=True)
class CodeSums:
    """Number of transitions, sum of their motions, and sum of the squared lengths of these motions."""

    count: Float[np.ndarray, "I K"]
    total: Float[np.ndarray, "I K D"]
    square: Float[np.ndarray, " I"]


def usage(codes: Int[np.ndarray, " M"], trajectory: Int[np.ndarray, " M"], num_codes: int) -> Float[np.ndarray, "I K"]:
    """Number of transitions by trajectory and code."""
    cell = trajectory * num_codes + codes
    return np.bincount(cell, minlength=(int(trajectory[-1]) + 1) * num_codes).reshape(-1, num_codes).astype(float)


def code_sums(
    codes: Int[np.ndarray, " M"], motion: Float[np.ndarray, "M D"], trajectory: Int[np.ndarray, " M"], num_codes: int
) -> CodeSums:
    trajectories = int(trajectory[-1]) + 1
    cell = trajectory * num_codes + codes
    return CodeSums(
        count=usage(codes, trajectory, num_codes),
        total=group_sums(motion, cell, trajectories * num_codes).reshape(trajectories, num_codes, motion.shape[1]),
        square=np.bincount(trajectory, weights=(motion**2).sum(axis=1), minlength=trajectories),
    )
