"""A lock on a file, for one process at a time. The kernel releases it when its holder ends, however it ends."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO


@contextlib.contextmanager
def file_lock(path: Path, wait: bool = True) -> Iterator[IO[str]]:
    """Holds the lock on `path` in the block, and gives the open file. The file is made if needed, and it stays.

    wait: False refuses instead of waiting until the holder is done.

    On a file system without locks the block runs as if no other process did.

    Raises:
        BlockingIOError: another process holds the lock, and `wait` is False.
        OSError: the file cannot be opened for writing.
    """
    with path.open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            if not wait and error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise BlockingIOError(error.errno, error.strerror, str(path)) from None
        yield stream


def is_at(stream: IO, path: Path) -> bool:
    """True if an open file is still the one at `path`: its holder may have removed or renamed it before it unlocked."""
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except FileNotFoundError:
        return False
