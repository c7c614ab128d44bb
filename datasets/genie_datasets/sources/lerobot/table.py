"""The parquet tables of a LeRobotDataset: rows of an episode in order, and their comparison with `meta/`."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from genie_datasets.base.cores import num_cores
from genie_datasets.base.errors import UserError, first_line
from genie_datasets.base.globs import exclude_option
from genie_datasets.sources.lerobot.meta import Episode, pyarrow_parquet

TOLERANCE = 1e-4
"""Seconds by which a frame may be off its time: LeRobot's own `tolerance_s`."""
ORDER = ("episode_index", "frame_index", "timestamp")


class DamagedTable(ValueError):
    """A table is damaged or contradicts the metadata; the message says how."""


def read_columns(path: Path, columns: list[str], number: int | None = None) -> dict[str, Any]:
    """Those of `columns` that a table has; `number`: only the rows of this episode. Raises DamagedTable."""
    parquet = pyarrow_parquet()
    try:
        names = parquet.read_schema(path).names
        wanted = [name for name in columns if name in names]
        chosen = [("episode_index", "=", number)] if number is not None and "episode_index" in names else None
        table = parquet.read_table(path, columns=wanted, filters=chosen)
        return {name: plain_column(table.column(name)) if name in ORDER else table.column(name) for name in wanted}
    except (OSError, ValueError, KeyError, NotImplementedError, TypeError, IndexError) as error:  # pyarrow's errors
        raise DamagedTable(first_line(error)) from None


def plain_column(column: Any) -> Any:
    """A column of numbers, which some writers store as lists of one number."""
    import pyarrow as pa

    is_list = pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type)
    return pa.chunked_array([pa.array([row[0] for row in column.to_pylist()])]) if is_list else column


def episode_column(path: Path, episode: Episode, key: str) -> list[Any]:
    """One value per frame of an episode, in the order of its frames. Raises DamagedTable."""
    columns = read_columns(path, [key, *ORDER], episode.number)
    if key not in columns:
        raise DamagedTable(f"no column '{key}'")
    values = columns.pop(key).to_pylist()
    if len(values) != episode.num_frames:
        raise DamagedTable(f"{len(values)} rows, expected the {episode.num_frames} frames of the metadata")
    return [values[row] for row in order_of(columns)] if "frame_index" in columns else values


def order_of(columns: dict[str, Any]) -> np.ndarray:
    """(n,) rows in the order of their frames. Raises DamagedTable unless they are frames 0 .. n-1."""
    frames = columns["frame_index"].to_numpy()
    order = np.argsort(frames, kind="stable")
    if not np.array_equal(frames[order], np.arange(len(frames))):
        raise DamagedTable(f"frame_index must hold each number from 0 to {len(frames) - 1} once")
    return order


def check_tables(root: Path, episodes: list[Episode], hz: float) -> None:
    """Compares all tables with the metadata. Raises UserError, which names the first file and episode that differ."""
    by_table: dict[str, list[Episode]] = {}
    for episode in episodes:
        by_table.setdefault(episode.table, []).append(episode)
    present = [name for name in sorted(by_table) if (root / name).is_file()]

    def check(name: str) -> None:
        episode = by_table[name][0]
        try:
            columns = read_columns(root / name, list(ORDER))
            for episode in by_table[name]:
                check_episode(columns, episode, hz)
        except DamagedTable as error:
            raise bad_table(root, episode, str(error)) from None

    with ThreadPoolExecutor(num_cores()) as pool:
        list(pool.map(check, present))


def check_episode(columns: dict[str, Any], episode: Episode, hz: float) -> None:
    if "episode_index" not in columns:
        return
    rows = np.flatnonzero(columns["episode_index"].to_numpy() == episode.number)
    if len(rows) != episode.num_frames:
        raise DamagedTable(f"{len(rows)} rows, expected the {episode.num_frames} frames of the metadata")
    own = {name: column.take(rows) for name, column in columns.items()}
    order = order_of(own) if "frame_index" in own else np.arange(len(rows))
    if "timestamp" in own:
        times = own["timestamp"].to_numpy().astype(np.float64)[order]
        expected = np.arange(len(rows)) / hz
        off = np.abs(times - expected)
        rounding = np.abs(expected) * np.finfo(np.float32).eps  # time stamps are stored as float32
        if not (off <= TOLERANCE + rounding).all():
            at = int(np.argmax(~(off <= TOLERANCE + rounding)))
            raise DamagedTable(f"frame {at} has the time {times[at]:.4f} s, expected {expected[at]:.4f} s at {hz:g} Hz")


def bad_table(root: Path, episode: Episode, what: str) -> UserError:
    return UserError(
        f"{root / episode.table}, episode {episode.number} cannot be read ({what}): download it again, or leave it out "
        f"with {exclude_option([episode.file])}"
    )
