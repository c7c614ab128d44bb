"""`open_source`: any kind of robot video, one view."""

import os
from pathlib import Path

from genie_datasets.base.errors import UserError
from genie_datasets.base.folders import such, walk
from genie_datasets.base.globs import Globs
from genie_datasets.base.notes import warn
from genie_datasets.sources.registry import MIXES, SHORT, known
from genie_datasets.sources.split import Source

READERS = ("index", "rlds")
MAX_DEPTH = 6  # folders between the one given and the one that holds features.json
LEROBOT_DEPTH = 7  # and meta/info.json


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
    """Open an RLDS/TFDS folder or a LeRobotDataset (or a folder above it), a folder of videos or of numpy files, a
    frame cache, or a name below TFDS_DATA_DIR.

    hz: the robot's control rate, where the source does not state it. include, exclude: globs of shards or videos.
    reader: "index" reads TFRecord shards without TensorFlow, "rlds" through TFDS and `rlds.transformations` (it also
    opens gs:// addresses). unfiltered: also episodes that the catalogue leaves out. skip_damaged: without what
    cannot be read, which a warning counts; to find that, every image is decoded once. resample: frames per second of
    video files, taken by the container's clock. Several sources with weights: "A:0.7,B:0.3"; a mixture of the catalogue
    by its name. Raises UserError.
    """
    from genie_datasets.sources.mixture import open_mixture, parse_mixture

    if reader not in READERS:
        raise UserError(f"'{reader}' is no reader: --reader is one of {', '.join(READERS)}")
    hz, resample = rate_of("hz", hz), rate_of("resample", resample)
    if hz is not None and resample is not None:
        raise UserError(
            "--hz declares the rate of the stored frames and --resample takes frames by the container's clock: they "
            "cannot be combined; pass one of them"
        )
    text = str(path_or_name)
    if not text.strip():
        raise UserError("the source is an empty text: give the folder of robot video, or '.' for this one")
    if not Path(text).exists():
        if parts := parse_mixture(text):
            opened = [
                (open_source(part, hz, include, exclude, reader, image_key, unfiltered, skip_damaged, resample), weight)
                for part, weight in parts
            ]
            return open_mixture(text, opened)
        if text in MIXES:
            members = [
                open_source(name, hz, include, exclude, reader, image_key, unfiltered, skip_damaged, resample)
                for name in MIXES[text]
            ]
            return open_mixture(text, [(member, seconds_of_video(member)) for member in members])
    place = find_path(text)
    if isinstance(place, str):
        from genie_datasets.sources.rlds.tfds_reader import open_tfds

        refuse(
            place, "an address in a bucket is read in whole splits", include=include, exclude=exclude, resample=resample
        )
        refuse_skipping(skip_damaged)
        return open_tfds(place, hz, image_key, unfiltered)
    return _open_path(place, hz, include, exclude, reader, image_key, unfiltered, skip_damaged, resample)


def rate_of(option: str, value: float | None) -> float | None:
    """A rate as a float. Raises UserError where it is none."""
    if value is None:
        return None
    try:
        rate = float(value)
    except (TypeError, ValueError):
        rate = float("nan")
    if not 0 < rate < float("inf"):
        raise UserError(f"--{option} must be positive frames per second, got {value}: pass --{option} 3")
    return rate


def refuse(place: str | Path, why: str, **options: object) -> None:
    """Raises UserError where one of these options is set: nothing that was asked for is ignored."""
    for name, value in options.items():
        if value:
            raise UserError(f"{place}: --{name.replace('_', '-')} cannot be used here: {why}; leave it out")


def refuse_skipping(skip_damaged: bool) -> None:
    if skip_damaged:
        raise UserError("--reader rlds cannot skip damaged records: leave out --skip-damaged, or read with the index")


def seconds_of_video(source: Source) -> float:
    """Of all splits together: what the members of a named mixture are weighed by."""
    return sum(float((split.num_frames / split.hz).sum()) for split in source.splits.values())


def _open_path(
    path: Path,
    hz: float | None,
    include: Globs,
    exclude: Globs,
    reader: str,
    image_key: str | None,
    unfiltered: bool,
    skip_damaged: bool,
    resample: float | None,
) -> Source:
    from genie_datasets.sources.arrays import find_arrays, open_arrays
    from genie_datasets.sources.frame_cache import find_caches, open_caches
    from genie_datasets.sources.video.source import SUFFIXES, find_videos, open_videos

    no_clock = "it samples video files by their clock, and this is {}, which states times of its own or none"
    if path.is_file():
        if path.suffix.lower() in SUFFIXES:
            refuse(path, "it is one video file", include=include, exclude=exclude)
            return open_videos(path, hz, skip_damaged=skip_damaged, resample=resample)
        raise UserError(f"{path} is a file: give the folder of the data set")
    if caches := find_caches(path):
        if include or exclude:
            raise UserError(
                f"{path} is a frame cache, which knows no shards: give --include and --exclude to `data cache`"
            )
        refuse(path, "it is a frame cache; give it to `data cache`", resample=resample, image_key=image_key)
        say_what_else(path, caches)
        return open_caches(path, caches, hz)
    if folder := find_rlds(path):
        refuse(folder, no_clock.format("an RLDS data set"), resample=resample)
        say_what_else(path, [folder])
        if reader == "rlds":
            from genie_datasets.sources.rlds.tfds_reader import open_tfds

            if include or exclude:
                raise UserError("--reader rlds reads whole splits: leave out --include and --exclude")
            refuse_skipping(skip_damaged)
            return open_tfds(str(folder), hz, image_key, unfiltered)
        from genie_datasets.sources.rlds.source import open_rlds

        return open_rlds(folder, hz, include, exclude, image_key, unfiltered, skip_damaged)
    if root := find_lerobot(path):
        from genie_datasets.sources.lerobot.source import open_lerobot

        refuse(root, no_clock.format("a LeRobotDataset"), resample=resample)
        say_what_else(path, [root])
        return open_lerobot(root, hz, include, exclude, image_key, skip_damaged)
    if any(path.glob("*.tfrecord*")):
        raise UserError(f"{path} has TFRecord shards but no features.json: copy it from the data set, beside them")
    if find_videos(path):
        refuse(path, "a folder of videos has one camera; choose files with --include", image_key=image_key)
        if arrays := find_arrays(path):
            warn(f"{path} holds videos and numpy files: the {len(arrays)} numpy files are left out")
        return open_videos(path, hz, include, exclude, skip_damaged, resample)
    if find_arrays(path):
        refuse(path, no_clock.format("a folder of numpy files"), resample=resample)
        if skip_damaged:
            warn(f"--skip-damaged does nothing for numpy files such as those of {path}: leave them out with --exclude")
        return open_arrays(path, hz, include, exclude, image_key)
    if unfinished := next((folder for folder, _, _ in walk(path) if folder.suffix == ".incomplete"), None):
        if "tabletop" in unfinished.parts:
            raise UserError(f"{unfinished} is not finished: rerun the `data tabletop` command that began it")
        raise UserError(f"{unfinished} is not finished, because its writer was stopped: write it again")
    raise UserError(
        f"{path} holds no robot video: neither features.json with TFRecord shards (RLDS) nor videos "
        f"({', '.join(SUFFIXES)}) nor numpy files; give a folder that does"
    )


def say_what_else(path: Path, folders: list[Path]) -> None:
    """A note where videos or numpy files lie beside what was found below `path`."""
    from genie_datasets.sources.arrays import find_arrays
    from genie_datasets.sources.video.source import find_videos

    if path in folders:
        return
    found = (*find_videos(path), *find_arrays(path))
    others = [file for file in found if not any(file.is_relative_to(folder) for folder in folders)]
    if others:
        names = ", ".join(str(folder.relative_to(path)) for folder in folders[:3])
        warn(f"{path} holds more than {names}, which is read: {such(others)} is left out")


def find_path(text: str) -> Path | str:
    """The folder or file that a path or a data set's name means; the address of its bucket, where it is not here."""
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
    raise UserError(f"there is no '{text}'{looked}: give a folder of robot video, or make one with `data tabletop`")


def find_rlds(path: Path) -> Path | None:
    """The folder with features.json at or below `path`; of several versions of one data set, the newest, which is said.

    A data set that is being made (NAME.incomplete) is not looked into.
    """
    found = folders_with(path, "features.json", MAX_DEPTH)
    if len({folder.parent for folder in found}) > 1:
        names = ", ".join(sorted(str(folder.relative_to(path)) for folder in found))
        raise UserError(f"{path} holds several data sets ({names}): give one of these folders")
    newest = max(found, key=_version, default=None)
    if newest and len(found) > 1:
        others = ", ".join(sorted(folder.name for folder in found if folder != newest))
        warn(f"{newest.parent} holds several versions: reading {newest.name}; give the folder of another ({others})")
    return newest


def find_lerobot(path: Path) -> Path | None:
    """The folder with meta/info.json at `path` or a few levels below it; raises UserError when there are several."""
    found = [folder.parent for folder in folders_with(path, "info.json", LEROBOT_DEPTH) if folder.name == "meta"]
    if len(found) > 1:
        names = ", ".join(str(folder.relative_to(path)) for folder in sorted(found))
        raise UserError(f"{path} holds several data sets ({names}): give one of these folders")
    return found[0] if found else None


def folders_with(path: Path, name: str, most_depth: int) -> list[Path]:
    """Every folder at or a few levels below `path` that holds a file of this name, and is not inside another such."""
    found: list[Path] = []
    for folder, subfolders, files in walk(path):
        subfolders[:] = [sub for sub in subfolders if not sub.endswith(".incomplete")]
        if name in files:
            found.append(folder)
            subfolders.clear()
        elif len(folder.relative_to(path).parts) >= most_depth:
            subfolders.clear()
    return found


def _version(folder: Path) -> tuple:
    parts = folder.name.split(".")
    return tuple(int(p) for p in parts) if all(p.isdigit() for p in parts) else (-1,)
