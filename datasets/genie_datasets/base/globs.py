"""The options --include and --exclude, which choose files of a source."""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from genie_datasets.base.errors import UserError
from genie_datasets.base.notes import warn

Globs = str | Sequence[str] | None
MAX_NAMES = 8  # in an option that a message spells out


def keep_files(files: list[Path], root: Path, include: Globs = None, exclude: Globs = None) -> list[Path]:
    """The files whose path below `root`, or whose name, matches `include` (default: all) and not `exclude`.

    A string may hold several globs, separated by commas; a comma inside brackets belongs to its glob. Raises UserError
    if there were files and none is left.
    """
    wanted, unwanted = _split(include), _split(exclude)
    kept = [f for f in files if (not wanted or _matches(f, root, wanted)) and not _matches(f, root, unwanted)]
    if files and not kept:
        asked = " ".join(f"--{k} '{v}'" for k, v in (("include", include), ("exclude", exclude)) if v)
        example = files[0].relative_to(root).as_posix()
        raise UserError(
            f"{asked} leaves none of the {len(files)} files of {root}: pass other globs, for files such as '{example}'"
        )
    for option, globs in (("include", wanted), ("exclude", unwanted)):
        for glob in globs:
            if files and not any(_matches(file, root, [glob]) for file in files):
                warn(f"--{option} '{glob}' matches none of the {len(files)} files of {root}")
    return kept


def exclude_option(names: Sequence[str]) -> str:
    """The option --exclude for exactly these names (the first 8), as it is typed into a shell."""
    globs = ",".join(map(glob_of, names[:MAX_NAMES])).replace("'", "'\"'\"'")
    return f"--exclude '{globs}'"


def name_below(root: Path, file: Path) -> str:
    """`file.relative_to(root).as_posix()`, ten times as fast if the path of `file` starts with that of `root`."""
    prefix, name = f"{root}/", str(file)
    return name[len(prefix) :] if name.startswith(prefix) else file.relative_to(root).as_posix()


def glob_of(name: str) -> str:
    """The glob that matches only this name, whatever characters it holds."""
    escaped = re.sub(r"[\[*?,]", lambda match: f"[{match[0]}]", name)
    escaped = re.sub(r"^-", "[-]", escaped)  # the value of an option must not look like an option
    escaped = re.sub(r"^ | $|(?<= ) ", "[ ]", escaped)  # messages and globs are stripped
    return re.sub(r"[^\S ]|[\x00-\x1f\x7f\ud800-\udfff]", "?", escaped)  # characters that no terminal prints


def _split(globs: Globs) -> list[str]:
    parts = re.findall(r"(?:\[[^\]]*\]|[^,])+", globs) if isinstance(globs, str) else list(globs or [])
    return [part.strip() for part in parts if part.strip()]


def _matches(file: Path, root: Path, globs: list[str]) -> bool:
    path = file.relative_to(root).as_posix()
    return any(fnmatchcase(path, glob) or fnmatchcase(file.name, glob) for glob in globs)
