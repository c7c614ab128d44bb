"""The start frames of the clips that a filter keeps. The motion in a frame cache is measured once and kept with it."""

import contextlib
import hashlib
from collections.abc import Iterator

import numpy as np

from genie_datasets.base.files import atomic_file
from genie_datasets.base.mapped_npz import BROKEN, ChunkedArray, map_npz, write_npz
from genie_datasets.base.recent import RecentItems
from genie_datasets.clips.filters import ClipFilter
from genie_datasets.clips.motion import MOTION_SIZE, Motion, motion
from genie_datasets.sources.frame_cache import FrameCache
from genie_datasets.sources.split import Split

VERSION = 2  # raise it when `motion` gives other flags
STATIC, CUT = 1, 2


class KeptClips:
    """The windows of every episode that a filter keeps.

    windows: (E,) windows per episode before the filter; steps: (E,) frames from one frame of a clip to the next.
    `num_clips` (E,) is the number of windows kept.
    """

    def __init__(self, frames: Split, windows: np.ndarray, clip_length: int, steps: np.ndarray, drop: ClipFilter):
        self._frames, self._windows, self._length, self._steps, self._drop = frames, windows, clip_length, steps, drop
        self._first = np.concatenate([[0], np.cumsum(frames.num_frames)])
        self._starts: RecentItems[np.ndarray] = RecentItems(256)
        self._table = motion_table(frames, steps)
        self.num_clips = np.array([self._flags(e).sum() for e in range(frames.num_episodes)], np.int64)

    def __getstate__(self) -> dict:  # because a memory map would be pickled as its content
        return {name: value for name, value in self.__dict__.items() if name != "_table"}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._table = motion_table(self._frames, self._steps)

    def _flags(self, episode: int) -> np.ndarray:
        flags = self._table[self._first[episode] : self._first[episode + 1]]
        found = Motion(static=(flags & STATIC) > 0, cut=(flags & CUT) > 0)
        return self._drop.kept(found, int(self._windows[episode]), self._length, int(self._steps[episode]))

    def start(self, episode: int, number: int) -> int:
        """First frame of kept clip `number` of an episode."""
        return int(self._starts.get(episode, lambda: np.flatnonzero(self._flags(episode)))[number])


def motion_table(frames: Split, steps: np.ndarray) -> np.ndarray:
    """(F,) uint8: flags of the transition that begins at each frame, 0 at the end of an episode; steps: as above."""

    def episodes() -> Iterator[np.ndarray]:
        for episode, step in enumerate(steps.tolist()):
            found = motion(frames.frames(episode, None, MOTION_SIZE), step)
            flags = np.zeros(int(frames.num_frames[episode]), np.uint8)
            flags[: len(found.static)] = STATIC * found.static + CUT * found.cut
            yield flags

    if isinstance(frames, FrameCache):
        key = hashlib.sha256(np.asarray(steps, np.int64).tobytes() + frames.stamp.encode()).hexdigest()[:8]
        path = frames.folder / f"motion-v{VERSION}-{key}.npz"
        with contextlib.suppress(*BROKEN, KeyError):
            return map_npz(path)["flags"]
        with contextlib.suppress(OSError):  # the cache is read-only, or the disk is full
            with atomic_file(path) as stream:
                shape = (int(frames.num_frames.sum()),)
                write_npz(stream, {"flags": ChunkedArray(np.dtype(np.uint8), shape, episodes())})
            return map_npz(path)["flags"]
    return np.concatenate([*episodes()])
