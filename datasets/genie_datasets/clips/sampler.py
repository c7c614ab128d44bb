"""The order of training clips: a stateless function of (seed, position), so a run resumes from one integer."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from genie_datasets.base.recent import RecentItems

LARGEST_TABLE = 1 << 18  # positions up to which a permutation is a table in memory
ROUNDS = 6
MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))  # constants of splitmix64 (Steele et al. 2014)

Permutation = Callable[[np.ndarray], np.ndarray]


class EpochSampler:
    """An endless stream of clip numbers, sharded exactly across ranks.

    Each epoch is a new permutation of all clips. Position p of the stream belongs to rank p % world_size: over an epoch
    the ranks together read every clip once, and `batch(step, n)` depends on nothing but `step`.

    With several groups (`num_clips` is a list, `weights` are their shares) an epoch has as many positions as there are
    clips. Each group gets its share of them, to within one clip, and reads its own clips in permutations.
    """

    def __init__(
        self,
        num_clips: int | Sequence[int],
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        weights: Sequence[float] | None = None,
    ):
        sizes = np.atleast_1d(np.asarray(num_clips, np.int64))
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must be from 0 to {world_size - 1}, got {rank}")
        if sizes.sum() == 0 or (weights is not None and len(weights) != len(sizes)):
            raise ValueError(f"cannot sample from groups of {sizes.tolist()} clips with weights {weights}")
        self.seed, self.rank, self.world_size = int(seed), rank, world_size
        self._sizes = sizes
        self._first = np.concatenate([[0], np.cumsum(sizes)])
        self.epoch_length = int(sizes.sum())
        # Without weights the groups are one, and each clip comes once per epoch.
        self._shares = None if weights is None or len(sizes) == 1 else _shares(sizes, weights, self.epoch_length)
        # The permutations of the epochs in use; an order is a function and not a list.
        self._permutations: RecentItems[Permutation] = RecentItems(2 * (len(sizes) + 1))

    @classmethod
    def of(cls, clips, seed: int, rank: int = 0, world_size: int = 1) -> "EpochSampler":
        """The sampler of a ClipDataset, which gives each of its mixed sources its share."""
        return cls(clips.group_sizes, seed, rank, world_size, clips.group_weights)

    def indices(self, epoch: int) -> np.ndarray:
        """The clips of this rank in one epoch, in order: (n,) int64."""
        start = epoch * self.epoch_length
        offsets = np.arange((self.rank - start) % self.world_size, self.epoch_length, self.world_size)
        return self._clips(epoch, offsets)

    def batch(self, step: int, batch_size: int) -> np.ndarray:
        """The clips of this rank at one training step: (batch_size,) int64, across epoch boundaries."""
        positions = (np.arange(step * batch_size, (step + 1) * batch_size)) * self.world_size + self.rank
        epochs, offsets = np.divmod(positions, self.epoch_length)
        return np.concatenate([self._clips(int(e), offsets[epochs == e]) for e in np.unique(epochs)])

    def batches(self, batch_size: int, start_step: int = 0) -> Iterator[list[int]]:
        """Endless batches from `start_step` on, for torch's `batch_sampler`."""
        step = start_step
        while True:
            yield self.batch(step, batch_size).tolist()
            step += 1

    def _clips(self, epoch: int, offsets: np.ndarray) -> np.ndarray:
        """The clips at these positions (n,) of an epoch."""
        places = self._permutation(self.epoch_length, epoch, 0)(offsets)
        if self._shares is None:
            return places
        # The positions of the groups lie one after the other; each group continues its own stream of permutations.
        first = np.concatenate([[0], np.cumsum(self._shares)])
        groups = np.searchsorted(first, places, side="right") - 1
        clips = np.empty(len(places), np.int64)
        for group in np.unique(groups):
            mine = np.flatnonzero(groups == group)
            size = int(self._sizes[group])
            rounds, within = np.divmod(epoch * self._shares[group] + places[mine] - first[group], size)
            for number in np.unique(rounds):
                now = rounds == number
                order = self._permutation(size, int(number), int(group) + 1)
                clips[mine[now]] = self._first[group] + order(within[now])
        return clips

    def _permutation(self, n: int, epoch: int, stream: int) -> Permutation:
        return self._permutations.get((n, epoch, stream), lambda: permutation(n, [self.seed, epoch, stream]))


def _shares(sizes: np.ndarray, weights: Sequence[float], total: int) -> list[int]:
    """Positions of each group in an epoch: proportional to the weights, `total` in all, none for empty groups."""
    ideal = np.where(sizes > 0, np.asarray(weights, np.float64), 0)
    ideal = ideal / ideal.sum() * total
    shares = np.floor(ideal).astype(int)
    for group in np.argsort(shares - ideal, kind="stable")[: total - shares.sum()]:  # largest remainders first
        shares[group] += 1
    return shares.tolist()


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
