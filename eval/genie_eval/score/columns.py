"""One column of a user's file, checked: right type, right shape, or one line that says what is wrong with it.

`rows`: which rows of the file the values are, where they are not all of it in order; for the row that an error names.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int

from genie_datasets.base.errors import UserError

FORMAT = "see docs/score_your_latents.md"
MOST = 1e30  # squares and sums of larger numbers leave float64
Rows = Int[np.ndarray, " M"]


def take(columns: Mapping[str, np.ndarray], name: str, rows: int, where: str) -> np.ndarray:
    """The column `name`, as long as the others. Raises UserError."""
    values = np.asarray(columns[name])
    if values.ndim == 0 or len(values) != rows:
        has = "is a single value" if values.ndim == 0 else f"has {len(values)} rows"
        raise UserError(f"{where}: '{name}' {has} but 'trajectory' has {rows}: one row a transition in every column")
    return values


def first_row(bad: np.ndarray, rows: Rows | None) -> int:
    """The row of the file that holds the first True of `bad`."""
    row = int(np.argwhere(bad)[0][0])
    return row if rows is None else int(rows[row])


def integers(values: np.ndarray, name: str, where: str, rows: Rows | None = None) -> Int[np.ndarray, "..."]:
    """Integers, or floats that are whole. Raises UserError naming the first row that is neither."""
    if values.dtype.kind in "iub":
        if values.dtype == np.uint64 and values.size and values.max() > np.iinfo(np.int64).max:
            raise UserError(f"{where}: '{name}' holds numbers beyond 64 bit")
        return values.astype(np.int64)
    if values.dtype.kind != "f":
        raise UserError(f"{where}: '{name}' holds {values.dtype}, not integers")
    bad = ~np.isfinite(values) | (values != np.rint(values)) | (np.abs(values) > 2.0**53)
    if bad.any():
        first = values[tuple(np.argwhere(bad)[0])]
        raise UserError(f"{where}: '{name}' holds {first} in row {first_row(bad, rows)}, which is no integer; {FORMAT}")
    return values.astype(np.int64)


def labels(values: np.ndarray, name: str, where: str, rows: Rows | None = None) -> np.ndarray:
    """(M,) integers or strings: names of trajectories or scenes."""
    if values.ndim != 1:
        raise UserError(f"{where}: '{name}' has shape {values.shape}, not (M,)")
    return values if values.dtype.kind in "US" else integers(values, name, where, rows)


def reals(values: np.ndarray, name: str, where: str, rows: Rows | None = None) -> Float[np.ndarray, "M D"]:
    """(M, D) float64 from (M,) or (M, D) numbers.

    NaN passes, since what cannot be measured is said later; infinities become NaN, with which numpy calculates without
    a warning. Raises UserError for finite numbers too large to calculate with.
    """
    if values.dtype.kind not in "fiub":
        raise UserError(f"{where}: '{name}' holds {values.dtype}, not numbers")
    if values.ndim not in (1, 2) or values.shape[-1] == 0:
        raise UserError(f"{where}: '{name}' has shape {values.shape}, not (M, D)")
    found = values.reshape(len(values), -1).astype(np.float64)
    found[np.isinf(found)] = np.nan
    far = (found > MOST) | (found < -MOST)
    if far.any():
        first = found[tuple(np.argwhere(far)[0])]
        raise UserError(
            f"{where}: '{name}' holds {first:.3g} in row {first_row(far, rows)}: beyond {MOST:.0e} nothing can be "
            "computed; mend the row or change the unit"
        )
    return found
