"""Columns of an npz file. Nothing is unpickled."""

import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from genie_datasets.base.errors import UserError


class NpzColumns(Mapping[str, np.ndarray]):
    """The arrays of an npz by name, each read when it is accessed."""

    def __init__(self, path: Path):
        self.path = path
        try:
            archive = np.load(path, allow_pickle=False)
        except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
            why = getattr(error, "strerror", None) or "not an npz, or damaged"
            raise UserError(f"{path} cannot be read as npz ({why}); write it with np.savez") from None
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise UserError(f"{path} is a single array, not an npz; write np.savez(path, codes=..., motion=...)")
        self.archive = archive

    def __enter__(self) -> "NpzColumns":
        return self

    def __exit__(self, *_: object) -> None:
        self.archive.close()

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.archive.files:
            raise KeyError(name)
        try:
            return self.archive[name]
        except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as e:
            if "allow_pickle" in str(e) or "Object arrays" in str(e):
                raise UserError(
                    f"{self.path}: '{name}' is an array of Python objects, which are not unpickled; save numbers, or "
                    "strings as np.array of str"
                ) from None
            why = "" if isinstance(e, ValueError) else f" ({short_reason(e)})"  # numpy's message advises to unpickle
            raise UserError(f"{self.path}: '{name}' cannot be read{why}; the file is damaged, write it again") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.archive.files)

    def __len__(self) -> int:
        return len(self.archive.files)


def short_reason(error: Exception) -> str:
    """The first line of an error message, at most 160 characters."""
    return (str(error).splitlines() or [type(error).__name__])[0][:160].rstrip(".") or type(error).__name__
