"""The one view of robot video that every kind of source gives: a Source has named Splits, a Split has episodes."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from genie_datasets.base.errors import UserError
from genie_datasets.base.file_state import FileState, stamp_of
from genie_datasets.sources.truth import Truth

Size = tuple[int, int]
BLOCK = 16  # frames


class Split(ABC):
    """One split of a source: E episodes in a fixed order."""

    name: str
    fingerprint: str  # changes when the files, their frames or their order do
    num_frames: np.ndarray  # (E,) int64
    hz: np.ndarray  # (E,) float64
    num_filtered: int = 0  # episodes that the catalogue's filter left out
    sequential: bool = False  # to be read by one thread, in order: going back begins anew
    damage: Sequence[str] = ()  # what --skip-damaged left out, a line each
    states: Sequence[FileState] = ()  # of the files it is read from, one per source

    @property
    def num_episodes(self) -> int:
        return len(self.num_frames)

    @property
    def stamp(self) -> str:
        """Changes when any of its files is touched: part of the key of all that is kept of it, beside `fingerprint`."""
        return stamp_of(self.states)

    @abstractmethod
    def frames(
        self, episode: int, ids: np.ndarray | None = None, size: Size | None = None, mode: str = "crop"
    ) -> np.ndarray:
        """Frames `ids` (all without it) of an episode: (n, H, W, 3) uint8, fitted to `size` (H, W) if given.

        Raises UserError naming the file when its images do not decode.
        """

    def gather(self, episodes: np.ndarray, ids: np.ndarray, size: Size | None = None, mode: str = "crop") -> np.ndarray:
        """Frames ids[b] (B, T) of episodes[b] (B,): (B, T, H, W, 3) uint8, for all of one size."""
        # numpy's stack copies in this thread; torch's starts a team of threads, which costs more than the copy
        return np.stack([self.frames(int(e), i, size, mode) for e, i in zip(episodes, ids, strict=True)])

    def frame_blocks(self, episode: int, size: Size | None = None, mode: str = "crop") -> Iterator[np.ndarray]:
        """All frames of an episode in order, in arrays (n, H, W, 3) of a few: for episodes larger than the memory."""
        for first in range(0, int(self.num_frames[episode]), BLOCK):
            last = min(first + BLOCK, int(self.num_frames[episode]))
            yield self.frames(episode, np.arange(first, last), size, mode)

    @abstractmethod
    def instruction(self, episode: int) -> str:
        """What the robot was told, or an empty text."""

    @abstractmethod
    def episode_name(self, episode: int) -> str:
        """Where the episode is kept, for messages and tables."""

    def truth(self, episode: int) -> Truth | None:
        """The true motion, for the evaluation only; None where the source holds none."""
        return None

    def record(self, episode: int) -> bytes | None:
        """The whole record of an episode (a tf.train.Example), where the source keeps one; `labels` and
        `tabletop.recorded` read it."""
        return None

    @property
    def image_size(self) -> Size:
        """(H, W) of the first frame of all, as it is stored."""
        return self.size_of(0)

    def size_of(self, episode: int) -> Size:
        """(H, W) of an episode's first frame as it is stored."""
        return self.frames(episode, np.array([0])).shape[1:3]

    @property
    def group(self) -> np.ndarray:
        """(E,) int64: which of the mixed sources each episode is from; see `mixture`."""
        return np.zeros(self.num_episodes, np.int64)

    @property
    def group_weights(self) -> np.ndarray:
        """(G,) float64 that sum to 1: the share of each mixed source in training."""
        return np.ones(1)


@dataclass(frozen=True)
class Source:
    """What `open_source` returns."""

    name: str
    path: str
    kind: str  # "rlds", "lerobot", "video", "arrays", "cache" or "mixture"
    splits: dict[str, Split]
    fingerprint: str

    def split(self, name: str) -> Split:
        if name not in self.splits:
            raise UserError(f"{self.path} has no split '{name}': it has {', '.join(self.splits)}")
        return self.splits[name]


def frame_ids(ids: np.ndarray | None, num_frames: int) -> np.ndarray:
    """`ids` as checked int64 (n,), all frames when None."""
    if ids is None:
        return np.arange(num_frames)
    ids = np.asarray(ids, np.int64)
    if len(ids) and not (ids.min() >= 0 and ids.max() < num_frames):
        raise IndexError(f"frames {ids.min()}..{ids.max()} of an episode of {num_frames}")
    return ids
