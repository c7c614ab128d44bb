"""Checks of the type and shape of one column of a user's file; an error names the row.

`rows`: rows of the file that the values come from, where they are not all of it in order.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int

from genie_datasets.base.errors import UserError

FORMAT = "see docs/score_your_latents.md"
LARGEST = 1e30  # squares and sums of larger numbers leave float64
Rows = Int[np.ndarray, " M"]


def take(columns: Mapping[str, np.ndarray], name: str, rows: int, where: str) -> np.ndarray:
    """The column `name`.

    Raises:
        UserError: it does not have this number of rows.
    """
    values = np.asarray(columns[name])
    if values.ndim == 0 or len(values) != rows:
        has = "is a single value" if values.ndim == 0 else f"has {len(values)} rows"
        raise UserError(f"{where}: '{name}' {has}, but 'trajectory' has {rows}; give every column a row per transition")
    return values


def first_row(bad: np.ndarray, rows: Rows | None) -> int:
    """Row of the file with the first True of `bad`."""
    row = int(np.argwhere(bad)[0][0])
    return row if rows is None else int(rows[row])


def integers(values: np.ndarray, name: str, where: str, rows: Rows | None = None) -> Int[np.ndarray, "..."]:
    """Integers as int64, from integers or from floats that are whole.

    Raises:
        UserError: a value is not an integer of 64 bit; the message names the first such row.
    """
    if values.dtype.kind in "iub":
        if values.dtype == np.uint64 and values.size and values.max() > np.iinfo(np.int64).max:
            raise UserError(f"{where}: '{name}' holds integers that do not fit into 64 bit; renumber them")
        return values.astype(np.int64)
    if values.dtype.kind != "f":
        raise UserError(f"{where}: '{name}' must hold integers, got {values.dtype}; {FORMAT}")
    bad = ~np.isfinite(values) | (values != np.rint(values)) | (np.abs(values) > 2.0**53)
    if bad.any():
        first = values[tuple(np.argwhere(bad)[0])]
        raise UserError(f"{where}: '{name}' must hold integers, got {first} in row {first_row(bad, rows)}; {FORMAT}")
    return values.astype(np.int64)


def labels(values: np.ndarray, name: str, where: str, rows: Rows | None = None) -> np.ndarray:
    """(M,) integers or strings: names of trajectories or scenes."""
    if values.ndim != 1:
        raise UserError(f"{where}: '{name}' must have shape (M,), got {values.shape}; {FORMAT}")
    return values if values.dtype.kind in "US" else integers(values, name, where, rows)


def reals(values: np.ndarray, name: str, where: str, rows: Rows | None = None) -> Float[np.ndarray, "M D"]:
    """(M, D) float64 from (M,) or (M, D) numbers; infinities become NaN.

    NaN is allowed here: a metric that it prevents is "not run", with a reason.

    Raises:
        UserError: the column does not hold numbers of this shape, or holds finite numbers too large to square.
    """
    if values.dtype.kind not in "fiub":
        raise UserError(f"{where}: '{name}' must hold numbers, got {values.dtype}; {FORMAT}")
    if values.ndim not in (1, 2) or values.shape[-1] == 0:
        raise UserError(f"{where}: '{name}' must have shape (M, D), got {values.shape}; {FORMAT}")
    found = values.reshape(len(values), -1).astype(np.float64)
    found[np.isinf(found)] = np.nan
    far = (found > LARGEST) | (found < -LARGEST)
    if far.any():
        first = found[tuple(np.argwhere(far)[0])]
        raise UserError(
            f"{where}: '{name}' must be between -{LARGEST:.0e} and {LARGEST:.0e}, got {first:.3g} in row "
            f"{first_row(far, rows)}; fix the row or change the unit"
        )
    return found
