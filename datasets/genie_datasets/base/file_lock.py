"""One process at a time: a lock that the kernel releases when its holder dies, however it dies."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import IO


@contextlib.contextmanager
def file_lock(path: Path) -> Iterator[IO[str]]:
    """Waits for its turn and gives the open file, which stays. Raises OSError.

    Where the file system knows no locks, it goes on as if alone.
    """
    with path.open("a") as stream:
        with contextlib.suppress(OSError):
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield stream
