"""Where the clips begin that a filter keeps. The flags of a frame cache are made once and mapped from then on."""

import contextlib
import hashlib
from functools import lru_cache

import numpy as np

from genie_datasets.base.cache_dir import AtomicFile
from genie_datasets.base.mapped_npz import BROKEN, Pieces, map_npz, write_npz
from genie_datasets.clips.filters import ClipFilter
from genie_datasets.clips.motion import Motion, episode_motion
from genie_datasets.sources.frame_cache import FrameCache
from genie_datasets.sources.split import Split

VERSION = 2  # raise it when `motion` measures something else
STATIC, CUT = 1, 2


class KeptClips:
    """num_clips: (E,) how many windows of each episode the filter keeps."""

    def __init__(self, frames: Split, windows: np.ndarray, clip_length: int, steps: np.ndarray, drop: ClipFilter):
        self._frames, self._windows, self._length, self._steps, self._drop = frames, windows, clip_length, steps, drop
        self._start()
        self.num_clips = np.array([self._flags(e).sum() for e in range(frames.num_episodes)], np.int64)

    def _start(self) -> None:
        self._table = motion_table(self._frames, self._steps)
        self._first = np.concatenate([[0], np.cumsum(self._frames.num_frames)])
        self._starts = lru_cache(maxsize=256)(lambda episode: np.flatnonzero(self._flags(episode)))

    def __getstate__(self) -> dict:
        return {k: v for k, v in self.__dict__.items() if k not in ("_table", "_starts")}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._start()

    def _flags(self, episode: int) -> np.ndarray:
        flags = self._table[self._first[episode] : self._first[episode + 1]]
        motion = Motion(static=(flags & STATIC) > 0, cut=(flags & CUT) > 0)
        return self._drop.kept(motion, int(self._windows[episode]), self._length, int(self._steps[episode]))

    def start(self, episode: int, number: int) -> int:
        """First frame of the kept clip with this number in its episode."""
        return int(self._starts(episode)[number])


def motion_table(frames: Split, steps: np.ndarray) -> np.ndarray:
    """(F,) uint8: flags of the transition that begins at each frame, 0 where an episode has none left.

    steps: (E,) frames from one frame of a clip to the next.
    """
    if not isinstance(frames, FrameCache):
        return np.concatenate([flags(frames, episode, int(step)) for episode, step in enumerate(steps)])
    mark = hashlib.sha256(np.asarray(steps, np.int64).tobytes() + frames.stamp.encode()).hexdigest()[:8]
    path = frames.folder / f"motion-v{VERSION}-{mark}.npz"
    with contextlib.suppress(*BROKEN, KeyError):
        return map_npz(path)["flags"]
    made = Pieces(
        np.dtype(np.uint8),
        (int(frames.num_frames.sum()),),
        (flags(frames, episode, int(step)) for episode, step in enumerate(steps)),
    )
    try:
        with AtomicFile(path) as stream:
            write_npz(stream, {"flags": made})
        return map_npz(path)["flags"]
    except OSError:  # a cache that may only be read, or a full disk
        return np.concatenate([flags(frames, episode, int(step)) for episode, step in enumerate(steps)])


def flags(frames: Split, episode: int, step: int) -> np.ndarray:
    found = episode_motion(frames, episode, step)
    out = np.zeros(int(frames.num_frames[episode]), np.uint8)
    out[: len(found.static)] = STATIC * found.static + CUT * found.cut
    return out
