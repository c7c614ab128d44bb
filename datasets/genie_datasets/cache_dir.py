"""Where indices of (possibly read-only) sources are kept, and how files get there whole or not at all."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from genie_datasets.errors import UserError

SAMPLED = 4096


def cache_dir() -> Path:
    """The user's cache directory for this package; GENIE_ROBOTICS_CACHE overrides it."""
    import platformdirs

    asked = os.environ.get("GENIE_ROBOTICS_CACHE")
    return Path(asked).expanduser() if asked else Path(platformdirs.user_cache_dir("genie_robotics"))


def fingerprint(root: Path, files: Iterable[Path], *keys: str) -> str:
    """A stable hash of a set of files: names below `root`, sizes, first and last 4 KB of each, and `keys`.

    The samples tell apart two data sets that were generated with the same names and happen to have the same sizes;
    reading every byte would take as long as the work that the fingerprint saves. Raises UserError where one cannot be
    read.
    """
    digest = hashlib.sha256("\0".join(keys).encode())
    for file in sorted(files):
        try:
            size = file.stat().st_size
            digest.update(f"\0{file.relative_to(root).as_posix()}\0{size}\0".encode())
            with file.open("rb") as stream:
                digest.update(stream.read(SAMPLED))
                stream.seek(max(0, size - SAMPLED))
                digest.update(stream.read(SAMPLED))
        except OSError as error:
            name = file.relative_to(root).as_posix()
            raise UserError(
                f"cannot read {file} ({error.strerror}): put that right, or leave it out with --exclude '{name}'"
            ) from None
    return digest.hexdigest()[:16]


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
