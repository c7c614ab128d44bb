"""Null codes: they have no meaning, or none across trajectories, and a metric must not reward them.

Each function takes what it needs of the transitions and returns codes (M,) in 0 .. K-1.
"""

import numpy as np
from jaxtyping import Int

from genie_eval.codes.quantize import k_means, nearest_center
from genie_eval.codes.transitions import Transitions
from genie_eval.resampling import swapped_rows

Codes = Int[np.ndarray, " M"]


def swapped(codes: Codes, table: Transitions, seed: int = 0) -> Codes:
    """Each trajectory carries the codes of another one."""
    return codes[swapped_rows(table.starts, seed)]


def marginal(codes: Codes, num_codes: int, seed: int = 0) -> Codes:
    """Independent random draws with the shares of these codes."""
    shares = np.bincount(codes, minlength=num_codes) / len(codes)
    return np.random.default_rng(seed).choice(num_codes, size=len(codes), p=shares)


def permuted_per_trajectory(codes: Codes, table: Transitions, num_codes: int, seed: int = 0) -> Codes:
    """The codes renamed at random in every trajectory: perfect inside one, meaningless across them.

    The main control of this suite.
    """
    rng = np.random.default_rng(seed)
    dictionaries = np.stack([rng.permutation(num_codes) for _ in range(table.num_trajectories)])
    return dictionaries[table.trajectory, codes]


def phase_code(table: Transitions, num_codes: int) -> Codes:
    """Progress in the episode."""
    return (table.phase * num_codes).astype(np.int64)


def scene_code(table: Transitions, num_codes: int) -> Codes | None:
    """The scene; None where the source does not name scenes."""
    return None if table.scene is None else table.scene.astype(np.int64) % num_codes


def position_code(table: Transitions, num_codes: int, seed: int = 0) -> Codes | None:
    """Position of the arm, independent of its motion; None where it is not known."""
    if table.position is None or not np.isfinite(table.position).all():
        return None
    return nearest_center(table.position, k_means(table.position, num_codes, seed))
