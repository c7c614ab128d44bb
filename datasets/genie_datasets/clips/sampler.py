"""The order of training clips: a stateless function of (seed, position), so a run resumes from one integer."""

from collections.abc import Iterator, Sequence

import numpy as np

from genie_datasets.base.recent import RecentItems
from genie_datasets.clips.permutation import Permutation, permutation


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
