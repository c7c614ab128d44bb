"""Worlds that come with the package, by name. RUN is a run folder or one of these names, everywhere.

A run folder of that name in the working directory wins (it holds a config.json): what a user has made is what is meant.
"""

from importlib.resources import files
from pathlib import Path

from genie_datasets.base.errors import UserError

WORLDS: dict[str, Path] = {
    name: Path(str(files(__name__))) / name.replace("-", "_") for name in ("nano-tabletop",)
}  # name -> folder, in the form of a run folder


def world_folder(name: str) -> Path:
    """Where the world `name` is installed.

    Raises:
        UserError: no such name (it lists them), or this installation lacks its weights.
    """
    if name not in WORLDS:
        raise UserError(f"no world '{name}' comes with the package; there are: {', '.join(WORLDS)}")
    if not (WORLDS[name] / "config.json").is_file():
        raise UserError(
            f"{WORLDS[name]}: this installation lacks the weights of {name}; install genie-robotics again, or make "
            f"them: genie-robotics pretrain {name} --out DIR"
        )
    return WORLDS[name]


def locate(run: str | Path) -> Path:
    """The folder that RUN means, which need not exist where it is no name of a world."""
    run = Path(run)
    if str(run) in WORLDS and not (run / "config.json").is_file():
        return world_folder(str(run))
    return run


def judge_of(run: str | Path) -> Path | None:
    """The independent latent action model that was exported with a world, or None."""
    folder = locate(run) / "judge"
    return folder if (folder / "config.json").is_file() else None
