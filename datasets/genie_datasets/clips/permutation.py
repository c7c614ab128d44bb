"""Pseudo-random permutations that are evaluated at any position, so that a sampler holds no list of its clips."""

from collections.abc import Callable, Sequence

import numpy as np

LARGEST_TABLE = 1 << 18  # positions up to which a permutation is a table in memory
ROUNDS = 6
MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))  # constants of splitmix64 (Steele et al. 2014)

Permutation = Callable[[np.ndarray], np.ndarray]


def permutation(n: int, key: Sequence[int]) -> Permutation:
    """A permutation of range(n), a function of `key`: (m,) positions -> (m,) int64."""
    if n <= LARGEST_TABLE:
        return np.random.default_rng(key).permutation(n).__getitem__
    return Feistel(n, key)


class Feistel:
    """A Feistel network over 2^b >= n numbers, repeated until the result is below n (Black & Rogaway 2002).

    Memory does not depend on n. A position costs 1 to 4 passes of `ROUNDS` rounds.
    """

    def __init__(self, n: int, key: Sequence[int]):
        self.n = np.uint64(n)
        half = (max(2, (n - 1).bit_length()) + 1) // 2
        self.half, self.mask = np.uint64(half), np.uint64((1 << half) - 1)
        self.keys = np.random.SeedSequence(list(key)).generate_state(ROUNDS, np.uint64)

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        out = self._pass(np.asarray(positions).astype(np.uint64))
        while (outside := out >= self.n).any():
            out[outside] = self._pass(out[outside])
        return out.astype(np.int64)

    def _pass(self, x: np.ndarray) -> np.ndarray:
        left, right = x >> self.half, x & self.mask
        for key in self.keys:
            left, right = right, left ^ (mix(right ^ key) & self.mask)
        return (left << self.half) | right


def mix(x: np.ndarray) -> np.ndarray:
    """The last step of splitmix64: every bit of the result depends on every bit of x."""
    x = (x ^ (x >> np.uint64(30))) * MIX[0]
    x = (x ^ (x >> np.uint64(27))) * MIX[1]
    return x ^ (x >> np.uint64(31))
