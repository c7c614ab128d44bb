"""Size and modification time of a source's files, by which something made from them is known to be out of date."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from genie_datasets.base.cache_dir import unreadable
from genie_datasets.base.errors import UserError
from genie_datasets.base.globs import name_below


@dataclass(frozen=True)
class FileState:
    """The files of one source as they were when it was opened.

    It is kept with what is made from the files (frame caches, indices, token caches), next to their fingerprint. The
    fingerprint depends on contents, of which it samples large files, and stays the same for a copy of a data set; the
    state notices the changes that the samples miss.
    """

    root: str
    files: dict[str, tuple[int, int]]
    """Path below root -> (bytes, modification time in nanoseconds)."""

    @classmethod
    def read(cls, root: Path, files: Iterable[Path]) -> "FileState":
        """The state of these files now; absent ones are skipped. Raises UserError."""
        found = {}
        for file in files:
            name = name_below(root, file)
            try:
                info = os.stat(file)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise unreadable(file, name, error) from None
            found[name] = (info.st_size, info.st_mtime_ns)
        return cls(str(root.absolute()), dict(sorted(found.items())))

    def merged(self, other: "FileState") -> "FileState":
        """The state of the files of both, below one root."""
        return FileState(self.root, dict(sorted({**self.files, **other.files}.items())))

    def subset(self, files: Iterable[Path]) -> "FileState":
        """The state of some of these files."""
        names = sorted(name_below(Path(self.root), file.absolute()) for file in files)
        return FileState(self.root, {name: self.files[name] for name in names})

    @cached_property
    def digest(self) -> str:
        """16 hexadecimal digits, which do not depend on where the folder is."""
        rows = "\0".join(f"{name}\0{size}\0{time}" for name, (size, time) in self.files.items())
        return hashlib.sha256(rows.encode(errors="surrogateescape")).hexdigest()[:16]

    def check(self, file: Path) -> None:
        """Raises UserError if a file has changed since the source was opened."""
        name = file.absolute().relative_to(self.root).as_posix() if file.absolute().is_relative_to(self.root) else ""
        if name in self.files and self._now([name]).get(name) != self.files[name]:
            raise UserError(f"{file} has changed since it was opened: rerun the command")

    def first_change(self) -> str | None:
        """The first file that has changed; None if none has, or if the folder is gone."""
        if not Path(self.root).is_dir():
            return None
        now = self._now(self.files)
        return next((name for name, state in self.files.items() if now.get(name) != state), None)

    def _now(self, names: Iterable[str]) -> dict[str, tuple[int, int]]:
        root = Path(self.root)
        return FileState.read(root, [root / name for name in names]).files

    def to_json(self) -> dict[str, Any]:
        """A form for JSON, which `from_json` reads."""
        return {"root": self.root, "files": {name: list(state) for name, state in self.files.items()}}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "FileState":
        """Raises KeyError, TypeError or ValueError if `content` is something else."""
        return cls(str(content["root"]), {str(k): (int(v[0]), int(v[1])) for k, v in dict(content["files"]).items()})


def combined_digest(states: Sequence[FileState]) -> str:
    """One digest of several states."""
    return hashlib.sha256("\0".join(state.digest for state in states).encode()).hexdigest()[:16]
