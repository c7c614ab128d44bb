"""One process trains a run folder at a time."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from genie_datasets.base.errors import UserError


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Holds RUN/state/lock; a killed process lets go of it.

    Raises:
        UserError: another process trains in this folder, or the folder cannot be written.
    """
    path = run / "state" / "lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise UserError(f"cannot write into the run folder {run}: {error.strerror}; choose another") from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"another process is training {run}; wait for it, or choose another folder") from None
        yield
    finally:
        os.close(handle)
