"""Writes a LeRobotDataset (v2.1 or v3.0) from frames and per-step fields.

The layout is that of huggingface/lerobot: `meta/`, `data/` (parquet) and `videos/`, with one file of each per episode,
which both versions allow.
"""

import itertools
import json
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped, UInt8

from genie_datasets.base.encode_video import encode_frames
from genie_datasets.base.errors import UserError
from genie_datasets.base.files import atomic_file, unwritable
from genie_datasets.writers.rlds import Frames, blocks_of

VERSIONS = ("v2.1", "v3.0")
CHUNK = 1000  # files per folder
RESERVED = ("timestamp", "frame_index", "episode_index", "index", "task_index")
STATISTICS_FRAMES = 32  # frames of an episode in the statistics of the camera
PATHS = {
    "v2.1": {
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    },
    "v3.0": {
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    },
}


class LeRobotWriter(AbstractContextManager["LeRobotWriter"]):
    """`with LeRobotWriter(folder, hz=3) as writer: writer.add(frames, "pick the can", {"action": actions})`.

    The folder becomes a data set when the block ends: `meta/info.json`, by which readers recognize it, is written last.

    Args:
        folder: a new or empty folder.
        hz: frames per second.
        camera: key of the frames.
        version: "v3.0", or "v2.1" for older tools.

    Raises:
        UserError: the folder is not empty, or the version is unknown.
    """

    def __init__(self, folder: str | Path, hz: float, camera: str = "observation.images.main", version: str = "v3.0"):
        self.folder = Path(folder)
        if version not in VERSIONS:
            raise UserError(f"unknown LeRobot version '{version}'; expected one of {', '.join(VERSIONS)}")
        if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise UserError(f"{self.folder} is not empty: choose a new folder")
        self.hz, self.camera, self.version = hz, camera, version
        self.shape: tuple[int, ...] | None = None
        self.fields: dict[str, tuple[str, tuple[int, ...]]] = {}
        self.tasks: dict[str, int] = {}
        self.rows: list[dict[str, Any]] = []
        self.splits: dict[str, list[int]] = {}
        self.num_frames = 0

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.finish()

    def add(
        self,
        frames: Frames,
        instruction: str = "",
        fields: dict[str, Shaped[np.ndarray, "L *D"]] | None = None,
        split: str = "train",
        length: int | None = None,
    ) -> None:
        """Adds one episode. All episodes must have the same fields and image size; those of one split are consecutive.

        frames: (L, H, W, 3) uint8, or an iterable of arrays (n, H, W, 3), `length` frames in all, which need not fit
            into memory together.
        fields: numbers or text, one row per frame.

        Raises:
            UserError: the episode differs from those before it, or cannot be written.
        """
        fields = {name: np.asarray(value) for name, value in (fields or {}).items()}
        length = len(frames) if isinstance(frames, np.ndarray) else length
        if length is None:
            raise UserError(f"episode {len(self.rows)}: frames in several arrays need length=, their number")
        blocks = blocks_of(frames, f"episode {len(self.rows)}")
        first = next(blocks, None)
        if first is None:
            raise UserError(f"episode {len(self.rows)} has no frames; expected at least one")
        self._check((length, *first.shape[1:]), fields, split)
        number = len(self.rows)
        task = self.tasks.setdefault(instruction, len(self.tasks))
        place = {
            "episode_index": number, "episode_chunk": number // CHUNK,
            "chunk_index": number // CHUNK, "file_index": number % CHUNK, "video_key": self.camera,
        }  # fmt: skip
        table, video = (self.folder / PATHS[self.version][path].format(**place) for path in ("data_path", "video_path"))
        own = {
            "timestamp": np.arange(length, dtype=np.float32) / np.float32(self.hz),
            "frame_index": np.arange(length),
            "episode_index": np.full(length, number),
            "index": np.arange(self.num_frames, self.num_frames + length),
            "task_index": np.full(length, task),
        }
        columns = {**fields, **own}
        try:
            for path in (table, video):
                path.parent.mkdir(parents=True, exist_ok=True)
            sampled = write_video(video, itertools.chain([first], blocks), self.hz, length)
            write_table(table, columns)
        except OSError as error:
            raise unwritable(self.folder, error) from None
        stats = {name: statistics(value) for name, value in columns.items() if value.dtype.kind in "fiub"}
        stats[self.camera] = statistics(sampled)
        self.rows.append({"place": place, "length": length, "instruction": instruction, "stats": stats})
        self.splits.setdefault(split, []).append(number)
        self.num_frames += length

    def _check(self, shape: tuple[int, ...], fields: dict[str, np.ndarray], split: str) -> None:
        where = f"episode {len(self.rows)}"
        if shape[1] % 2 or shape[2] % 2:
            raise UserError(
                f"{where}: H.264 needs an even height and width, got {shape[1]}x{shape[2]}; "
                "resize the frames with genie_datasets.fit_frames"
            )
        reserved = sorted({*fields} & {*RESERVED, self.camera})
        if reserved:
            raise UserError(f"{where}: the field name '{reserved[0]}' is reserved: choose another one")
        for name, value in fields.items():
            if len(value) != shape[0] or value.ndim > 2:
                raise UserError(f"{where}: field '{name}' must have one row per frame, {shape[0]}, got {value.shape}")
        kinds = {
            name: ("string" if value.dtype.kind in "US" else value.dtype.name, value.shape[1:] or (1,))
            for name, value in fields.items()
        }
        if self.rows and (kinds != self.fields or shape[1:] != self.shape):
            raise UserError(f"{where} has other fields or another size than the first: write it to another data set")
        if split in self.splits and split != next(reversed(self.splits)):
            raise UserError(
                f"{where}: split '{split}' was followed by another one: add the episodes of a split together"
            )
        self.fields, self.shape = kinds, shape[1:]

    def finish(self) -> None:
        """Writes `meta/`. Raises UserError."""
        if not self.rows or self.shape is None:
            raise UserError(f"{self.folder}: a data set needs at least one episode; none was added")
        try:
            if self.version == "v3.0":
                self._describe_v3()
            else:
                self._describe_v2()
            self._write("meta/stats.json", json.dumps(plain(combine([row["stats"] for row in self.rows]))))
            self._write("meta/info.json", json.dumps(self._info(), indent=1))
        except OSError as error:
            raise unwritable(self.folder, error) from None

    def _info(self) -> dict[str, Any]:
        assert self.shape is not None
        height, width, _ = self.shape
        picture = {
            "dtype": "video", "shape": [height, width, 3], "names": ["height", "width", "channels"],
            "info": {
                "video.height": height, "video.width": width, "video.codec": "h264", "video.pix_fmt": "yuv420p",
                "video.is_depth_map": False, "video.fps": self.hz, "video.channels": 3, "has_audio": False,
            },
        }  # fmt: skip
        own = {name: ("float32" if name == "timestamp" else "int64", (1,)) for name in RESERVED}
        columns = {
            name: {"dtype": kind, "shape": list(shape), "names": None}
            for name, (kind, shape) in {**self.fields, **own}.items()
        }
        return {
            "codebase_version": self.version, "robot_type": None, "fps": self.hz, "chunks_size": CHUNK,
            "total_episodes": len(self.rows), "total_frames": self.num_frames, "total_tasks": len(self.tasks),
            "total_videos": len(self.rows), "total_chunks": -(-len(self.rows) // CHUNK),
            "splits": {name: f"{numbers[0]}:{numbers[-1] + 1}" for name, numbers in self.splits.items()},
            **PATHS[self.version], "features": {self.camera: picture, **columns},
        }  # fmt: skip

    def _describe_v2(self) -> None:
        def lines(entries: list[dict[str, Any]]) -> str:
            return "".join(json.dumps(entry) + "\n" for entry in entries)

        self._write("meta/tasks.jsonl", lines([{"task_index": i, "task": text} for text, i in self.tasks.items()]))
        numbered = list(enumerate(self.rows))
        episodes = [{"episode_index": i, "tasks": [row["instruction"]], "length": row["length"]} for i, row in numbered]
        self._write("meta/episodes.jsonl", lines(episodes))
        stats = [{"episode_index": i, "stats": plain(row["stats"])} for i, row in numbered]
        self._write("meta/episodes_stats.jsonl", lines(stats))

    def _describe_v3(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as parquet

        rows, start = [], 0
        for number, row in enumerate(self.rows):
            place, length = row["place"], row["length"]
            rows.append(
                {
                    "episode_index": number, "tasks": [row["instruction"]], "length": length,
                    "data/chunk_index": place["chunk_index"], "data/file_index": place["file_index"],
                    "dataset_from_index": start, "dataset_to_index": start + length,
                    f"videos/{self.camera}/chunk_index": place["chunk_index"],
                    f"videos/{self.camera}/file_index": place["file_index"],
                    f"videos/{self.camera}/from_timestamp": 0.0,
                    f"videos/{self.camera}/to_timestamp": length / self.hz,
                    **{
                        f"stats/{name}/{kind}": value
                        for name, entry in plain(row["stats"]).items()
                        for kind, value in entry.items()
                    },
                    "meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0,
                }
            )  # fmt: skip
            start += length
        tasks = pa.table({"task_index": list(self.tasks.values()), "task": list(self.tasks)})
        for name, table in (
            ("meta/episodes/chunk-000/file-000.parquet", pa.Table.from_pylist(rows)),
            ("meta/tasks.parquet", with_index(tasks, "task")),
        ):
            with atomic_file(self.folder / name) as stream:
                parquet.write_table(table, stream)

    def _write(self, name: str, text: str) -> None:
        with atomic_file(self.folder / name) as stream:
            stream.write(text.encode())


def write_video(path: Path, blocks: Iterable[UInt8[np.ndarray, "n H W 3"]], hz: float, length: int) -> np.ndarray:
    """Writes H.264 with a key frame at every second frame, as LeRobot does, for fast random access.

    Returns at most 32 of the frames, evenly spaced. Raises UserError unless there are `length` frames of one size.
    """
    wanted = {*np.linspace(0, length - 1, min(length, STATISTICS_FRAMES)).astype(int).tolist()}
    kept: list[np.ndarray] = []
    number = 0

    def frames() -> Iterator[np.ndarray]:
        nonlocal number
        size = None
        for frame in itertools.chain.from_iterable(blocks):
            size = size or frame.shape
            if frame.shape != size:
                raise UserError(f"{path}: its frames have several sizes: fit them with genie_datasets.fit_frames")
            if number in wanted:
                kept.append(frame.copy())
            number += 1
            yield frame

    encode_frames(path, frames(), hz, {"crf": "18", "g": "2", "bf": "0"})
    if number != length:
        raise UserError(f"{path}: expected length={length} frames, got {number}")
    return np.stack(kept)


def write_table(path: Path, columns: dict[str, np.ndarray]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    arrays = {}
    for name, value in columns.items():
        flat = pa.array(value.reshape(-1).tolist() if value.dtype.kind in "US" else value.reshape(-1))
        arrays[name] = pa.FixedSizeListArray.from_arrays(flat, value.shape[1]) if value.ndim == 2 else flat
    with atomic_file(path) as stream:
        parquet.write_table(pa.table(arrays), stream)


def with_index(table: Any, name: str) -> Any:
    """Marks a column as the index of pandas, by which lerobot finds a task by its text."""
    columns = [
        {"name": field, "field_name": field, "pandas_type": kind, "numpy_type": stored, "metadata": None}
        for field, kind, stored in (("task_index", "int64", "int64"), (name, "unicode", "object"))
    ]
    notes = {"index_columns": [name], "column_indexes": [], "columns": columns, "pandas_version": "2.0.0"}
    return table.replace_schema_metadata({"pandas": json.dumps(notes)})


def statistics(values: Shaped[np.ndarray, "L *D"] | UInt8[np.ndarray, "L H W 3"]) -> dict[str, np.ndarray]:
    """Statistics of an episode: min, max, mean, std and count (1,).

    Each is (D,) for rows of numbers, and (3, 1, 1) for frames, whose channels are scaled from 0 to 1, as in lerobot.
    """
    is_image = values.ndim == 4
    rows = values / 255.0 if is_image else values.reshape(len(values), -1).astype(np.float64)
    axes, shape = ((0, 1, 2), (3, 1, 1)) if is_image else (0, -1)
    found = {name: getattr(rows, name)(axes).reshape(shape) for name in ("min", "max", "mean", "std")}
    return {**found, "count": np.array([len(rows)])}


def combine(episodes: list[dict[str, dict[str, np.ndarray]]]) -> dict[str, dict[str, np.ndarray]]:
    """The statistics of all episodes, from those of each."""
    result = {}
    for name in episodes[0]:
        parts = {kind: np.stack([episode[name][kind] for episode in episodes]) for kind in episodes[0][name]}
        count = parts["count"].reshape(-1, *[1] * (parts["mean"].ndim - 1))
        mean = (parts["mean"] * count).sum(0) / count.sum()
        spread = (parts["std"] ** 2 + (parts["mean"] - mean) ** 2) * count
        result[name] = {
            "min": parts["min"].min(0), "max": parts["max"].max(0), "mean": mean,
            "std": np.sqrt(spread.sum(0) / count.sum()), "count": parts["count"].sum(0),
        }  # fmt: skip
    return result


def plain(stats: dict[str, dict[str, np.ndarray]]) -> dict[str, dict[str, Any]]:
    return {name: {kind: value.tolist() for kind, value in entry.items()} for name, entry in stats.items()}
