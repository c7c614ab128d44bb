"""Positioned reads from many shards with few open files: RT-1 has 1,024 shards, a process often 1,024 descriptors."""

import os
import struct
import threading
from collections import OrderedDict
from io import FileIO
from pathlib import Path

import google_crc32c

from genie_datasets.base.errors import UserError
from genie_datasets.sources.rlds.tfrecord import FOOTER, masked

MAX_OPEN = 64
CHUNK = 1 << 20  # bytes read at once for a checksum


class ShardFiles:
    """Thread-safe; survives pickling to workers, which open the files for themselves."""

    def __init__(self, paths: list[Path]):
        self.paths = paths
        self._start()

    def _start(self) -> None:
        self._open: OrderedDict[int, FileIO] = OrderedDict()
        self._lock = threading.Lock()

    def __getstate__(self) -> dict:
        return {"paths": self.paths}

    def __setstate__(self, state: dict) -> None:
        self.paths = state["paths"]
        self._start()

    def read(self, shard: int, offset: int, length: int) -> bytes:
        with self._lock:
            stream = self._open.pop(shard, None)
            if stream is None:
                try:
                    stream = self.paths[shard].open("rb", buffering=0)
                except OSError as error:
                    raise UserError(f"cannot open shard {self.paths[shard]} ({error.strerror}): put it back") from None
            self._open[shard] = stream
            if len(self._open) > MAX_OPEN:
                self._open.popitem(last=False)  # closed when the last reader drops it
        data = os.pread(stream.fileno(), length, offset)
        if len(data) < length:
            raise UserError(f"shard {self.paths[shard]} has become shorter since it was opened: rerun the command")
        return data

    def is_intact(self, shard: int, start: int, end: int) -> bool:
        """True if the record whose data lie at [start, end) has the checksum that it was written with."""
        found = 0
        for at in range(start, end, CHUNK):
            found = google_crc32c.extend(found, self.read(shard, at, min(CHUNK, end - at)))
        (stored,) = struct.unpack("<I", self.read(shard, end, FOOTER))
        return stored == masked(found)
