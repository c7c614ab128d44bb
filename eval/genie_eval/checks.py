"""What every command asks of its options before any work: a seed that all parts take, a folder that can be written."""

import dataclasses
import operator
import tempfile
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from genie_datasets.base.errors import UserError

Config = TypeVar("Config")

MOST_SEED = 2**31 - 1  # scikit-learn takes no larger ones than 2**32 - 1, and some parts add to it


def check_seed(seed: int) -> int:
    """The seed as an int, from any type of integer.

    Raises UserError where numpy, torch or scikit-learn would not take it.
    """
    try:
        found = operator.index(seed)
    except TypeError:
        found = -1
    if not 0 <= found <= MOST_SEED:
        raise UserError(f"--seed {seed}: a number from 0 to {MOST_SEED}")
    return found


def checked(config: Config) -> Config:
    """The configuration with a seed that all parts take, and Python's integers in place of numpy's: a report is JSON.

    Raises UserError for another seed.
    """
    whole: dict[str, Any] = {n: int(value) for n, value in vars(config).items() if isinstance(value, np.integer)}
    return dataclasses.replace(config, **{**whole, "seed": check_seed(config.seed)})  # type: ignore[type-var, attr-defined]


def make_folder(out: Path) -> None:
    """Makes the folder of the report. Raises UserError, one line, where that or writing in it is not possible."""
    try:
        if out.exists() and not out.is_dir():
            raise UserError(f"{out} is a file: give a folder with --out")
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"{out} cannot be made or written ({why}): give another folder with --out") from None
