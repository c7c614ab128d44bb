"""The metadata of a LeRobotDataset: which frames of which file are an episode. Versions 2.0, 2.1 and 3.0.

v2: `meta/episodes.jsonl`, one parquet and one video file an episode. v3: `meta/episodes/**/*.parquet`, many episodes in
a file, each with where it begins in the video (seconds) and in the table (rows).
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genie_datasets.errors import UserError

INFO = "meta/info.json"
PREFERRED = ("image", "image_0", "top", "front", "ego_view", "base_view", "exterior_image_1_left", "cam_high")
FIELD = re.compile(r"\{(\w+)(?::0?(\d*)d)?\}")


@dataclass(frozen=True)
class Camera:
    key: str
    kind: str
    """video: files of their own; image: encoded images in the table."""


@dataclass(frozen=True)
class Episode:
    """Where one episode lies; paths are relative to the data set."""

    number: int
    num_frames: int
    instruction: str
    table: str
    video: str
    """Empty where the frames are in the table."""
    start: float = 0.0
    """Seconds into the video at which it begins."""


@dataclass(frozen=True)
class Meta:
    root: Path
    version: str
    hz: float
    camera: Camera
    features: dict[str, Any]
    episodes: list[Episode]
    splits: dict[str, list[int]]
    """Name -> positions in `episodes`."""
    absent: list[Episode]
    """Those whose file is not there."""


def is_lerobot(folder: Path) -> bool:
    return (folder / INFO).is_file()


def read_meta(root: Path, image_key: str | None = None) -> Meta:
    """Raises UserError that names the file which is missing, damaged, or of another layout."""
    info = read_json(root / INFO)
    version = str(info.get("codebase_version", ""))
    if not re.fullmatch(r"v?[23]\.\d+(\.\d+)?", version):
        raise UserError(f"{root / INFO}: LeRobot layout '{version}' is not known: convert the data set to v2.1 or v3.0")
    try:
        features = dict(info["features"])
        hz, chunk = float(info["fps"]), max(1, int(info.get("chunks_size") or 1000))
        tables, videos = str(info["data_path"]), str(info.get("video_path") or "")
        if not 0 < hz < float("inf"):
            raise ValueError(f"fps {hz:g}")
        cameras = find_cameras(features, image_key, root)
        rows = list(read_episodes_v3(root, cameras) if version.strip("v")[0] == "3" else read_episodes_v2(root, chunk))
        found = [
            (camera, [episode_of(row, camera, tables, videos, hz) for row in rows if row["length"] > 0])
            for camera in cameras
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{root / INFO} and its neighbours do not fit together ({error!r}): download meta/ again"
        ) from None
    # Of several cameras that would do, the first of which there is a file: parts of data sets are downloaded.
    by_presence = [(camera, [(root / where(e)).is_file() for e in episodes], episodes) for camera, episodes in found]
    camera, present, episodes = next((entry for entry in by_presence if any(entry[1])), by_presence[0])
    if not any(present):
        example = where(episodes[0]) if episodes else "any episode"
        raise UserError(
            f"{root} has the metadata of {len(rows)} episodes and not one file, such as {example}: download it"
        )
    kept = [episode for episode, there in zip(episodes, present, strict=True) if there]
    absent = [episode for episode, there in zip(episodes, present, strict=True) if not there]
    return Meta(root, version, hz, camera, features, kept, split_ranges(info.get("splits"), kept), absent)


def where(episode: Episode) -> str:
    """The file that its frames are in."""
    return episode.video or episode.table


def find_cameras(features: dict[str, Any], asked: str | None, root: Path) -> list[Camera]:
    """The camera asked for, by its key or the end of it; without one, all that would do, the likeliest first."""
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
            raise UserError(f"{root} has no camera '{asked}': its cameras are {names}")
        return [known[hits[0]]]
    if not known:
        raise UserError(f"{root / INFO} lists no camera: give a data set with video or image features")
    ranked = sorted(known, key=lambda key: rank(key.rsplit(".", 1)[-1]))
    return [known[key] for key in ranked]


def rank(name: str) -> int:
    return PREFERRED.index(name) if name in PREFERRED else len(PREFERRED) + ("wrist" in name or "gripper" in name)


def read_episodes_v2(root: Path, chunk: int) -> Iterator[dict[str, Any]]:
    path = root / "meta/episodes.jsonl"
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            episode, length, tasks = int(row["episode_index"]), int(row["length"]), row.get("tasks") or [""]
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{path}, line {number} is no episode: download meta/ again") from None
        yield {
            "number": episode, "length": length, "instruction": str(tasks[0]),
            "fields": {"episode_index": episode, "episode_chunk": episode // chunk},
        }  # fmt: skip


def read_episodes_v3(root: Path, cameras: list[Camera]) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as parquet

    files = sorted((root / "meta/episodes").glob("**/*.parquet"))
    if not files:
        raise UserError(f"{root / 'meta/episodes'} holds no .parquet: download meta/ again")
    parts = ("chunk_index", "file_index", "from_timestamp")
    for file in files:
        try:
            names = parquet.read_schema(file).names
            wanted = ["episode_index", "length", "tasks", "data/chunk_index", "data/file_index"]
            wanted += [f"videos/{camera.key}/{part}" for camera in cameras for part in parts]
            rows = parquet.read_table(file, columns=[name for name in wanted if name in names]).to_pylist()
        except (OSError, ValueError) as error:  # pyarrow's own errors are both
            raise UserError(f"{file} is no table of episodes ({first_line(error)}): download meta/ again") from None
        for row in rows:
            yield {
                "number": int(row["episode_index"]), "length": int(row["length"]),
                "instruction": str((row.get("tasks") or [""])[0]), "row": row,
                "fields": {"chunk_index": int(row["data/chunk_index"]), "file_index": int(row["data/file_index"])},
            }  # fmt: skip


def episode_of(row: dict[str, Any], camera: Camera, tables: str, videos: str, hz: float) -> Episode:
    table = fill(tables, row["fields"])
    if camera.kind == "image":
        return Episode(row["number"], row["length"], row["instruction"], table, "")
    if "row" not in row:
        return Episode(
            row["number"], row["length"], row["instruction"], table,
            fill(videos, {**row["fields"], "video_key": camera.key}),
        )  # fmt: skip
    own = {part: row["row"][f"videos/{camera.key}/{part}"] for part in ("chunk_index", "file_index", "from_timestamp")}
    fields = {"chunk_index": int(own["chunk_index"]), "file_index": int(own["file_index"]), "video_key": camera.key}
    start = float(own["from_timestamp"])
    if not 0 <= start < float("inf"):
        raise ValueError(f"episode {row['number']} begins at {start} s")
    return Episode(row["number"], row["length"], row["instruction"], table, fill(videos, fields), start)


def fill(template: str, fields: dict[str, Any]) -> str:
    """A path template of info.json, filled without `str.format`, which would read attributes of what it is given."""

    def value(match: re.Match) -> str:
        found = fields[match[1]]
        return f"{found:0{int(match[2])}d}" if match[2] else str(found)

    path = FIELD.sub(value, template)
    if not path or path.startswith("/") or ".." in Path(path).parts:
        raise ValueError(f"path '{path}' leads out of the data set")
    return path


def split_ranges(splits: Any, episodes: list[Episode]) -> dict[str, list[int]]:
    """'train': '0:50' -> positions of the episodes numbered 0 .. 49; all are `train` where nothing is said."""
    found: dict[str, list[int]] = {}
    for name, text in (splits or {}).items():
        match = re.fullmatch(r"(\d+):(\d+)", str(text))
        if match:
            chosen = [i for i, e in enumerate(episodes) if int(match[1]) <= e.number < int(match[2])]
            if chosen:
                found[str(name)] = chosen
    return found or {"train": list(range(len(episodes)))}


def read_text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({first_line(error)}): download meta/ again") from None


def read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(read_text(path))
    except (ValueError, RecursionError):
        raise UserError(f"{path} is not JSON: download meta/ again") from None
    if not isinstance(found, dict):
        raise UserError(f"{path} holds no object: download meta/ again")
    return found


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
