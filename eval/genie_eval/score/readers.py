"""Readers of files of latent actions: npz, parquet, and the tables of LARYBench. Nothing is unpickled."""

import contextlib
import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from genie_datasets.base.errors import UserError
from genie_eval.score.larybench import larybench_columns
from genie_eval.score.npz import NpzColumns, short_reason

SUFFIXES = (".npz", ".parquet", ".csv")
Columns = Mapping[str, np.ndarray]


@contextlib.contextmanager
def open_columns(path: Path, roots: tuple[Path, ...] = ()) -> Iterator[Columns]:
    """The columns of a file by name.

    roots: folders to which the paths in a LARYBench table may be relative.

    Raises:
        UserError: the file is missing, of an unknown kind, or not readable.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file")
    if path.is_dir():
        raise UserError(f"{path} is a folder; pass a file ({', '.join(SUFFIXES)})")
    kind = path.suffix.lower()
    if kind not in SUFFIXES:
        raise UserError(
            f"{path}: unknown kind of file '{path.suffix or path.name}', expected {', '.join(SUFFIXES)}; pass an npz "
            "of numpy arrays, a parquet table, or a table that LARYBench's extraction writes"
        )
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty; write it again")
    if kind == ".npz":
        with NpzColumns(path) as columns:
            yield columns
    elif kind == ".parquet":
        yield ParquetColumns(path)
    else:
        yield larybench_columns(path, roots)


def fingerprint(path: Path) -> str:
    """SHA-256 of the file's content, 16 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


class ParquetColumns(Mapping[str, np.ndarray]):
    """The columns of a parquet table under the names of the npz format.

    A column of lists is an (M, D) array, and so are columns NAME_0, NAME_1 ... Columns motion_NAME are the named
    dimensions of the motion.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            import pyarrow
            import pyarrow.parquet as parquet
        except ImportError:
            raise UserError("parquet needs pyarrow; pip install 'genie-robotics[parquet]', or pass an npz") from None
        self.failures = (pyarrow.ArrowException, OSError, ValueError)
        try:
            self.file = parquet.ParquetFile(path)
        except self.failures as error:
            raise UserError(f"{path} cannot be read as parquet ({short_reason(error)}); write it again") from None
        self.groups = _groups(self.file.schema_arrow.names)

    def __getitem__(self, name: str) -> np.ndarray:
        if name == "motion_names" and self._named():
            return np.array([column.removeprefix("motion_") for column in self.groups["motion"]])
        if name not in self.groups:
            raise KeyError(name)
        arrays = [self._column(column) for column in self.groups[name]]
        return arrays[0] if len(arrays) == 1 else np.stack(arrays, axis=1)

    def __iter__(self) -> Iterator[str]:
        yield from self.groups
        if "motion_names" not in self.groups and self._named():
            yield "motion_names"

    def __len__(self) -> int:
        return len(list(iter(self)))

    def _named(self) -> bool:
        columns = self.groups.get("motion", [])
        return len(columns) > 1 and not all(c.removeprefix("motion_").isdigit() for c in columns)

    def _column(self, column: str) -> np.ndarray:
        import pyarrow as pa

        try:
            values = self.file.read(columns=[column]).column(column).combine_chunks()
            if isinstance(values, pa.ChunkedArray):  # of none or several chunks, depending on the version
                values = pa.concat_arrays(values.chunks) if values.num_chunks else pa.array([], values.type)
        except self.failures as error:
            raise UserError(f"{self.path}: '{column}' cannot be read ({short_reason(error)}); write it again") from None
        if values.null_count:
            raise UserError(f"{self.path}: '{column}' has {values.null_count} missing values; fill or drop those rows")
        if not pa.types.is_nested(values.type):
            if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
                return np.asarray(values.to_pylist(), dtype=str)
            return values.to_numpy(zero_copy_only=False)
        if not isinstance(values, pa.ListArray | pa.LargeListArray | pa.FixedSizeListArray):
            raise UserError(f"{self.path}: '{column}' must hold numbers or lists of numbers, got {values.type}")
        flat = values.flatten()
        if flat.null_count or pa.types.is_nested(flat.type):
            raise UserError(f"{self.path}: '{column}' must hold lists of numbers without missing or nested values")
        width = len(flat) // max(len(values), 1)
        if not isinstance(values, pa.FixedSizeListArray) and (np.diff(values.offsets.to_numpy()) != width).any():
            raise UserError(f"{self.path}: the lists of '{column}' differ in length; they must be equally long")
        return flat.to_numpy(zero_copy_only=False).reshape(len(values), width)


def _groups(names: list[str]) -> dict[str, list[str]]:
    """The table's columns grouped by the npz column that they form; numbered ones in the order of their numbers."""
    groups: dict[str, list[str]] = {}
    for name in names:
        match = re.fullmatch(r"(codes|state|embedding)_(\d+)|(motion)_(?!names$)(.+)", name)
        whole = next((part for part in match.groups()[::2] if part), name) if match else name
        if whole != name and whole in names:  # with a column motion, motion_source is something else
            whole = name
        groups.setdefault(whole, []).append(name)
    for columns in groups.values():
        tails = [column.rpartition("_")[2] for column in columns]
        if len(columns) > 1 and all(tail.isdigit() for tail in tails):
            columns.sort(key=lambda column: int(column.rpartition("_")[2]))
    return groups
