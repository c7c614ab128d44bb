"""One column of a user's file, checked: right type, right shape, or one line that says what is wrong with it."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int

from genie_datasets.errors import UserError

FORMAT = "see docs/score_your_latents.md"


def take(columns: Mapping[str, np.ndarray], name: str, rows: int, where: str) -> np.ndarray:
    """The column `name`, as long as the others. Raises UserError."""
    values = np.asarray(columns[name])
    if values.ndim == 0 or len(values) != rows:
        has = "is a single value" if values.ndim == 0 else f"has {len(values)} rows"
        raise UserError(f"{where}: '{name}' {has} but 'trajectory' has {rows}: one row a transition in every column")
    return values


def integers(values: np.ndarray, name: str, where: str) -> Int[np.ndarray, "..."]:
    """Integers, or floats that are whole. Raises UserError naming the first row that is neither."""
    if values.dtype.kind in "iub":
        if values.dtype == np.uint64 and values.size and values.max() > np.iinfo(np.int64).max:
            raise UserError(f"{where}: '{name}' holds numbers beyond 64 bit")
        return values.astype(np.int64)
    if values.dtype.kind != "f":
        raise UserError(f"{where}: '{name}' holds {values.dtype}, not integers")
    bad = ~np.isfinite(values) | (values != np.rint(values)) | (np.abs(values) > 2.0**53)
    if bad.any():
        row = int(np.argwhere(bad)[0][0])
        first = values[tuple(np.argwhere(bad)[0])]
        raise UserError(f"{where}: '{name}' holds {first} in row {row}, which is no integer; {FORMAT}")
    return values.astype(np.int64)


def labels(values: np.ndarray, name: str, where: str) -> np.ndarray:
    """(M,) integers or strings: names of trajectories or scenes."""
    if values.ndim != 1:
        raise UserError(f"{where}: '{name}' has shape {values.shape}, not (M,)")
    return values if values.dtype.kind in "US" else integers(values, name, where)


def reals(values: np.ndarray, name: str, where: str) -> Float[np.ndarray, "M D"]:
    """(M, D) float64 from (M,) or (M, D) numbers; NaN passes, since what cannot be measured is said later."""
    if values.dtype.kind not in "fiub":
        raise UserError(f"{where}: '{name}' holds {values.dtype}, not numbers")
    if values.ndim not in (1, 2) or values.shape[-1] == 0:
        raise UserError(f"{where}: '{name}' has shape {values.shape}, not (M, D)")
    return values.reshape(len(values), -1).astype(np.float64)
