"""Walks folders as a user sees them: links to folders are followed, and each real folder is entered once."""

import os
from collections import Counter, deque
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from genie_datasets.base.cache_dir import sample_digest
from genie_datasets.base.errors import UserError
from genie_datasets.base.notes import warn


def walk(root: Path, repeated: list[Path] | None = None) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Yields (folder, names of its subfolders, names of its files) like `os.walk`, in the order of names.

    Real folders come first, then the links to folders that were not entered yet: a folder that has a real path below
    `root` keeps it. A link to a folder that was entered, or that holds `root`, is not followed but added to `repeated`.
    Hidden folders are left out. Remove names from the yielded list of subfolders to skip them. A broken link counts as
    a file. Raises UserError if a folder cannot be read.
    """
    seen = {_identity(folder) for folder in (root, *root.resolve().parents)}
    waiting, links = [root], deque[Path]()
    while waiting or links:
        folder = waiting.pop() if waiting else links.popleft()
        is_link = folder.is_symlink() and folder != root
        if is_link and _identity(folder) in seen:
            if repeated is not None:
                repeated.append(folder)
            continue
        seen.add(_identity(folder))
        try:
            with os.scandir(folder) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            raise _unreadable(folder, error) from None
        subfolders = {entry.name: entry for entry in found if entry.is_dir() and not entry.name.startswith(".")}
        names = list(subfolders)
        yield folder, names, [entry.name for entry in found if not entry.is_dir()]
        for name in reversed(names):
            if subfolders[name].is_symlink():
                links.appendleft(folder / name)
            elif _identity(folder / name) not in seen:  # a folder mounted twice
                waiting.append(folder / name)


def find_files(root: Path, suffixes: Collection[str], notes: bool = False) -> list[Path]:
    """Every visible file below `root` with one of these suffixes, by path; notes: print notes about left out links."""
    repeated: list[Path] = []
    found = sorted(
        folder / name
        for folder, _, names in walk(root, repeated)
        for name in names
        if not name.startswith(".") and os.path.splitext(name)[1].lower() in suffixes
    )
    files = [path for path in found if path.is_file()]
    broken = [path for path in found if not path.exists()]
    if repeated and files and notes:
        warn(f"{first_of(repeated)} in {root} is left out: it links to a folder that is read already")
    if broken and notes:
        warn(f"{first_of(broken)} in {root} is left out: the link is broken")
    return files


def note_copies(files: list[Path]) -> None:
    """Prints a note if files have the same size, beginning and end: they are copies, or links to one file."""
    alike: dict[tuple[int, bytes], list[Path]] = {}
    sizes = Counter(file.stat().st_size for file in files)
    for file in files:
        if sizes[file.stat().st_size] > 1 and file.stat().st_size:
            alike.setdefault(sample_digest(file), []).append(file)
    copies = [some for some in alike.values() if len(some) > 1]
    if copies:
        more = f" (and {len(copies) - 1} more such groups)" if len(copies) > 1 else ""
        warn(f"{' and '.join(map(str, copies[0][:2]))} seem to be the same file{more}: the episodes of each are read")


def first_of(paths: Sequence[Path | str]) -> str:
    """The first path, and the number of the others."""
    return f"{paths[0]}" + (f" (and {len(paths) - 1} more)" if len(paths) > 1 else "")


def _identity(folder: Path) -> tuple[int, int]:
    try:
        found = folder.stat()
    except OSError as error:
        raise _unreadable(folder, error) from None
    return found.st_dev, found.st_ino


def _unreadable(folder: Path, error: OSError) -> UserError:
    return UserError(f"cannot read the folder {folder} ({error.strerror}): make it readable")
