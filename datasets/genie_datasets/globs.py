"""--include and --exclude: which files of a source count."""

from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from genie_datasets.errors import UserError

Globs = str | Sequence[str] | None


def keep_files(files: list[Path], root: Path, include: Globs = None, exclude: Globs = None) -> list[Path]:
    """The files whose path below `root`, or whose name, matches `include` (all without it) and not `exclude`.

    A glob may be several, separated by commas. Raises UserError when there were files and none is left.
    """
    wanted, unwanted = _split(include), _split(exclude)
    kept = [f for f in files if (not wanted or _matches(f, root, wanted)) and not _matches(f, root, unwanted)]
    if files and not kept:
        asked = " ".join(f"--{k} '{v}'" for k, v in (("include", include), ("exclude", exclude)) if v)
        example = files[0].relative_to(root).as_posix()
        raise UserError(f"{asked} leaves none of the {len(files)} files of {root}, such as '{example}': loosen it")
    return kept


def _split(globs: Globs) -> list[str]:
    parts = globs.split(",") if isinstance(globs, str) else list(globs or [])
    return [part.strip() for part in parts if part.strip()]


def _matches(file: Path, root: Path, globs: list[str]) -> bool:
    return any(fnmatch(file.relative_to(root).as_posix(), glob) or fnmatch(file.name, glob) for glob in globs)
