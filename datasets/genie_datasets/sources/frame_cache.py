"""FrameCache: every frame decoded and fitted once, packed in one uint8 memory map, from which training reads.

A cache is a folder: `frames.u8` (N, H, W, 3), `index.npz` (per episode), `cache.json` (its fingerprint and size) and
`source.json` (size and modification time of every file of its source).
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
from genie_datasets.sources.split import Ids, Source, Split, frame_ids

META, INDEX, FRAMES, STATE = "cache.json", "index.npz", "frames.u8", "source.json"
CACHE_VERSION = 2


class FrameCache(Split):
    """A split whose frames are decoded already; it holds no true motion. Open it with `FrameCache.open(folder)`."""

    def __init__(self, folder: Path, meta: dict, index: dict[str, np.ndarray]):
        if not isinstance(meta, dict) or not isinstance(meta.get("split"), str):
            raise ValueError(f"{META} does not describe a frame cache")
        if meta.get("version") != CACHE_VERSION:
            raise ValueError("an earlier version made it, and its readers could give other frames")
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
        _check(folder, meta, index)
        self.packed = self._map()  # (N, H, W, 3) uint8, read-only

    @classmethod
    def open(cls, folder: str | Path) -> "FrameCache":
        """Opens the cache in a folder. Raises UserError unless it is complete."""
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
        """The files of the source when the cache was made. Raises one of `BROKEN_STATE`."""
        return [FileState.from_json(state) for state in json.loads((self.folder / STATE).read_text())]

    def describes(self, split: Split) -> bool:
        """True if `split` has the rates and group weights of this cache, which may change without changing pixels."""
        same = np.array_equal(self.hz, np.asarray(split.hz))
        return same and np.array_equal(self._weights, np.asarray(split.group_weights))

    def index_of(self, split: Split) -> dict[str, np.ndarray]:
        """The arrays of `index.npz`, with the rates and group weights of `split`."""
        return {**self._index, "hz": np.asarray(split.hz), "group_weights": np.asarray(split.group_weights)}

    def frames(self, episode: int, ids: Ids = None, size: Size | None = None, mode: str = "crop") -> np.ndarray:
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
"""The exceptions of `source_states` if `source.json` is missing or damaged."""


def _check(folder: Path, meta: dict, index: dict[str, np.ndarray]) -> None:
    """Raises ValueError if the files of a cache are not consistent."""
    starts, hz, group = index["episode_start"], index["hz"], index["group"]
    lengths = {len(index[name]) for name in ("hz", "group", "instruction", "episode_name")}
    if (
        starts.dtype.kind not in "iu"
        or hz.dtype.kind != "f"
        or starts.ndim != 1
        or lengths != {len(starts) - 1}
        or starts[0]
        or (np.diff(starts) < 1).any()
        or not np.isin(group, np.arange(len(index["group_weights"]))).all()
        or not (hz > 0).all()
    ):
        raise ValueError(f"{INDEX} is not consistent")
    needed = int(starts[-1]) * int(meta["height"]) * int(meta["width"]) * 3
    if (found := (folder / FRAMES).stat().st_size) != needed:
        raise ValueError(f"{FRAMES} has {found} bytes, expected {needed}")


def find_caches(path: Path) -> list[Path]:
    """`path` if it is a frame cache, else the frame caches `path/SPLIT`, as `data cache` writes them."""
    if (path / META).exists():
        return [path]
    return sorted(meta.parent for meta in path.glob(f"*/{META}") if not meta.parent.name.startswith("."))


def open_caches(path: Path, folders: list[Path], hz: float | None = None) -> Source:
    """Opens frame caches, one per split; hz: replaces their rate. Raises UserError if two hold the same split."""
    caches = sorted((FrameCache.open(folder) for folder in folders), key=lambda c: (c.name != "train", c.name))
    splits: dict[str, Split] = {}
    for cache in caches:
        if cache.name in splits:
            others = " and ".join(str(c.folder) for c in caches if c.name == cache.name)
            raise UserError(f"{others} both hold the split '{cache.name}': give one of these folders")
        if hz is not None:
            cache.hz = np.full(cache.num_episodes, hz)
        with contextlib.suppress(*BROKEN_STATE):
            for state in cache.source_states:
                if name := state.first_change():
                    file = Path(state.root) / name
                    warn(f"{file} has changed since {cache.folder} was made from it: rerun `data cache` to update it")
                    break
        splits[cache.name] = cache
    return Source(path.name, str(path), "cache", splits, "+".join(cache.fingerprint for cache in caches))
