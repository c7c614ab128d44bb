"""FrameCache: every frame decoded and fitted once, packed in one uint8 memory map. Training reads this.

A cache is a folder: `frames.u8` (N, H, W, 3), `index.npz` (per episode), `cache.json` (what it was made of),
`source.json` (size and time of change of every file it was made of).
"""

import contextlib
import json
from pathlib import Path

import numpy as np

from genie_datasets.base.errors import UserError
from genie_datasets.base.file_state import FileState
from genie_datasets.base.fit import Size, fit_frames
from genie_datasets.base.mapped_npz import BROKEN, map_npz
from genie_datasets.base.notes import warn
from genie_datasets.sources.split import Source, Split, frame_ids

META, INDEX, FRAMES, STATE = "cache.json", "index.npz", "frames.u8", "source.json"
CACHE_VERSION = 2


class FrameCache(Split):
    """A split whose frames are already decoded; it holds no truth. Open with `FrameCache.open(folder)`."""

    def __init__(self, folder: Path, meta: dict, index: dict[str, np.ndarray]):
        if not isinstance(meta, dict) or not isinstance(meta.get("split"), str):
            raise ValueError(f"{META} is not that of a cache")
        if meta.get("version") != CACHE_VERSION:
            raise ValueError("an earlier version made it, whose readers could give other frames")
        self.folder, self.meta, self._index = folder, meta, index
        self.states = [FileState.read(folder, [folder / name for name in (META, INDEX, FRAMES)])]
        self._weights: np.ndarray = np.array(index["group_weights"])
        self.name: str = meta["split"]
        self.fingerprint: str = meta["fingerprint"]
        self.size: Size = (meta["height"], meta["width"])
        self.mode: str = meta["mode"]
        self.hz = np.array(index["hz"])
        self.episode_start = np.array(index["episode_start"])  # (E+1,)
        self.num_frames = np.diff(self.episode_start)
        check(folder, meta, index)
        self.packed = self._map()  # (N, H, W, 3) uint8, read-only

    @classmethod
    def open(cls, folder: str | Path) -> "FrameCache":
        """Raises UserError when the folder holds no whole cache."""
        folder = Path(folder)
        try:
            return cls(folder, json.loads((folder / META).read_text()), map_npz(folder / INDEX))
        except (*BROKEN, ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
            raise UserError(f"{folder} is not a frame cache ({error}): make one with `data cache SRC OUT`") from None

    def _map(self) -> np.ndarray:
        shape = (int(self.episode_start[-1]), *self.size, 3)
        return np.memmap(self.folder / FRAMES, np.uint8, "r", shape=shape)

    def __getstate__(self) -> dict:  # memory maps would be pickled as their content
        return {k: v for k, v in self.__dict__.items() if k not in ("packed", "_index")}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._index = map_npz(self.folder / INDEX)
        self.packed = self._map()

    @property
    def source_states(self) -> list[FileState]:
        """The files that it was made of, as they were then. Raises one of `BROKEN_STATE`."""
        return [FileState.of(plain) for plain in json.loads((self.folder / STATE).read_text())]

    def source_change(self) -> str | None:
        """The first file of its source that has changed since, None where all are as they were, or gone."""
        for state in self.source_states:
            if name := state.first_change():
                return str(Path(state.root) / name)
        return None

    def describes(self, split: Split) -> bool:
        """True if the rates and shares of `split` are those of this cache; they decide no pixels, and may change."""
        same = np.array_equal(self.hz, np.asarray(split.hz))
        return same and np.array_equal(self._weights, np.asarray(split.group_weights))

    def index_of(self, split: Split) -> dict[str, np.ndarray]:
        """The arrays of its index, with the rates and shares of `split`."""
        return {**self._index, "hz": np.asarray(split.hz), "group_weights": np.asarray(split.group_weights)}

    def frames(
        self, episode: int, ids: np.ndarray | None = None, size: Size | None = None, mode: str = "crop"
    ) -> np.ndarray:
        ids = frame_ids(ids, self.num_frames[episode])
        frames = self.packed[self.episode_start[episode] + ids]
        return frames if size is None else fit_frames(frames, size, mode)

    def gather(self, episodes: np.ndarray, ids: np.ndarray, size: Size | None = None, mode: str = "crop") -> np.ndarray:
        frames = np.take(self.packed, self.episode_start[episodes][:, None] + ids, axis=0)
        return frames if size is None else fit_frames(frames, size, mode)

    def size_of(self, episode: int) -> Size:
        return self.size

    def instruction(self, episode: int) -> str:
        return str(self._index["instruction"][episode])

    def episode_name(self, episode: int) -> str:
        return str(self._index["episode_name"][episode])

    @property
    def group(self) -> np.ndarray:
        return self._index["group"]

    @property
    def group_weights(self) -> np.ndarray:
        return self._weights


BROKEN_STATE = (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError)
"""Exceptions of `source_states` where a cache has no readable ones."""


def check(folder: Path, meta: dict, index: dict[str, np.ndarray]) -> None:
    """Raises ValueError where the parts of a cache do not fit together."""
    starts = index["episode_start"]
    if starts.dtype.kind not in "iu" or index["hz"].dtype.kind != "f":
        raise ValueError(f"{INDEX} does not fit together")
    lengths = {name: len(index[name]) for name in ("hz", "group", "instruction", "episode_name")}
    if starts.ndim != 1 or set(lengths.values()) != {len(starts) - 1} or starts[0] or (np.diff(starts) < 1).any():
        raise ValueError(f"{INDEX} does not fit together")
    if not np.isin(index["group"], np.arange(len(index["group_weights"]))).all() or not (index["hz"] > 0).all():
        raise ValueError(f"{INDEX} does not fit together")
    needed = int(starts[-1]) * int(meta["height"]) * int(meta["width"]) * 3
    if (folder / FRAMES).stat().st_size != needed:
        raise ValueError(f"{FRAMES} has another size than {needed} bytes")


def find_caches(path: Path) -> list[Path]:
    """The frame caches that `path` is, or holds as `path/SPLIT` (as `data cache` writes them)."""
    if (path / META).exists():
        return [path]
    return sorted(meta.parent for meta in path.glob(f"*/{META}") if not meta.parent.name.startswith("."))


def open_caches(path: Path, folders: list[Path], hz: float | None = None) -> Source:
    """hz: the rate of the frames, where it is another than when they were cached.

    A note tells where a cache's source has changed since. Raises UserError where two hold one split.
    """
    caches = sorted((FrameCache.open(folder) for folder in folders), key=lambda c: (c.name != "train", c.name))
    splits: dict[str, Split] = {}
    for cache in caches:
        if cache.name in splits:
            others = " and ".join(str(c.folder) for c in caches if c.name == cache.name)
            raise UserError(f"{others} both hold the split '{cache.name}': give one of these folders")
        if hz is not None:
            cache.hz = np.full(cache.num_episodes, hz)
        with contextlib.suppress(*BROKEN_STATE):
            if changed := cache.source_change():
                warn(f"{changed} has changed since {cache.folder} was made of it: rerun `data cache` to read it anew")
        splits[cache.name] = cache
    return Source(path.name, str(path), "cache", splits, "+".join(cache.fingerprint for cache in caches))
