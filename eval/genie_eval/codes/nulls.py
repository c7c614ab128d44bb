"""Codes that mean nothing, or nothing across trajectories: what a metric must NOT reward.

Each takes what it needs of the transitions and gives codes (M,) in 0 .. K-1.
"""

import numpy as np
from jaxtyping import Float, Int

from genie_eval.codes.transitions import Transitions
from genie_eval.resampling import swap_codes

Codes = Int[np.ndarray, " M"]


def swapped(codes: Codes, table: Transitions, seed: int = 0) -> Codes:
    """Each trajectory carries the codes of another one (a cyclic shift of a random order: never its own)."""
    order = np.random.default_rng(seed).permutation(table.num_trajectories)
    donor = np.empty_like(order)
    donor[order] = np.roll(order, 1)
    return swap_codes(codes, table.starts, donor)


def marginal(codes: Codes, num_codes: int, seed: int = 0) -> Codes:
    """Independent draws with the same shares."""
    shares = np.bincount(codes, minlength=num_codes) / len(codes)
    return np.random.default_rng(seed).choice(num_codes, size=len(codes), p=shares)


def constant(codes: Codes) -> Codes:
    return np.zeros_like(codes)


def permuted_per_trajectory(codes: Codes, table: Transitions, num_codes: int, seed: int = 0) -> Codes:
    """A private dictionary for every trajectory: perfect inside one, meaningless across them. THE control here."""
    rng = np.random.default_rng(seed)
    dictionaries = np.stack([rng.permutation(num_codes) for _ in range(table.num_trajectories)])
    return dictionaries[table.trajectory, codes]


def phase_code(table: Transitions, num_codes: int) -> Codes:
    """How far into the episode, and nothing else."""
    return (table.phase * num_codes).astype(np.int64)


def scene_code(table: Transitions, num_codes: int) -> Codes | None:
    """Which scene, and nothing else; None where the source does not name scenes."""
    return None if table.scene is None else table.scene.astype(np.int64) % num_codes


def position_code(table: Transitions, num_codes: int, seed: int = 0) -> Codes | None:
    """Where the arm is, not where it goes; None where its position is not known."""
    if table.position is None or not np.isfinite(table.position).all():
        return None
    return nearest_centre(table.position, k_means(table.position, num_codes, seed))


def k_means(
    values: Float[np.ndarray, "M D"], num_codes: int, seed: int = 0, start: np.ndarray | None = None
) -> Float[np.ndarray, "K D"]:
    """(K', D) centres, K' <= num_codes where the values are fewer. `start`: centres to begin from, so that the
    numbering of codes carries over."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    if start is not None:
        fit = KMeans(len(start), init=start, n_init=1, random_state=seed)
    else:
        fit = KMeans(min(num_codes, len(np.unique(values, axis=0))), n_init=10, random_state=seed)
    with threadpool_limits(limits=1):  # so small that a second thread only waits, for minutes on a busy machine
        return fit.fit(values).cluster_centers_


def nearest_centre(values: Float[np.ndarray, "M D"], centres: Float[np.ndarray, "K D"]) -> Codes:
    score = values @ centres.T - 0.5 * (centres**2).sum(axis=1)
    return score.argmax(axis=1).astype(np.int64)
