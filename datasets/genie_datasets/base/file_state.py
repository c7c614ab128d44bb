"""Size and time of change of a source's files: what tells that something made from them is out of date."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from genie_datasets.base.errors import UserError
from genie_datasets.base.globs import exclude_option, name_below


@dataclass(frozen=True)
class FileState:
    """The files of one source as they were when it was opened.

    It is kept WITH what is made from the files (frame caches, indices, token caches), beside their fingerprint: a
    fingerprint depends on contents, samples of large files, and stays the same where a data set is copied or moved;
    the state notices a change that the samples miss.
    """

    root: str
    files: dict[str, tuple[int, int]]
    """Path below root -> (bytes, time of change in nanoseconds)."""

    @classmethod
    def read(cls, root: Path, files: Iterable[Path]) -> "FileState":
        """Files that do not exist are left out. Raises UserError."""
        found = {}
        for file in files:
            name = name_below(root, file)
            try:
                info = os.stat(file)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise UserError(
                    f"cannot read {file} ({error.strerror}): make it readable, or leave it out with "
                    f"{exclude_option([name])}"
                ) from None
            found[name] = (info.st_size, info.st_mtime_ns)
        return cls(str(root.absolute()), dict(sorted(found.items())))

    def with_files(self, other: "FileState") -> "FileState":
        """The state of the files of both, below one root."""
        return FileState(self.root, dict(sorted({**self.files, **other.files}.items())))

    def part(self, files: Iterable[Path]) -> "FileState":
        """The state of some of these files."""
        names = sorted(name_below(Path(self.root), file.absolute()) for file in files)
        return FileState(self.root, {name: self.files[name] for name in names})

    @cached_property
    def digest(self) -> str:
        """16 hexadecimal digits; the place of the folder does not count."""
        rows = "\0".join(f"{name}\0{size}\0{time}" for name, (size, time) in self.files.items())
        return hashlib.sha256(rows.encode(errors="surrogateescape")).hexdigest()[:16]

    def check(self, file: Path) -> None:
        """Raises UserError where a file is not what it was when the source was opened."""
        name = file.absolute().relative_to(self.root).as_posix() if file.absolute().is_relative_to(self.root) else ""
        if (
            name in self.files
            and FileState.read(Path(self.root), [Path(self.root) / name]).files.get(name) != self.files[name]
        ):
            raise UserError(f"{file} has changed since it was opened: rerun the command")

    def first_change(self) -> str | None:
        """The first file that is not what it was. None where all are, or where the folder is gone."""
        root = Path(self.root)
        if not root.is_dir():
            return None
        now = FileState.read(root, [root / name for name in self.files])
        return next((name for name, state in self.files.items() if now.files.get(name) != state), None)

    def plain(self) -> dict[str, Any]:
        """For JSON; `FileState.of` reads it."""
        return {"root": self.root, "files": {name: list(state) for name, state in self.files.items()}}

    @classmethod
    def of(cls, plain: dict[str, Any]) -> "FileState":
        """Raises KeyError, TypeError or ValueError where it is something else."""
        return cls(str(plain["root"]), {str(k): (int(v[0]), int(v[1])) for k, v in dict(plain["files"]).items()})


def stamp_of(states: Sequence[FileState]) -> str:
    """One digest of several states."""
    return hashlib.sha256("\0".join(state.digest for state in states).encode()).hexdigest()[:16]
