"""array_record shards, whose compressed records are read by number.

The index of TFRecord shards works here unchanged: a byte has the address `number of its record << 40 | position in it`.
"""

import threading
from pathlib import Path
from typing import Any

from genie_datasets.base.errors import UserError, first_line
from genie_datasets.base.globs import exclude_option
from genie_datasets.base.recent import RecentItems
from genie_datasets.sources.rlds.shard_files import ShardFiles
from genie_datasets.sources.rlds.tfrecord import DamagedRecord

BYTE_BITS = 40
KEEP = 4  # records and open files in memory; the frames of a clip are in one record
NO_READAHEAD = "readahead_buffer_size:0"


def is_array_record(shard: Path) -> bool:
    return ".array_record" in shard.name


def address(record: int, byte: int = 0) -> int:
    """The address of a byte of a record."""
    return record << BYTE_BITS | byte


def open_reader(shard: Path) -> Any:
    """An ArrayRecordReader. Raises DamagedRecord."""
    from array_record.python.array_record_module import ArrayRecordReader

    reader = ArrayRecordReader(str(shard), NO_READAHEAD)
    if not reader.ok():
        raise DamagedRecord("is not a complete array_record file")
    return reader


def read_record(reader: Any, number: int) -> bytes:
    """The bytes of one record. Raises DamagedRecord."""
    try:
        (data,) = reader.read([number])
    except (RuntimeError, ValueError, IndexError) as error:
        raise DamagedRecord(f"has a damaged record {number} ({first_line(error)})") from None
    if not reader.ok():
        raise DamagedRecord(f"has a damaged record {number}")
    return data


class ArrayRecordFiles(ShardFiles):
    """`ShardFiles` of array_record shards, in which an offset is an address."""

    def __init__(self, paths: list[Path]):
        super().__init__(paths)
        self._readers: RecentItems[Any] = RecentItems(KEEP)
        self._records: RecentItems[bytes] = RecentItems(KEEP)
        self._lock = threading.Lock()

    def read(self, shard: int, offset: int, length: int) -> bytes:
        number, byte = offset >> BYTE_BITS, offset & ((1 << BYTE_BITS) - 1)
        data = self._records.get((shard, number), lambda: self._record(int(shard), number))[byte : byte + length]
        if len(data) < length:
            raise UserError(f"shard {self.paths[shard]} has changed since it was opened: rerun the command")
        return data

    def is_intact(self, shard: int, start: int, end: int) -> bool:
        return True  # the reader compares checksums

    def _record(self, shard: int, number: int) -> bytes:
        path = self.paths[shard]
        try:
            with self._lock:  # readers are not known to be thread-safe
                return read_record(self._readers.get(shard, lambda: open_reader(path)), number)
        except DamagedRecord as error:
            raise UserError(
                f"shard {path} {error}: download it again, or leave it out with {exclude_option([path.name])}"
            ) from None
