"""`open_source`: any kind of robot video as one view of episodes."""

import os
from dataclasses import asdict, dataclass
from pathlib import Path

from genie_datasets.base.errors import UserError
from genie_datasets.base.folders import first_of, walk
from genie_datasets.base.globs import Globs
from genie_datasets.base.notes import warn
from genie_datasets.sources.arrays import find_arrays, open_arrays
from genie_datasets.sources.catalog import MIXES, SHORT, known
from genie_datasets.sources.frame_cache import find_caches, open_caches
from genie_datasets.sources.lerobot.source import open_lerobot
from genie_datasets.sources.mixture import open_mixture, parse_mixture
from genie_datasets.sources.rlds.source import open_rlds
from genie_datasets.sources.split import Source
from genie_datasets.sources.video.source import SUFFIXES, find_videos, open_videos

READERS = ("index", "rlds")
MAX_DEPTH = 6  # folders between the given one and the one that holds features.json
LEROBOT_DEPTH = 7  # the same for meta/info.json


@dataclass(frozen=True)
class _Options:
    """The options of `open_source`."""

    hz: float | None
    include: Globs
    exclude: Globs
    reader: str
    image_key: str | None
    unfiltered: bool
    skip_damaged: bool
    resample: float | None


def open_source(
    path_or_name: str | Path,
    hz: float | None = None,
    include: Globs = None,
    exclude: Globs = None,
    reader: str = "index",
    image_key: str | None = None,
    unfiltered: bool = False,
    skip_damaged: bool = False,
    resample: float | None = None,
) -> Source:
    """Opens robot video of any kind.

    Args:
        path_or_name: an RLDS/TFDS folder or a LeRobotDataset (or a folder above it), a folder of videos or of numpy
            files, a video file, a frame cache, a name below TFDS_DATA_DIR, a gs:// address, several of these with
            weights ("A:0.7,B:0.3"), or the name of a mixture of the catalog.
        hz: control rate of the robot, frames per second, if the source does not state it.
        include, exclude: globs of shards or files.
        reader: "index" reads TFRecord shards without TensorFlow; "rlds" reads through TFDS and `rlds.transformations`.
        image_key: the camera, if a data set has several.
        unfiltered: also read the episodes that the catalog leaves out.
        skip_damaged: leave out what cannot be read, and print a note with their number. To find it, every image is
            decoded once.
        resample: frames per second of video files, taken by the clock of the container.

    Raises:
        UserError: the source cannot be read, or an option does not fit it.
    """
    if reader not in READERS:
        raise UserError(f"unknown reader '{reader}'; --reader must be one of {', '.join(READERS)}")
    hz, resample = _checked_rate("hz", hz), _checked_rate("resample", resample)
    if hz is not None and resample is not None:
        raise UserError(
            "--hz cannot be combined with --resample: --hz declares the rate of the stored frames, --resample takes "
            "frames by the clock of the container; pass one of them"
        )
    text = str(path_or_name)
    if not text.strip():
        raise UserError("the source is an empty text; expected the folder of robot video, or '.' for this folder")
    options = _Options(hz, include, exclude, reader, image_key, unfiltered, skip_damaged, resample)
    if not Path(text).exists():
        if parts := parse_mixture(text):
            return open_mixture(text, [(open_source(part, **asdict(options)), weight) for part, weight in parts])
        if text in MIXES:
            members = [open_source(name, **asdict(options)) for name in MIXES[text]]
            return open_mixture(text, [(member, seconds_of_video(member)) for member in members])
    place = find_path(text)
    return _open_bucket(place, options) if isinstance(place, str) else _open_path(place, options)


def _checked_rate(option: str, value: float | None) -> float | None:
    """A rate as a float. Raises UserError unless it is a positive number."""
    if value is None:
        return None
    try:
        rate = float(value)
    except (TypeError, ValueError):
        rate = float("nan")
    if not 0 < rate < float("inf"):
        raise UserError(f"--{option} must be positive frames per second, got {value}: pass --{option} 3")
    return rate


def _refuse(place: str | Path, reason: str, options: _Options, *names: str) -> None:
    """Raises UserError if one of these options is set: an option is never ignored silently."""
    for name in names:
        if getattr(options, name):
            raise UserError(f"{place}: --{name.replace('_', '-')} cannot be used here: {reason}; leave it out")


def seconds_of_video(source: Source) -> float:
    """Seconds of video in all splits, which is the weight of a source in a named mixture."""
    return sum(float((split.num_frames / split.hz).sum()) for split in source.splits.values())


def _open_bucket(address: str, options: _Options) -> Source:
    reason = "a bucket is read in whole splits, with --reader rlds"
    _refuse(address, reason, options, "include", "exclude", "resample")
    return _open_tfds(address, options, "TFDS")


def _open_tfds(address: str, options: _Options, reader: str) -> Source:
    from genie_datasets.sources.rlds.tfds_reader import open_tfds  # imports TensorFlow

    _refuse(address, f"{reader} cannot skip damaged records", options, "skip_damaged")
    return open_tfds(address, options.hz, options.image_key, options.unfiltered)


def _open_path(path: Path, o: _Options) -> Source:
    if path.is_file():
        if path.suffix.lower() not in SUFFIXES:
            raise UserError(f"{path} is a file; expected a folder, or a video ({', '.join(SUFFIXES)})")
        _refuse(path, "it is one video file", o, "include", "exclude")
        return open_videos(path, o.hz, skip_damaged=o.skip_damaged, resample=o.resample)
    if caches := find_caches(path):
        reason = "it is a frame cache; pass the option to `data cache` instead"
        _refuse(path, reason, o, "include", "exclude", "resample", "image_key")
        _note_other_files(path, caches)
        return open_caches(path, caches, o.hz)
    if folder := find_rlds(path):
        _refuse(folder, "it is an RLDS data set, and only video files are resampled", o, "resample")
        _note_other_files(path, [folder])
        if o.reader == "rlds":
            _refuse(folder, "--reader rlds reads whole splits", o, "include", "exclude")
            return _open_tfds(str(folder), o, "--reader rlds")
        return open_rlds(folder, o.hz, o.include, o.exclude, o.image_key, o.unfiltered, o.skip_damaged)
    if root := find_lerobot(path):
        _refuse(root, "it is a LeRobotDataset, and only video files are resampled", o, "resample")
        _note_other_files(path, [root])
        return open_lerobot(root, o.hz, o.include, o.exclude, o.image_key, o.skip_damaged)
    if any(path.glob("*.tfrecord*")):
        raise UserError(
            f"{path} has TFRecord shards but no features.json: copy features.json of the data set into this folder"
        )
    arrays = find_arrays(path)
    if find_videos(path):
        _refuse(path, "a folder of videos has one camera; choose files with --include", o, "image_key")
        if arrays:
            warn(f"{path} holds videos and numpy files: the {len(arrays)} numpy files are left out")
        return open_videos(path, o.hz, o.include, o.exclude, o.skip_damaged, o.resample)
    if arrays:
        _refuse(path, "it is a folder of numpy files, and only video files are resampled", o, "resample")
        if o.skip_damaged:
            warn(f"--skip-damaged has no effect on the numpy files of {path}: leave files out with --exclude")
        return open_arrays(path, o.hz, o.include, o.exclude, o.image_key)
    raise _nothing_found(path)


def _nothing_found(path: Path) -> UserError:
    """The error of a folder that holds no finished data set."""
    if unfinished := next((folder for folder, _, _ in walk(path) if folder.suffix == ".incomplete"), None):
        if "tabletop" in unfinished.parts:
            return UserError(f"{unfinished} is not finished: rerun the `data tabletop` command that began it")
        return UserError(f"{unfinished} is not finished, because its writer was stopped: write it again")
    return UserError(
        f"{path} holds no robot video; expected features.json with TFRecord shards (RLDS), a LeRobotDataset, videos "
        f"({', '.join(SUFFIXES)}) or numpy files; choose a folder that holds one of these"
    )


def _note_other_files(path: Path, folders: list[Path]) -> None:
    """Prints a note if there are videos or numpy files below `path` that are not in the folders that are read."""
    if path in folders:
        return
    found = (*find_videos(path), *find_arrays(path))
    others = [file for file in found if not any(file.is_relative_to(folder) for folder in folders)]
    if others:
        names = ", ".join(str(folder.relative_to(path)) for folder in folders[:3])
        warn(f"{path}: reading {names}; {first_of(others)} is left out")


def find_path(text: str) -> Path | str:
    """The folder or file that a path or a name means; for a data set that is only in a bucket, its address."""
    if text.startswith("gs://"):
        return text
    path = Path(text).expanduser()
    if path.exists():
        return path
    homes = [Path(h).expanduser() for h in (os.environ.get("TFDS_DATA_DIR"), "~/tensorflow_datasets") if h]
    if "/" not in text:
        for home in homes:
            if (home / text).is_dir():
                return home / text
        row = known(text)
        if row and row.address and text in (row.name, *(short for short, name in SHORT.items() if name == row.name)):
            warn(f"{text} is in none of {', '.join(map(str, homes))}: reading {row.address}, which is slow")
            return row.address
    looked = f", and no data set of that name in {' or '.join(map(str, homes))}" if "/" not in text else ""
    raise UserError(f"there is no '{text}'{looked}: choose a folder of robot video, or make one with `data tabletop`")


def find_rlds(path: Path) -> Path | None:
    """The folder with features.json at or below `path`; of several versions of one data set the newest, with a note.

    Unfinished data sets (NAME.incomplete) are skipped. Raises UserError if there are several data sets.
    """
    found = _folders_with(path, "features.json", MAX_DEPTH)
    _check_one(path, {folder.parent: folder for folder in found}, found)
    newest = max(found, key=_version, default=None)
    if newest and len(found) > 1:
        others = ", ".join(sorted(folder.name for folder in found if folder != newest))
        warn(f"{newest.parent} holds several versions: reading {newest.name}; pass the folder of another ({others})")
    return newest


def find_lerobot(path: Path) -> Path | None:
    """The folder with meta/info.json at or below `path`. Raises UserError if there are several."""
    found = [folder.parent for folder in _folders_with(path, "info.json", LEROBOT_DEPTH) if folder.name == "meta"]
    _check_one(path, found, found)
    return found[0] if found else None


def _check_one(path: Path, data_sets: dict[Path, Path] | list[Path], folders: list[Path]) -> None:
    if len(data_sets) > 1:
        names = ", ".join(sorted(str(folder.relative_to(path)) for folder in folders))
        raise UserError(f"{path} holds several data sets ({names}): give one of these folders")


def _folders_with(path: Path, name: str, max_depth: int) -> list[Path]:
    """Every folder at or below `path` that holds a file of this name, without those inside another such folder."""
    found: list[Path] = []
    for folder, subfolders, files in walk(path):
        subfolders[:] = [sub for sub in subfolders if not sub.endswith(".incomplete")]
        if name in files:
            found.append(folder)
            subfolders.clear()
        elif len(folder.relative_to(path).parts) >= max_depth:
            subfolders.clear()
    return found


def _version(folder: Path) -> tuple:
    parts = folder.name.split(".")
    return tuple(int(p) for p in parts) if all(p.isdigit() for p in parts) else (-1,)
