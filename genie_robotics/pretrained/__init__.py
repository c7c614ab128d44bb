"""Worlds that come with the package. Wherever a run folder is expected, the name of one of them can be given.

A run folder of that name in the working directory goes first.
"""

from importlib.resources import files
from pathlib import Path

from genie_datasets.base.errors import UserError

WORLDS: dict[str, Path] = {name: Path(str(files(__name__))) / name.replace("-", "_") for name in ("nano-tabletop",)}
"""Folder of each world by its name; it has the form of a run folder."""


def world_folder(name: str) -> Path:
    """The folder in which the world `name` is installed.

    Raises:
        UserError: the name is unknown, or this installation lacks the world's files.
    """
    if name not in WORLDS:
        raise UserError(f"unknown world '{name}'; expected one of {', '.join(WORLDS)}")
    if not (WORLDS[name] / "config.json").is_file():
        raise UserError(
            f"{WORLDS[name]}: this installation lacks the files of {name}; reinstall genie-robotics, or make them "
            f"(genie-robotics pretrain {name} --out DIR)"
        )
    return WORLDS[name]


def locate(run: str | Path) -> Path:
    """The folder of a run, given as a path or as the name of a world. A path need not exist."""
    run = Path(run)
    if str(run) in WORLDS and not (run / "config.json").is_file():
        return world_folder(str(run))
    return run


def judge_of(run: str | Path) -> Path | None:
    """The run folder of the judge, an independent latent action model that was exported with a world; or None."""
    folder = locate(run) / "judge"
    return folder if (folder / "config.json").is_file() else None
