"""`open_source`: any kind of robot video, one view."""

import os
from pathlib import Path

from genie_datasets.errors import UserError
from genie_datasets.globs import Globs
from genie_datasets.split import Source

READERS = ("index", "rlds")
MAX_DEPTH = 6  # folders between the one given and the one that holds features.json


def open_source(
    path_or_name: str | Path,
    hz: float | None = None,
    include: Globs = None,
    exclude: Globs = None,
    reader: str = "index",
    image_key: str | None = None,
) -> Source:
    """Open an RLDS/TFDS folder or a LeRobotDataset (or a folder above it), a folder of videos, a frame cache, or a name
    below TFDS_DATA_DIR.

    hz: the robot's control rate, where the source does not state it. include, exclude: globs of shards or videos.
    reader: "index" reads TFRecord shards without TensorFlow, "rlds" through TFDS and `rlds.transformations` (it also
    opens gs:// addresses). Several sources with weights: "A:0.7,B:0.3". Raises UserError.
    """
    from genie_datasets.mixture import open_mixture, parse_mixture

    if reader not in READERS:
        raise UserError(f"'{reader}' is no reader: --reader is one of {', '.join(READERS)}")
    if hz is not None and not 0 < hz < float("inf"):
        raise UserError(f"--hz {hz:g} is no control rate: give frames a second, such as --hz 3")
    text = str(path_or_name)
    parts = [] if Path(text).exists() else parse_mixture(text)
    if parts:
        opened = [(open_source(part, hz, include, exclude, reader, image_key), weight) for part, weight in parts]
        return open_mixture(text, opened)
    if text.startswith("gs://"):
        from genie_datasets.tfds_reader import open_tfds

        return open_tfds(text, hz, image_key)
    return _open_path(find_path(text), hz, include, exclude, reader, image_key)


def _open_path(
    path: Path, hz: float | None, include: Globs, exclude: Globs, reader: str, image_key: str | None
) -> Source:
    from genie_datasets.frame_cache import find_caches, open_caches
    from genie_datasets.video_source import SUFFIXES, find_videos, open_videos

    if path.is_file():
        if path.suffix.lower() in SUFFIXES:
            return open_videos(path, hz)
        raise UserError(f"{path} is a file: give the folder of the data set")
    if caches := find_caches(path):
        return open_caches(path, caches)
    if folder := find_rlds(path):
        if reader == "rlds":
            from genie_datasets.tfds_reader import open_tfds

            if include or exclude:
                raise UserError("--reader rlds reads whole splits: leave out --include and --exclude")
            return open_tfds(str(folder), hz, image_key)
        from genie_datasets.rlds_source import open_rlds

        return open_rlds(folder, hz, include, exclude, image_key)
    if root := find_lerobot(path):
        from genie_datasets.lerobot_source import open_lerobot

        return open_lerobot(root, hz, include, exclude, image_key)
    if any(path.glob("*.tfrecord*")):
        raise UserError(f"{path} has TFRecord shards but no features.json: copy it from the data set, beside them")
    if find_videos(path):
        return open_videos(path, hz, include, exclude)
    if unfinished := next(path.glob("**/*.incomplete"), None):
        raise UserError(f"{unfinished} is not finished: run the `data tabletop` command that began it again")
    raise UserError(
        f"{path} holds no robot video: neither features.json with TFRecord shards (RLDS) nor videos "
        f"({', '.join(SUFFIXES)}); give a folder that does"
    )


def find_path(text: str) -> Path:
    """The folder or file that a path or a data set's name means."""
    path = Path(text).expanduser()
    if path.exists():
        return path
    homes = [Path(h).expanduser() for h in (os.environ.get("TFDS_DATA_DIR"), "~/tensorflow_datasets") if h]
    if "/" not in text:
        for home in homes:
            if (home / text).is_dir():
                return home / text
    looked = f", and no data set of that name in {' or '.join(map(str, homes))}" if "/" not in text else ""
    raise UserError(f"there is no '{text}'{looked}: give a folder of robot video, or make one with `data tabletop`")


def find_rlds(path: Path) -> Path | None:
    """The folder with features.json at or below `path`; of several versions of one data set, the newest.

    A data set that is being made (NAME.incomplete) is not looked into.
    """
    found: list[Path] = []
    for folder, subfolders, files in os.walk(path):
        subfolders[:] = [name for name in subfolders if not name.endswith(".incomplete")]
        if "features.json" in files:
            found.append(Path(folder))
            subfolders.clear()
        elif len(Path(folder).relative_to(path).parts) >= MAX_DEPTH:
            subfolders.clear()
    if len({folder.parent for folder in found}) > 1:
        names = ", ".join(sorted(str(folder.relative_to(path)) for folder in found))
        raise UserError(f"{path} holds several data sets ({names}): give one of these folders")
    return max(found, key=_version, default=None)


def find_lerobot(path: Path) -> Path | None:
    """The folder with meta/info.json at `path` or a few levels below it; raises UserError when there are several."""
    from genie_datasets.lerobot_meta import INFO

    for depth in range(4):
        found = sorted(file.parent.parent for file in path.glob("*/" * depth + INFO))
        if len(found) > 1:
            names = ", ".join(str(folder.relative_to(path)) for folder in found)
            raise UserError(f"{path} holds several data sets ({names}): give one of these folders")
        if found:
            return found[0]
    return None


def _version(folder: Path) -> tuple:
    parts = folder.name.split(".")
    return tuple(int(p) for p in parts) if all(p.isdigit() for p in parts) else (-1,)
