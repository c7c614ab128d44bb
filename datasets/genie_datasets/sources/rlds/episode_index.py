"""EpisodeIndex: the place of every frame of a split in its unchanged shards. It is built once and memory-mapped."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from genie_datasets.base.cache_dir import cache_dir
from genie_datasets.base.file_lock import file_lock
from genie_datasets.base.files import atomic_file
from genie_datasets.base.mapped_npz import BROKEN, BrokenNpz, ChunkedArray, map_npz, write_npz
from genie_datasets.base.notes import warn
from genie_datasets.sources.rlds.index_shard import IndexSpec, ShardIndex
from genie_datasets.sources.rlds.index_workers import index_shards

INDEX_VERSION = 5


@dataclass
class EpisodeIndex:
    """Arrays of 12 bytes per frame and 32 per episode. The frames of an episode are in the shard of its record."""

    shards: np.ndarray  # (S,) file names
    record_shard: np.ndarray  # (E,) int32, number of the shard that holds the episode
    record_start: np.ndarray  # (E,) int64, first byte of its tf.train.Example
    record_end: np.ndarray  # (E,) int64
    record_number: np.ndarray  # (E,) int32, number of the episode in its shard
    episode_start: np.ndarray  # (E+1,) int64, first frame of each episode in the arrays below
    frame_offset: np.ndarray  # (F,) int64, byte offset of the encoded image in the shard
    frame_length: np.ndarray  # (F,) int32, bytes
    instructions: np.ndarray  # (I,) distinct instructions
    instruction_id: np.ndarray  # (E,) int32
    num_left_out: np.ndarray  # (1,) int64, episodes that the filter left out
    num_joined: np.ndarray  # (1,) int64, episodes with is_first set at a later step
    num_empty: np.ndarray  # (1,) int64, episodes without an image, which are left out
    num_retold: np.ndarray  # (1,) int64, episodes whose instruction changes
    damage: np.ndarray  # (D,) one line for each damaged thing that was skipped
    path: Path | None = None  # the file from which the arrays are mapped

    @property
    def num_frames(self) -> np.ndarray:
        return np.diff(self.episode_start)

    @cached_property
    def digest(self) -> str:
        """Digest of number, place, length and instruction of each episode, and of the length of every image."""
        found = hashlib.sha256("\0".join(self.instructions.tolist()).encode())
        for array in (self.record_shard, self.record_number, self.record_start, self.record_end, self.episode_start,
                      self.frame_length, self.instruction_id):  # fmt: skip
            found.update(np.ascontiguousarray(array).data)
        return found.hexdigest()[:16]

    @classmethod
    def load(cls, path: Path) -> "EpisodeIndex":
        """Maps an index. Raises one of `mapped_npz.BROKEN`."""
        try:
            return cls.from_arrays(map_npz(path), path)
        except BROKEN:
            raise
        except Exception as error:  # a damaged header may claim anything
            raise BrokenNpz(f"{path.name} is damaged: {error!r}") from None

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray], path: Path | None = None) -> "EpisodeIndex":
        known: dict[str, Any] = {field.name: arrays[field.name] for field in fields(cls) if field.name != "path"}
        return cls(**known, path=path)

    def __reduce__(self):  # because a memory map would be pickled as its content
        if self.path is not None:
            return EpisodeIndex.load, (self.path,)
        return EpisodeIndex, tuple(getattr(self, field.name) for field in fields(self))


def load_or_build(shards: list[Path], spec: IndexSpec, key: str, lengths: dict[str, int]) -> EpisodeIndex:
    """The index of a split's shards, from the user's cache directory if it was built before.

    key: changes with the shards and with how they are read.
    lengths: episodes per shard name, as far as the metadata of the data set states them.

    Raises:
        UserError: a shard is damaged. The results of other shards are kept, and the next call resumes.
    """
    path = cache_dir() / "index" / f"v{INDEX_VERSION}-{key}.npz"
    try:
        return EpisodeIndex.load(path)
    except BROKEN:
        pass
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with file_lock(path.with_suffix(".lock")):
            try:
                return EpisodeIndex.load(path)  # another process has built it
            except BROKEN:
                build(path, shards, spec, lengths)
        return EpisodeIndex.load(path)
    except OSError as error:
        warn(
            f"cannot keep the index in {path.parent} ({error.strerror}), so it is built at every start: set "
            "GENIE_ROBOTICS_CACHE to a writable folder"
        )
        with index_shards(shards, spec, lengths, None) as read:
            arrays = combine(shards, read)
            whole = {
                name: np.concatenate([*array.chunks]) if isinstance(array, ChunkedArray) else array
                for name, array in arrays.items()
            }
            return EpisodeIndex.from_arrays(whole)


def build(path: Path, shards: list[Path], spec: IndexSpec, lengths: dict[str, int]) -> None:
    """Reads every shard and writes the index to `path`. Raises UserError, OSError."""
    with index_shards(shards, spec, lengths, path.with_suffix(".parts")) as read, atomic_file(path) as stream:
        write_npz(stream, combine(shards, read))


def combine(shards: Sequence[Path], read: Callable[[int], ShardIndex]) -> dict[str, np.ndarray | ChunkedArray]:
    """The arrays of an index made from those of its shards, of which one at a time is in memory."""
    numbers = range(len(shards))
    instructions: dict[str, int] = {}
    rows: list[np.ndarray] = []
    num_frames: list[np.ndarray] = []
    damage: list[str] = []
    counts = dict.fromkeys(("num_left_out", "num_joined", "num_empty", "num_retold"), 0)
    for number in numbers:
        part = read(number)
        ids = [instructions.setdefault(text, len(instructions)) for text in part.instructions.tolist()]
        shard = np.full(len(ids), number)
        rows.append(
            np.stack([shard, part.record_start, part.record_end, part.record_number, np.array(ids, np.int64)], 1)
        )
        num_frames.append(part.num_frames)
        damage += part.damage.tolist()
        for name in counts:
            counts[name] += int(getattr(part, name))
    table = np.concatenate([np.zeros((0, 5), np.int64), *rows])
    lengths = np.concatenate([np.zeros(0, np.int64), *num_frames])
    total = (int(lengths.sum()),)

    def frames(name: str) -> Iterable[np.ndarray]:
        return (getattr(read(number), name) for number in numbers)

    small: dict[str, np.ndarray | ChunkedArray] = {
        "shards": np.array([shard.name for shard in shards]),
        "record_shard": table[:, 0].astype(np.int32),
        "record_start": table[:, 1],
        "record_end": table[:, 2],
        "record_number": table[:, 3].astype(np.int32),
        "episode_start": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        "instructions": np.array(list(instructions) or [""]),
        "instruction_id": table[:, 4].astype(np.int32),
        **{name: np.array([count]) for name, count in counts.items()},
        "damage": np.array(damage, str),
    }
    return small | {
        "frame_offset": ChunkedArray(np.dtype(np.int64), total, frames("frame_offset")),
        "frame_length": ChunkedArray(np.dtype(np.int32), total, frames("frame_length")),
    }
