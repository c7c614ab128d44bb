"""FrameCache: every frame decoded and fitted once, packed in one uint8 memory map. Training reads this.

A cache is a folder: `frames.u8` (N, H, W, 3), `index.npz` (per episode), `cache.json` (what it was made of).
"""

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import numpy as np

from genie_datasets.cores import num_cores
from genie_datasets.errors import UserError
from genie_datasets.fit import FIT_VERSION, Size, check_mode, fit_frames
from genie_datasets.split import Source, Split, frame_ids

META = "cache.json"


class FrameCache(Split):
    """A split whose frames are already decoded; it holds no truth. Open with `FrameCache.open(folder)`."""

    def __init__(self, folder: Path, meta: dict, index: dict[str, np.ndarray]):
        self.folder, self.meta, self._index = folder, meta, index
        self.name: str = meta["split"]
        self.fingerprint: str = meta["fingerprint"]
        self.size: Size = (meta["height"], meta["width"])
        self.mode: str = meta["mode"]
        self.hz = index["hz"]
        self.episode_start = index["episode_start"]  # (E+1,)
        self.num_frames = np.diff(self.episode_start)
        self.packed = self._map()  # (N, H, W, 3) uint8, read-only

    @classmethod
    def open(cls, folder: str | Path) -> "FrameCache":
        """Raises UserError when the folder holds no whole cache."""
        folder = Path(folder)
        try:
            meta = json.loads((folder / META).read_text())
            with np.load(folder / "index.npz") as arrays:
                return cls(folder, meta, dict(arrays))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{folder} is no frame cache ({error}): make one with `data cache SRC OUT`") from None

    def _map(self) -> np.ndarray:
        shape = (int(self.episode_start[-1]), *self.size, 3)
        return np.memmap(self.folder / "frames.u8", np.uint8, "r", shape=shape)

    def __getstate__(self) -> dict:  # a memory map would be pickled as its content
        return {k: v for k, v in self.__dict__.items() if k != "packed"}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self.packed = self._map()

    def frames(
        self, episode: int, ids: np.ndarray | None = None, size: Size | None = None, mode: str = "crop"
    ) -> np.ndarray:
        ids = frame_ids(ids, self.num_frames[episode])
        frames = self.packed[self.episode_start[episode] + ids]
        return frames if size is None else fit_frames(frames, size, mode)

    def gather(self, episodes: np.ndarray, ids: np.ndarray, size: Size | None = None, mode: str = "crop") -> np.ndarray:
        frames = np.take(self.packed, self.episode_start[episodes][:, None] + ids, axis=0)
        return frames if size is None else fit_frames(frames, size, mode)

    @property
    def image_size(self) -> Size:
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
        return self._index["group_weights"]


def cache_fingerprint(split: Split, size: Size, mode: str) -> str:
    return f"{split.fingerprint}/{split.name}/{size[0]}x{size[1]}-{mode}-v{FIT_VERSION}"


def build_frame_cache(
    split: Split | Sequence[Split], out_dir: str | Path, size: Size, mode: str = "crop", progress: bool = True
) -> FrameCache:
    """Decode a split (or several as one) into the folder `out_dir`, whole or not at all.

    A cache that is already there is used if it was made of the same files in the same way, and replaced if not.
    Raises UserError when the disk is too small, or `out_dir` holds something else.
    """
    check_mode(mode)
    if not isinstance(split, Split):
        from genie_datasets.mixture import MixedSplit

        split = split[0] if len(split) == 1 else MixedSplit(split[0].name, list(split), [1.0] * len(split))
    out_dir = Path(out_dir)
    mark = cache_fingerprint(split, size, mode)
    if (existing := _existing(out_dir)) and existing.fingerprint == mark:
        existing._index["group_weights"] = split.group_weights  # of a mixture: no matter of pixels
        return existing
    _check_disk(out_dir, int(split.num_frames.sum()) * size[0] * size[1] * 3)
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out_dir.name}.", suffix=".tmp", dir=out_dir.parent) as partial:
        _write(split, Path(partial) / "cache", size, mode, mark, progress)
        try:
            if existing:
                os.rename(out_dir, Path(partial) / "old")
            elif out_dir.exists():
                out_dir.rmdir()  # it was empty
            os.rename(Path(partial) / "cache", out_dir)
        except OSError:  # another process made it meanwhile
            if not (existing := _existing(out_dir)) or existing.fingerprint != mark:
                raise
    return FrameCache.open(out_dir)


def _existing(out_dir: Path) -> FrameCache | None:
    """The cache in `out_dir`, None if there is nothing; UserError if the folder is someone else's."""
    if (out_dir / META).exists():
        return FrameCache.open(out_dir)
    if out_dir.exists() and (not out_dir.is_dir() or any(out_dir.iterdir())):
        raise UserError(f"{out_dir} exists and is no frame cache: give another folder")
    return None


def _check_disk(out_dir: Path, needed: int) -> None:
    place = next(folder for folder in (out_dir, *out_dir.absolute().parents) if folder.exists())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise UserError(
            f"the frame cache needs {needed} bytes ({needed / 1e9:.1f} GB), {place} has {free} free: give a folder on "
            "a larger disk, or a smaller size"
        )


def _write(split: Split, folder: Path, size: Size, mode: str, mark: str, progress: bool) -> None:
    from tqdm import tqdm

    folder.mkdir()
    episodes = range(split.num_episodes)
    start = np.concatenate([[0], np.cumsum(split.num_frames)]).astype(np.int64)
    if not start[-1]:
        raise UserError(f"split '{split.name}' holds no frames: there is nothing to cache")
    packed = np.memmap(folder / "frames.u8", np.uint8, "w+", shape=(int(start[-1]), *size, 3))

    def fill(episode: int) -> int:
        packed[start[episode] : start[episode + 1]] = split.frames(episode, None, size, mode)
        return int(split.num_frames[episode])

    bar = tqdm(total=int(start[-1]), desc=f"decode {split.name}", unit="frame", disable=not progress, leave=False)
    # Threads are enough: the decoders release the interpreter's lock.
    with bar, ThreadPoolExecutor(num_cores()) as pool:
        jobs = [pool.submit(fill, episode) for episode in episodes]
        try:
            for job in as_completed(jobs):
                bar.update(job.result())
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    packed.flush()
    np.savez(
        folder / "index.npz",
        episode_start=start,
        hz=split.hz,
        group=split.group,
        group_weights=split.group_weights,
        instruction=np.array([split.instruction(e) for e in episodes]),
        episode_name=np.array([split.episode_name(e) for e in episodes]),
    )
    meta = {"split": split.name, "height": size[0], "width": size[1], "mode": mode, "fingerprint": mark}
    (folder / META).write_text(json.dumps(meta, indent=1))


def find_caches(path: Path) -> list[Path]:
    """The frame caches that `path` is, or holds as `path/SPLIT` (as `data cache` writes them)."""
    if (path / META).exists():
        return [path]
    return sorted(meta.parent for meta in path.glob(f"*/{META}"))


def open_caches(path: Path, folders: list[Path]) -> Source:
    caches = sorted((FrameCache.open(folder) for folder in folders), key=lambda c: (c.name != "train", c.name))
    splits: dict[str, Split] = {cache.name: cache for cache in caches}
    return Source(path.name, str(path), "cache", splits, "+".join(cache.fingerprint for cache in caches))
