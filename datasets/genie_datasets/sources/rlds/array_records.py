"""array_record shards: records by number, compressed. Their bytes are addressed as if they lay in one file.

address = number of the record << 40 | byte within it, so that the index of TFRecord shards serves here unchanged.
"""

from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from genie_datasets.base.errors import UserError
from genie_datasets.base.globs import exclude_option
from genie_datasets.sources.rlds.shard_files import ShardFiles
from genie_datasets.sources.rlds.tfrecord import DamagedRecord

BYTE_BITS = 40
KEEP = 4  # records that were read last: the frames of a clip are of one
NO_READAHEAD = "readahead_buffer_size:0"


def is_array_record(shard: Path) -> bool:
    return ".array_record" in shard.name


def address(record: int, byte: int = 0) -> int:
    return record << BYTE_BITS | byte


def open_reader(shard: Path) -> Any:
    from array_record.python.array_record_module import ArrayRecordReader

    reader = ArrayRecordReader(str(shard), NO_READAHEAD)
    if not reader.ok():
        raise DamagedRecord("is not a whole array_record file")
    return reader


def read_record(reader: Any, number: int) -> bytes:
    try:
        (data,) = reader.read([number])
    except (RuntimeError, ValueError, IndexError) as error:
        reason = (str(error).splitlines() or [""])[0][:120]
        raise DamagedRecord(f"has a damaged record {number} ({reason})") from None
    if not reader.ok():
        raise DamagedRecord(f"has a damaged record {number}")
    return data


def records(shard: Path) -> Iterator[tuple[int, bytes]]:
    """Yield (number, data) of each record in order; raises DamagedRecord."""
    reader = open_reader(shard)
    try:
        for number in range(reader.num_records()):
            yield number, read_record(reader, number)
    finally:
        reader.close()


class ArrayRecordFiles(ShardFiles):
    """`ShardFiles` of array_record shards: the same bytes under addresses as above."""

    def _start(self) -> None:
        super()._start()
        self._readers: OrderedDict[int, Any] = OrderedDict()
        self._kept: OrderedDict[tuple[int, int], bytes] = OrderedDict()

    def read(self, shard: int, offset: int, length: int) -> bytes:
        number, byte = offset >> BYTE_BITS, offset & ((1 << BYTE_BITS) - 1)
        data = self._record(int(shard), number)[byte : byte + length]
        if len(data) < length:
            raise UserError(f"shard {self.paths[shard]} has changed since it was opened: rerun the command")
        return data

    def is_intact(self, shard: int, start: int, end: int) -> bool:
        return True  # its reader compares checksums by itself

    def _record(self, shard: int, number: int) -> bytes:
        with self._lock:
            if (shard, number) not in self._kept:
                try:
                    if shard not in self._readers:
                        self._readers[shard] = open_reader(self.paths[shard])
                    self._kept[shard, number] = read_record(self._readers[shard], number)
                except DamagedRecord as error:
                    name = self.paths[shard]
                    raise UserError(
                        f"shard {name} {error}: download it again, or leave it out with {exclude_option([name.name])}"
                    ) from None
                while len(self._readers) > KEEP:
                    self._readers.popitem(last=False)[1].close()
            self._kept.move_to_end((shard, number))
            while len(self._kept) > KEEP:
                self._kept.popitem(last=False)
            return self._kept[shard, number]
