"""Where indices of (possibly read-only) sources are kept, and how files get there whole or not at all."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from genie_datasets.base.errors import UserError
from genie_datasets.base.globs import exclude_option, name_below

SAMPLED = 4096
READERS_VERSION = "readers-2"
"""Part of every fingerprint: raise it when readers give other frames or words of the same files."""


def cache_dir() -> Path:
    """The user's cache directory for this package; GENIE_ROBOTICS_CACHE overrides it."""
    import platformdirs

    asked = os.environ.get("GENIE_ROBOTICS_CACHE")
    return Path(asked).expanduser() if asked else Path(platformdirs.user_cache_dir("genie_robotics"))


def fingerprint(root: Path, files: Iterable[Path], *keys: str, metadata: Iterable[Path] = ()) -> str:
    """A stable hash of what decides which pixels and words come out of a source: 16 hexadecimal digits.

    files: data files, by name below `root`, size, and the first and last 4 KB. The samples tell apart two data sets
        that were generated with the same names and happen to have the same sizes; reading every byte would take as long
        as the work that the fingerprint saves. A change that they miss is noticed by `FileState`.
    metadata: files that count whole; those that do not exist are left out.
    keys: how the files are read.

    Raises UserError where a file cannot be read.
    """
    digest = hashlib.sha256("\0".join((READERS_VERSION, *keys)).encode(errors="surrogateescape"))

    def add(file: Path, most: int | None) -> None:
        name = name_below(root, file)
        try:
            size = file.stat().st_size
            digest.update(f"\0{name}\0{size}\0".encode(errors="surrogateescape"))
            with file.open("rb") as stream:
                digest.update(stream.read(-1 if most is None else most))
                if most is not None:
                    stream.seek(max(0, size - most))
                    digest.update(stream.read(most))
        except OSError as error:
            raise UserError(
                f"cannot read {file} ({error.strerror}): make it readable, or leave it out with "
                f"{exclude_option([name])}"
            ) from None

    for file in sorted(files):
        add(file, SAMPLED)
    digest.update(b"\0\0metadata")
    for file in sorted(metadata):
        if file.exists():
            add(file, None)
    return digest.hexdigest()[:16]


def sample(file: Path) -> tuple[int, bytes]:
    """Size, and a digest of the first and last 4 KB: equal for copies, and almost only for them."""
    with file.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        first = stream.read(SAMPLED)
        stream.seek(max(0, size - SAMPLED))
        return size, hashlib.sha256(first + stream.read(SAMPLED)).digest()


class AtomicFile:
    """`with AtomicFile(path) as stream:` -> the file appears at `path` whole when the block ends without an error."""

    def __init__(self, path: Path):
        self.path = path
        self.partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")

    def __enter__(self):
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.stream = self.partial.open("wb")
        return self.stream

    def __exit__(self, kind, *_):
        self.stream.close()
        if kind is None:
            os.replace(self.partial, self.path)
        else:
            self.partial.unlink(missing_ok=True)
