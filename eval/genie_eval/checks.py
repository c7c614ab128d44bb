"""Checks of options before any work."""

import dataclasses
import operator
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
