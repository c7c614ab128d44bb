"""The TFRecord shards of a data set under way: records are appended in order, and after a cut the whole ones count."""

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
    """The number of records in a file, by their lengths alone: quick, without TensorFlow.

    None in a file that has gone: another process, which may be writing here, renamed it.
    """
    count = 0
    # ValueError: an empty file
    with contextlib.suppress(DamagedRecord, ValueError, FileNotFoundError), path.open("rb") as file:
        for _ in record_spans(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)):
            count += 1
    return count


def whole_records(path: Path) -> tuple[int, int]:
    """(records, their bytes in the file) up to the first torn or damaged one; both checksums are verified."""
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
    """One file, and how many episodes it holds."""

    split: str
    path: Path
    capacity: int
    episodes: int = 0


class Shards:
    """The shards of all splits, filled one after another. `lengths` maps each split to its number of episodes."""

    def __init__(self, folder: Path, lengths: dict[str, int]):
        self._shards: list[Shard] = []
        for split, length in lengths.items():
            count = -(-length // EPISODES_PER_SHARD)
            for i in range(count):
                path = folder / f"{NAME}-{split}.tfrecord-{i:05d}-of-{count:05d}"
                capacity = min(EPISODES_PER_SHARD, length - i * EPISODES_PER_SHARD)
                self._shards.append(Shard(split, path, capacity))
        self._at = 0  # the shard being filled

    @property
    def episodes(self) -> int:
        """How many are in the shards: the first ones of the data set."""
        return sum(shard.episodes for shard in self._shards)

    def recover(self) -> None:
        """Takes over what an earlier run wrote, up to the first record that is not whole; the rest is cut off."""
        for shard in self._shards:
            if self._shards[self._at].episodes == self._shards[self._at].capacity:
                self._at += 1
            if not shard.path.exists():
                continue
            if self._shards[self._at] is not shard:  # an earlier shard has a gap
                shard.path.unlink()
                continue
            shard.episodes, size = whole_records(shard.path)
            if size < shard.path.stat().st_size:
                os.truncate(shard.path, size)

    def append(self, record: bytes) -> None:
        """Appends the next episode, framed as TFRecord; when this returns, the death of the process cannot lose it."""
        if self._shards[self._at].episodes == self._shards[self._at].capacity:
            self._at += 1
        shard = self._shards[self._at]
        with shard.path.open("ab") as file:
            file.write(record)
        shard.episodes += 1

    def of(self, split: str) -> tuple[list[int], int]:
        """(episodes of each shard, bytes of all their records without framing) of a split."""
        shards = [shard for shard in self._shards if shard.split == split]
        size = sum(shard.path.stat().st_size - FRAMING * shard.episodes for shard in shards)
        return [shard.episodes for shard in shards], size
