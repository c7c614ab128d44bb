"""The view that every kind of robot video gives: a Source has named Splits, and a Split has episodes."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from genie_datasets.base.errors import UserError
from genie_datasets.base.file_state import FileState, combined_digest
from genie_datasets.sources.truth import Truth

Size = tuple[int, int]
Ids = np.ndarray | None
BLOCK = 16  # frames


class Split(ABC):
    """One split of a source: E episodes in a fixed order."""

    name: str
    fingerprint: str  # changes with the content of the files, the frames read, and their order
    num_frames: np.ndarray  # (E,) int64
    hz: np.ndarray  # (E,) float64
    num_filtered: int = 0  # episodes that the catalog's filter left out
    sequential: bool = False  # one thread must read the episodes in order; going back starts again from the beginning
    damage: Sequence[str] = ()  # one line for each thing that --skip-damaged left out
    states: Sequence[FileState] = ()  # states of the files, one per source

    @property
    def num_episodes(self) -> int:
        return len(self.num_frames)

    @property
    def stamp(self) -> str:
        """Changes when a file is modified. With `fingerprint`, part of the key of everything made from the split."""
        return combined_digest(self.states)

    @abstractmethod
    def frames(self, episode: int, ids: Ids = None, size: Size | None = None, mode: str = "crop") -> np.ndarray:
        """Frames `ids` (default: all) of an episode: (n, H, W, 3) uint8, fitted to `size` (H, W) if it is given.

        Raises UserError, which names the file, if an image does not decode.
        """

    def gather(self, episodes: np.ndarray, ids: np.ndarray, size: Size | None = None, mode: str = "crop") -> np.ndarray:
        """Frames ids[b] (B, T) of episodes[b] (B,): (B, T, H, W, 3) uint8, of one size or fitted to one."""
        # numpy copies in this thread; torch's stack would start threads, which costs more than the copy.
        return np.stack([self.frames(int(e), i, size, mode) for e, i in zip(episodes, ids, strict=True)])

    def frame_blocks(self, episode: int, size: Size | None = None, mode: str = "crop") -> Iterator[np.ndarray]:
        """All frames of an episode in order, as arrays (n, H, W, 3), for episodes larger than the memory."""
        for first in range(0, int(self.num_frames[episode]), BLOCK):
            last = min(first + BLOCK, int(self.num_frames[episode]))
            yield self.frames(episode, np.arange(first, last), size, mode)

    @abstractmethod
    def instruction(self, episode: int) -> str:
        """The instruction of an episode, or an empty text."""

    @abstractmethod
    def episode_name(self, episode: int) -> str:
        """File and number of an episode, for messages and tables."""

    def truth(self, episode: int) -> Truth | None:
        """The true motion, for the evaluation only; None if the source has none."""
        return None

    def record(self, episode: int) -> bytes | None:
        """The whole record (a tf.train.Example) of an episode; None if the source has none."""
        return None

    @property
    def image_size(self) -> Size:
        """(H, W) of the first frame of the first episode, as it is stored."""
        return self.size_of(0)

    def size_of(self, episode: int) -> Size:
        """(H, W) of the first frame of an episode, as it is stored."""
        return self.frames(episode, np.array([0])).shape[1:3]

    @property
    def group(self) -> np.ndarray:
        """(E,) int64: number of the mixed source of each episode; see `mixture`."""
        return np.zeros(self.num_episodes, np.int64)

    @property
    def group_weights(self) -> np.ndarray:
        """(G,) float64 that sum to 1: the share of each mixed source in training."""
        return np.ones(1)


class ComposedSplit(Split):
    """A split whose episodes belong to other splits."""

    @abstractmethod
    def find(self, episode: int) -> tuple[Split, int]:
        """The split that holds an episode, and the number of the episode there."""

    def frames(self, episode: int, ids: Ids = None, size: Size | None = None, mode: str = "crop") -> np.ndarray:
        split, number = self.find(episode)
        return split.frames(number, ids, size, mode)

    def frame_blocks(self, episode: int, size: Size | None = None, mode: str = "crop") -> Iterator[np.ndarray]:
        split, number = self.find(episode)
        return split.frame_blocks(number, size, mode)

    def size_of(self, episode: int) -> Size:
        split, number = self.find(episode)
        return split.size_of(number)

    def instruction(self, episode: int) -> str:
        split, number = self.find(episode)
        return split.instruction(number)

    def episode_name(self, episode: int) -> str:
        split, number = self.find(episode)
        return split.episode_name(number)

    def truth(self, episode: int) -> Truth | None:
        split, number = self.find(episode)
        return split.truth(number)


@dataclass(frozen=True)
class Source:
    """An opened source of robot video; see `open_source`."""

    name: str
    path: str
    kind: str  # "rlds", "lerobot", "video", "arrays", "cache" or "mixture"
    splits: dict[str, Split]
    fingerprint: str

    def split(self, name: str) -> Split:
        """The split of this name. Raises UserError."""
        if name not in self.splits:
            raise UserError(f"{self.path} has no split '{name}': choose one of {', '.join(self.splits)}")
        return self.splits[name]


def frame_ids(ids: np.ndarray | None, num_frames: int) -> np.ndarray:
    """`ids` as int64 (n,), all frames for None. Raises IndexError."""
    if ids is None:
        return np.arange(num_frames)
    ids = np.asarray(ids, np.int64)
    if len(ids) and not (ids.min() >= 0 and ids.max() < num_frames):
        raise IndexError(f"frames must be from 0 to {num_frames - 1}, got {ids.min()} .. {ids.max()}")
    return ids
