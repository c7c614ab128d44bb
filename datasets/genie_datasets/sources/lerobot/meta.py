"""The metadata of a LeRobotDataset, which says where the frames of each episode are. Versions 2.0, 2.1 and 3.0.

v2: `meta/episodes.jsonl`, with one parquet and one video file per episode. v3: `meta/episodes/**/*.parquet`, with many
episodes per file, and for each the time at which it begins in the video.
"""

import itertools
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genie_datasets.base.errors import UserError, first_line
from genie_datasets.base.folders import find_files, walk
from genie_datasets.base.notes import warn

INFO = "meta/info.json"
PREFERRED = ("image", "image_0", "top", "front", "ego_view", "base_view", "exterior_image_1_left", "cam_high")
VIDEO_PARTS = ("chunk_index", "file_index", "from_timestamp")
FIELD = re.compile(r"\{(\w+)(?::0?(\d*)d)?\}")


@dataclass(frozen=True)
class Camera:
    key: str
    kind: str
    """"video": in video files; "image": encoded images in the table."""


@dataclass(frozen=True)
class Episode:
    """The place of one episode; paths are relative to the data set."""

    number: int
    num_frames: int
    instruction: str
    table: str
    video: str
    """Empty if the frames are in the table."""
    start: float = 0.0
    """Time in the video at which it begins, seconds."""

    @property
    def file(self) -> str:
        """The file that holds its frames."""
        return self.video or self.table


@dataclass(frozen=True)
class Meta:
    """The metadata of a data set."""

    root: Path
    version: str
    hz: float
    camera: Camera
    features: dict[str, Any]
    episodes: list[Episode]
    splits: dict[str, list[int]]
    """Name -> positions in `episodes`."""
    absent: list[Episode]
    """Episodes whose file is missing."""
    files: list[Path]
    """All files of `meta/`."""


def read_meta(root: Path, image_key: str | None = None) -> Meta:
    """Reads `meta/`. Raises UserError, which names the file that is missing, damaged, or of another layout."""
    info = read_json(root / INFO)
    version = str(info.get("codebase_version", ""))
    if not re.fullmatch(r"v?[23]\.\d+(\.\d+)?", version):
        raise UserError(
            f"{root / INFO}: unknown LeRobot layout '{version}'; expected version 2 or 3; convert the data set to v3.0"
        )
    try:
        features = dict(info["features"])
        hz, chunk = float(info["fps"]), max(1, int(info.get("chunks_size") or 1000))
        tables, videos = str(info["data_path"]), str(info.get("video_path") or "")
        if not 0 < hz < float("inf"):
            raise ValueError(f"fps {hz:g}")
        cameras = find_cameras(features, image_key, root)
        is_v3 = version.strip("v")[0] == "3"
        rows = list(read_episodes_v3(root, cameras) if is_v3 else read_episodes_v2(root, chunk))
        check_rows(root, info, rows)
        found = [
            (camera, [episode_of(row, camera, tables, videos, hz) for row in rows if row["length"] > 0])
            for camera in cameras
        ]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        reason = f"no entry {error}" if isinstance(error, KeyError) else error
        raise UserError(
            f"{root / INFO} and the files next to it are not consistent ({reason}): download meta/ again"
        ) from None
    # The first camera with a file is read: users download parts of data sets.
    by_presence = [(camera, [os.path.isfile(root / e.file) for e in episodes], episodes) for camera, episodes in found]
    camera, present, episodes = next((entry for entry in by_presence if any(entry[1])), by_presence[0])
    if not any(present):
        example = episodes[0].file if episodes else "those of an episode"
        raise UserError(
            f"{root} has the metadata of {len(rows)} episodes but none of their files: download some, such as {example}"
        )
    kept = list(itertools.compress(episodes, present))
    absent = [episode for episode, there in zip(episodes, present, strict=True) if not there]
    if image_key is None and len(cameras) > 1:
        others = ", ".join(other.key for other in cameras if other != camera)
        warn(f"{root}: reading the camera '{camera.key}'; --image-key chooses another ({others})")
    splits = split_ranges(root, info.get("splits"), kept)
    return Meta(root, version, hz, camera, features, kept, splits, absent, meta_files(root))


def meta_files(root: Path) -> list[Path]:
    return sorted(folder / name for folder, _, names in walk(root / "meta") for name in names)


def check_rows(root: Path, info: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Sorts episodes by number; prints notes. Raises UserError if an episode is listed twice."""
    rows.sort(key=lambda row: row["number"])
    numbers = [row["number"] for row in rows]
    if len({*numbers}) < len(numbers):
        twice = next(one for one, other in itertools.pairwise(numbers) if one == other)
        raise UserError(f"{root / 'meta'} lists episode {twice} twice: download meta/ again")
    if any(row["length"] < 0 for row in rows):
        raise ValueError("an episode of negative length")
    for key, value in (("total_episodes", len(rows)), ("total_frames", sum(row["length"] for row in rows))):
        stated = info.get(key)
        if isinstance(stated, int) and stated != value:
            warn(f"{root / INFO} states {key} {stated}, but the episodes listed in meta/ have {value}: reading those")
            break
    empty = [row["number"] for row in rows if not row["length"]]
    if empty:
        warn(f"{root}: {len(empty)} episodes have no frames, such as {empty[0]}: left out")
    several = [row["number"] for row in rows if row["num_tasks"] > 1]
    if several:
        warn(f"{root}: {len(several)} episodes have several tasks, such as {several[0]}: the first is the instruction")


def instruction_of(tasks: Any, root: Path) -> tuple[str, int]:
    """Instruction and number of tasks of an entry `tasks`: a text, a list of texts, or a number of meta/tasks."""
    if isinstance(tasks, list | tuple):
        texts = list(dict.fromkeys(instruction_of(task, root)[0] for task in tasks))
        return (texts[0] if texts else ""), len(texts)
    if isinstance(tasks, int) and not isinstance(tasks, bool):
        for line in read_text(root / "meta/tasks.jsonl").split("\n"):
            row = json.loads(line) if line.strip() else {}
            if row.get("task_index") == tasks:
                return str(row["task"]), 1
        raise ValueError(f"task {tasks} is not in meta/tasks.jsonl")
    if tasks is not None and not isinstance(tasks, str):
        raise ValueError(f"tasks {tasks!r}")
    return tasks or "", 1


def whole(value: Any) -> int:
    """A whole number as an int. Raises ValueError."""
    if int(value) != value:
        raise ValueError(f"{value!r} is not a whole number")
    return int(value)


def find_cameras(features: dict[str, Any], asked: str | None, root: Path) -> list[Camera]:
    """The camera `asked` by its key or the end of its key; without it, all cameras, the most likely one first."""
    known = {
        key: Camera(key, value["dtype"])
        for key, value in features.items()
        if value.get("dtype") in ("video", "image")
        and "depth" not in key
        and not (value.get("info") or {}).get("video.is_depth_map")
    }
    names = ", ".join(known) or "none"
    if asked is not None:
        hits = [key for key in known if key == asked or key.endswith(("." + asked, "/" + asked))]
        if len(hits) != 1:
            raise UserError(f"{root} has no camera '{asked}': pass one of its cameras, {names}")
        return [known[hits[0]]]
    if not known:
        raise UserError(f"{root / INFO} lists no camera: choose a data set with video or image features")

    def rank(camera: Camera) -> int:
        name = camera.key.rsplit(".", 1)[-1]
        return PREFERRED.index(name) if name in PREFERRED else len(PREFERRED) + ("wrist" in name or "gripper" in name)

    return sorted(known.values(), key=rank)


def read_episodes_v2(root: Path, chunk: int) -> Iterator[dict[str, Any]]:
    path = root / "meta/episodes.jsonl"
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            episode, length = whole(row["episode_index"]), whole(row["length"])
            words, num_tasks = instruction_of(row.get("tasks"), root)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(f"{path}, line {number} is not an episode: download meta/ again") from None
        yield {
            "number": episode, "length": length, "instruction": words, "num_tasks": num_tasks,
            "fields": {"episode_index": episode, "episode_chunk": episode // chunk},
        }  # fmt: skip


def read_episodes_v3(root: Path, cameras: list[Camera]) -> Iterator[dict[str, Any]]:
    parquet = pyarrow_parquet()
    files = find_files(root / "meta/episodes", (".parquet",)) if (root / "meta/episodes").is_dir() else []
    if not files:
        raise UserError(f"{root / 'meta/episodes'} holds no .parquet: download meta/ again")
    for file in files:
        try:
            names = parquet.read_schema(file).names
            wanted = ["episode_index", "length", "tasks", "data/chunk_index", "data/file_index"]
            wanted += [f"videos/{camera.key}/{part}" for camera in cameras for part in VIDEO_PARTS]
            rows = parquet.read_table(file, columns=[name for name in wanted if name in names]).to_pylist()
        except (OSError, ValueError, NotImplementedError) as error:  # subclasses of these are pyarrow's errors
            raise UserError(f"{file} is not a table of episodes ({first_line(error)}): download meta/ again") from None
        for row in rows:
            words, num_tasks = instruction_of(row.get("tasks"), root)
            yield {
                "number": whole(row["episode_index"]), "length": whole(row["length"]),
                "instruction": words, "num_tasks": num_tasks, "row": row,
                "fields": {"chunk_index": int(row["data/chunk_index"]), "file_index": int(row["data/file_index"])},
            }  # fmt: skip


def episode_of(row: dict[str, Any], camera: Camera, tables: str, videos: str, hz: float) -> Episode:
    fields, video, start = row["fields"], "", 0.0
    if camera.kind == "video":
        own = dict(fields)
        if "row" in row:
            chunk, file, begin = (row["row"][f"videos/{camera.key}/{part}"] for part in VIDEO_PARTS)
            own, start = {"chunk_index": int(chunk), "file_index": int(file)}, float(begin)
            if not 0 <= start < float("inf"):
                raise ValueError(f"episode {row['number']} begins at {start} s")
        video = fill(videos, {**own, "video_key": camera.key})
    return Episode(row["number"], row["length"], row["instruction"], fill(tables, fields), video, start)


def fill(template: str, fields: dict[str, Any]) -> str:
    """Fills a path template of info.json, without `str.format`, which would also read attributes of the values."""

    def value(match: re.Match) -> str:
        found = fields[match[1]]
        return f"{found:0{int(match[2])}d}" if match[2] else str(found)

    path = FIELD.sub(value, template)
    if not path or path.startswith("/") or ".." in Path(path).parts:
        raise ValueError(f"path '{path}' leads out of the data set")
    return path


def split_ranges(root: Path, splits: Any, episodes: list[Episode]) -> dict[str, list[int]]:
    """Positions of the episodes of each split: 'train': '0:50' has the numbers 0 .. 49. Default: all are 'train'.

    Prints notes about splits that share episodes or are not ranges, and about episodes in no split, which are left out.
    """
    found: dict[str, list[int]] = {}
    stated = splits if isinstance(splits, dict) else {}
    for name, text in stated.items():
        match = re.fullmatch(r"(\d+):(\d+)", str(text))
        if not match:
            warn(f"{root / INFO}: the split '{name}' is {text!r}, which is not a range such as '0:50': left out")
            continue
        chosen = [i for i, e in enumerate(episodes) if int(match[1]) <= e.number < int(match[2])]
        if chosen:
            found[str(name)] = chosen
    if not found:
        if stated:
            warn(f"{root / INFO}: no episode is in any of its splits: all are read as 'train'")
        return {"train": list(range(len(episodes)))}
    counts = np.bincount(np.concatenate(list(found.values())), minlength=len(episodes))
    if (counts == 0).any():
        warn(f"{root / INFO}: {int((counts == 0).sum())} episodes are in none of its splits: left out")
    if (counts > 1).any():
        warn(f"{root / INFO}: {int((counts > 1).sum())} episodes are in several of its splits")
    return found


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({first_line(error)}): download meta/ again") from None


def read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(read_text(path))
    except (ValueError, RecursionError):
        raise UserError(f"{path} is not JSON: download meta/ again") from None
    if not isinstance(found, dict):
        raise UserError(f"{path} is not a JSON object: download meta/ again")
    return found


def pyarrow_parquet() -> Any:
    """The module. Raises UserError if pyarrow is not installed."""
    try:
        import pyarrow.parquet as parquet
    except ModuleNotFoundError:
        raise UserError("reading a LeRobotDataset needs pyarrow: pip install pyarrow") from None
    return parquet
