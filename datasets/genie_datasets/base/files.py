"""Files that appear whole or not at all, and folders that can be written."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from genie_datasets.base.errors import UserError


@contextlib.contextmanager
def atomic_file(path: Path, durable: bool = False) -> Iterator[IO[bytes]]:
    """`with atomic_file(path) as stream:` writes a file that appears at `path` when the block ends without an error.

    The bytes go to a temporary file in the same folder, whose name holds the process id: several processes may write
    the same file, and the last one wins. The folder is made if needed.

    durable: the file survives a power failure after the block. The temporary file is `path` + ".tmp", so what a killed
        process left is overwritten by the next; one process at a time may write.

    Raises:
        OSError: the file cannot be written; an old file at `path` is unchanged.
    """
    temporary = path.with_name(f"{path.name}.tmp" if durable else f".{path.name}.{os.getpid()}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with temporary.open("wb") as stream:
            yield stream
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a whole file, durably. Raises UserError where that is not possible; an old file is unchanged then."""
    try:
        with atomic_file(path, durable=True) as stream:
            stream.write(content)
    except OSError as error:
        raise unwritable(path, error) from None


def unwritable(path: Path, error: OSError) -> UserError:
    """The error of a file or folder that cannot be written."""
    return UserError(
        f"cannot write {path} ({error.strerror or error}): free disk space, or choose a folder that can be written"
    )


def sync_folder(folder: Path) -> None:
    """Makes what was created, renamed or removed in a folder survive a power failure. Raises OSError."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: str | Path) -> Path:
    """Makes the folder of an option --out, and checks that files can be written in it. Raises UserError."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except (OSError, ValueError) as error:
        reason = "it is a file" if folder.is_file() else getattr(error, "strerror", None) or error
        raise UserError(f"{folder} cannot be made or written ({reason}); choose another folder with --out") from None
