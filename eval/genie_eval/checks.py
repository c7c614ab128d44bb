"""Checks of options before any work: a seed that all libraries accept, a folder that can be written."""

import dataclasses
import operator
import tempfile
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from genie_datasets.base.errors import UserError

Config = TypeVar("Config")

MAX_SEED = 2**31 - 1  # scikit-learn accepts up to 2**32 - 1, and some modules add to the seed


def check_seed(seed: int) -> int:
    """Returns the seed as an int, from any type of integer.

    Raises:
        UserError: numpy, torch or scikit-learn would not accept it.
    """
    try:
        found = operator.index(seed)
    except TypeError:
        found = -1
    if not 0 <= found <= MAX_SEED:
        raise UserError(f"--seed must be an integer from 0 to {MAX_SEED}, got {seed}")
    return found


def checked(config: Config) -> Config:
    """The configuration with its seed checked and numpy's integers turned into Python's, which JSON needs.

    Raises:
        UserError: the seed is not valid.
    """
    whole: dict[str, Any] = {n: int(value) for n, value in vars(config).items() if isinstance(value, np.integer)}
    return dataclasses.replace(config, **{**whole, "seed": check_seed(config.seed)})  # type: ignore[type-var, attr-defined]


def make_folder(out: Path) -> None:
    """Makes the folder `out` and checks that files can be written there.

    Raises:
        UserError: it is a file, or it cannot be made or written.
    """
    try:
        if out.exists() and not out.is_dir():
            raise UserError(f"--out must be a folder, but {out} is a file; choose another folder")
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"cannot write to {out} ({why}); choose another folder with --out") from None
