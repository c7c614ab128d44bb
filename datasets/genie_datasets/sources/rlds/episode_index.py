"""EpisodeIndex: where every frame of one split lies in its unchanged shards. Built once, then mapped, never loaded."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from genie_datasets.base.cache_dir import AtomicFile, cache_dir
from genie_datasets.base.file_lock import file_lock
from genie_datasets.base.mapped_npz import BROKEN, BrokenNpz, Pieces, map_npz, write_npz
from genie_datasets.sources.rlds.index_shard import ShardIndex, Wanted
from genie_datasets.sources.rlds.index_workers import index_shards

INDEX_VERSION = 5


@dataclass
class EpisodeIndex:
    """12 bytes a frame and 32 an episode. Frames of an episode lie in the shard of its record."""

    shards: np.ndarray  # (S,) file names
    record_shard: np.ndarray  # (E,) int32, which shard holds the episode
    record_start: np.ndarray  # (E,) int64, where its tf.train.Example begins
    record_end: np.ndarray  # (E,) int64
    record_number: np.ndarray  # (E,) int32, the episode's number within its shard
    episode_start: np.ndarray  # (E+1,) int64, first frame of each episode in the arrays below
    frame_offset: np.ndarray  # (F,) int64, byte offset of the encoded image in its shard
    frame_length: np.ndarray  # (F,) int32, bytes
    instructions: np.ndarray  # (I,) distinct instructions
    instruction_id: np.ndarray  # (E,) int32
    num_left_out: np.ndarray  # (1,) int64, episodes that the filter left out
    num_joined: np.ndarray  # (1,) int64, episodes in which a later step says that it is the first
    num_empty: np.ndarray  # (1,) int64, episodes without an image, which are left out
    num_retold: np.ndarray  # (1,) int64, episodes whose instruction changes
    damage: np.ndarray  # (D,) what was skipped as damaged, a line each
    path: Path | None = None  # the file that the arrays are mapped from

    @property
    def num_frames(self) -> np.ndarray:
        return np.diff(self.episode_start)

    @property
    def num_filtered(self) -> int:
        return int(self.num_left_out.sum())

    @cached_property
    def digest(self) -> str:
        """Digest of the episodes: number, place, length and instruction of each, and the length of every image."""
        found = hashlib.sha256("\0".join(self.instructions.tolist()).encode())
        for array in (self.record_shard, self.record_number, self.record_start, self.record_end, self.episode_start,
                      self.frame_length, self.instruction_id):  # fmt: skip
            found.update(np.ascontiguousarray(array).data)
        return found.hexdigest()[:16]

    @classmethod
    def load(cls, path: Path) -> "EpisodeIndex":
        """Raises one of `mapped_npz.BROKEN`."""
        try:
            return cls.of(map_npz(path), path)
        except BROKEN:
            raise
        except Exception as error:  # a damaged header may claim anything
            raise BrokenNpz(f"{path.name} is damaged: {error!r}") from None

    @classmethod
    def of(cls, arrays: dict[str, np.ndarray], path: Path | None = None) -> "EpisodeIndex":
        known: dict[str, Any] = {field.name: arrays[field.name] for field in fields(cls) if field.name != "path"}
        return cls(**known, path=path)

    def __reduce__(self):  # a memory map would be pickled as its content
        if self.path is not None:
            return EpisodeIndex.load, (self.path,)
        return EpisodeIndex, tuple(getattr(self, field.name) for field in fields(self))


def load_or_build(shards: list[Path], wanted: Wanted, key: str, lengths: dict[str, int]) -> EpisodeIndex:
    """The index of a split's shards, from the user's cache directory if it was built before.

    key: of the shards and how they are read; it changes when they do.
    lengths: episodes per shard name as the data set's own metadata states them, where it does.

    Raises:
        UserError: a shard is damaged; what other shards hold is kept, so the next call goes on there.
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
                return EpisodeIndex.load(path)  # another process built it meanwhile
            except BROKEN:
                build(path, shards, wanted, lengths)
        return EpisodeIndex.load(path)
    except OSError as error:  # works without; only the next start takes as long again
        from genie_datasets.base.notes import warn

        warn(
            f"cannot keep the index in {path.parent} ({error.strerror}); set GENIE_ROBOTICS_CACHE to a writable folder"
        )
        with index_shards(shards, wanted, lengths, None) as read:
            return EpisodeIndex.of({name: np.concatenate([*a.pieces]) for name, a in joined(shards, read).items()})


def build(path: Path, shards: list[Path], wanted: Wanted, lengths: dict[str, int]) -> None:
    """Walks every shard, several at once, and writes the index to `path`. Raises UserError, OSError."""
    with (
        index_shards(shards, wanted, lengths, path.with_suffix(".parts")) as read,
        AtomicFile(path) as stream,
    ):
        write_npz(stream, joined(shards, read))


def joined(shards: Sequence[Path], read: Callable[[int], ShardIndex]) -> dict[str, Pieces]:
    """The arrays of an index out of those of its shards, of which one at a time is in memory."""
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

    small = {
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
    return {name: Pieces.whole(array) for name, array in small.items()} | {
        "frame_offset": Pieces(np.dtype(np.int64), total, frames("frame_offset")),
        "frame_length": Pieces(np.dtype(np.int32), total, frames("frame_length")),
    }
