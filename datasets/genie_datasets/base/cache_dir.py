"""The user's cache directory, and the fingerprints that name what is kept there."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from genie_datasets.base.errors import UserError
from genie_datasets.base.globs import exclude_option, name_below

SAMPLE_BYTES = 4096
READERS_VERSION = "readers-2"
"""Part of every fingerprint: raise it when readers give other frames or instructions for the same files."""


def cache_dir() -> Path:
    """The user's cache directory for this package; GENIE_ROBOTICS_CACHE overrides it."""
    import platformdirs

    chosen = os.environ.get("GENIE_ROBOTICS_CACHE")
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("genie_robotics"))


def fingerprint(root: Path, files: Iterable[Path], *keys: str, metadata: Iterable[Path] = ()) -> str:
    """A stable hash of all that decides which frames and instructions a source gives: 16 hexadecimal digits.

    files: data files, hashed by name below `root`, size, and the first and last 4 KB. These samples distinguish data
        sets that were generated with the same names and happen to have the same sizes. Reading every byte would take as
        long as the work that the fingerprint saves; `FileState` notices the changes that the samples miss.
    metadata: files that are hashed whole; absent ones are skipped.
    keys: how the files are read.

    Raises UserError if a file cannot be read.
    """
    digest = hashlib.sha256("\0".join((READERS_VERSION, *keys)).encode(errors="surrogateescape"))

    def add(file: Path, num_bytes: int | None) -> None:
        name = name_below(root, file)
        try:
            size = file.stat().st_size
            digest.update(f"\0{name}\0{size}\0".encode(errors="surrogateescape"))
            with file.open("rb") as stream:
                digest.update(stream.read(-1 if num_bytes is None else num_bytes))
                if num_bytes is not None:
                    stream.seek(max(0, size - num_bytes))
                    digest.update(stream.read(num_bytes))
        except OSError as error:
            raise unreadable(file, name, error) from None

    for file in sorted(files):
        add(file, SAMPLE_BYTES)
    digest.update(b"\0\0metadata")
    for file in sorted(metadata):
        if file.exists():
            add(file, None)
    return digest.hexdigest()[:16]


def unreadable(file: Path, name: str, error: OSError) -> UserError:
    """The error of a file that cannot be read; name: of the file below the root of its source."""
    reason = error.strerror or error
    return UserError(f"cannot read {file} ({reason}): make it readable, or leave it out with {exclude_option([name])}")


def sample_digest(file: Path) -> tuple[int, bytes]:
    """Size, and a digest of the first and last 4 KB: equal for copies, and almost never for other files."""
    with file.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        first = stream.read(SAMPLE_BYTES)
        stream.seek(max(0, size - SAMPLE_BYTES))
        return size, hashlib.sha256(first + stream.read(SAMPLE_BYTES)).digest()
