"""Reads from many shards with few open files: RT-1 has 1,024 shards, and a process often may open 1,024 files."""

import os
import struct
from io import FileIO
from pathlib import Path

import google_crc32c

from genie_datasets.base.errors import UserError
from genie_datasets.base.recent import RecentItems
from genie_datasets.sources.rlds.tfrecord import FOOTER, masked

MAX_OPEN = 64
CHUNK = 1 << 20  # bytes read at once for a checksum


class ShardFiles:
    """Reads bytes of shards; thread-safe. A pickled copy opens the files again."""

    def __init__(self, paths: list[Path]):
        self.paths = paths
        self._streams: RecentItems[FileIO] = RecentItems(MAX_OPEN)

    def __reduce__(self):
        return type(self), (self.paths,)

    def read(self, shard: int, offset: int, length: int) -> bytes:
        """Bytes of one shard. Raises UserError."""
        stream = self._streams.get(shard, lambda: self._open(shard))
        data = os.pread(stream.fileno(), length, offset)
        if len(data) < length:
            raise UserError(f"shard {self.paths[shard]} has become shorter since it was opened: rerun the command")
        return data

    def _open(self, shard: int) -> FileIO:
        try:
            return self.paths[shard].open("rb", buffering=0)
        except OSError as error:
            raise UserError(f"cannot open shard {self.paths[shard]} ({error.strerror}): restore it") from None

    def is_intact(self, shard: int, start: int, end: int) -> bool:
        """True if the data of the record at [start, end) match their checksum."""
        found = 0
        for at in range(start, end, CHUNK):
            found = google_crc32c.extend(found, self.read(shard, at, min(CHUNK, end - at)))
        (stored,) = struct.unpack("<I", self.read(shard, end, FOOTER))
        return stored == masked(found)
