"""The TFRecord shards of an unfinished data set: records are appended in order, and survive interruptions."""

import contextlib
import mmap
import os
from dataclasses import dataclass
from pathlib import Path

from genie_datasets.sources.rlds.tfrecord import DamagedRecord, record_spans
from genie_datasets.writers.tfds_folder import FRAMING, os_errors, tensorflow

NAME, VERSION = "tabletop", "1.0.0"
EPISODES_PER_SHARD = 200


def count_records(path: Path) -> int:
    """Count records by their lengths, without checksums; 0 if another process has renamed the file."""
    count = 0
    # mmap raises ValueError for an empty file.
    with contextlib.suppress(DamagedRecord, ValueError, FileNotFoundError), path.open("rb") as file:
        for _ in record_spans(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)):
            count += 1
    return count


def complete_records(path: Path) -> tuple[int, int]:
    """Count the records before the first damaged one, and their bytes in the file. Verifies both checksums."""
    tf = tensorflow()
    records = size = 0
    with os_errors():
        try:
            for record in tf.data.TFRecordDataset(str(path)):
                records += 1
                size += len(record.numpy()) + FRAMING
        except tf.errors.DataLossError:
            pass
    return records, size


@dataclass
class Shard:
    """One file and its number of episodes."""

    split: str
    path: Path
    capacity: int
    episodes: int = 0


class Shards:
    """The shards of all splits, filled one after another; lengths: split -> number of episodes."""

    def __init__(self, folder: Path, lengths: dict[str, int]):
        self._shards: list[Shard] = []
        for split, length in lengths.items():
            count = -(-length // EPISODES_PER_SHARD)
            for i in range(count):
                path = folder / f"{NAME}-{split}.tfrecord-{i:05d}-of-{count:05d}"
                capacity = min(EPISODES_PER_SHARD, length - i * EPISODES_PER_SHARD)
                self._shards.append(Shard(split, path, capacity))
        self._current = 0  # index of the shard that is being filled

    @property
    def episodes(self) -> int:
        """Number of episodes in the shards. They are the first ones of the data set."""
        return sum(shard.episodes for shard in self._shards)

    def recover(self) -> None:
        """Keep the records of an earlier run up to the first damaged one, and remove the rest."""
        for shard in self._shards:
            current = self._current_shard()
            if not shard.path.exists():
                continue
            if current is not shard:  # an earlier shard is not full
                shard.path.unlink()
                continue
            shard.episodes, size = complete_records(shard.path)
            if size < shard.path.stat().st_size:
                os.truncate(shard.path, size)

    def _current_shard(self) -> Shard:
        """The shard that is being filled; the next one if it is full."""
        if self._shards[self._current].episodes == self._shards[self._current].capacity:
            self._current += 1
        return self._shards[self._current]

    def append(self, record: bytes) -> None:
        """Append the next episode, framed as TFRecord. It then survives the end of this process."""
        shard = self._current_shard()
        with shard.path.open("ab") as file:
            file.write(record)
        shard.episodes += 1

    def sizes(self, split: str) -> tuple[list[int], int]:
        """Episodes of each shard of a split, and bytes of all its records without framing."""
        shards = [shard for shard in self._shards if shard.split == split]
        size = sum(shard.path.stat().st_size - FRAMING * shard.episodes for shard in shards)
        return [shard.episodes for shard in shards], size
