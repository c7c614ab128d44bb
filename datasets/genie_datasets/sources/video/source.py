"""Folders of videos: one file per episode, whose name is the instruction, in subfolders and behind links too."""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple
from importlib.metadata import version
from pathlib import Path

import numpy as np

from genie_datasets.base.cache_dir import cache_dir, fingerprint
from genie_datasets.base.cores import num_cores
from genie_datasets.base.errors import UserError
from genie_datasets.base.file_state import FileState
from genie_datasets.base.files import atomic_file
from genie_datasets.base.folders import find_files, first_of, note_copies
from genie_datasets.base.globs import exclude_option, keep_files
from genie_datasets.base.mapped_npz import BROKEN, map_npz, write_npz
from genie_datasets.base.notes import warn
from genie_datasets.sources.catalog import DEFAULT_HZ, known_hz
from genie_datasets.sources.file_split import FileSplit, Images, split_folders
from genie_datasets.sources.split import Size, Source, Split
from genie_datasets.sources.video.file import DamagedVideo, Upright, VideoInfo, fitted, probe, probe_whole

SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v")
UNREAD = (".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv", ".flv", ".3gp", ".ogv", ".gif")  # video formats not read
PROBE_VERSION = 7
RATE_DIFFERS = 0.01  # relative difference above which two rates differ

Numbers = range | np.ndarray


class VideoSplit(FileSplit):
    """Episodes in video files. Random access decodes a file from its beginning: build a frame cache for training.

    numbers: for each episode, the numbers of its frames in the file, in order (repeats allowed).
    """

    def __init__(
        self,
        name: str,
        fingerprint: str,
        root: Path,
        files: list[Path],
        infos: list[VideoInfo],
        hz: np.ndarray,
        numbers: Sequence[Numbers],
    ):
        super().__init__(name, fingerprint, root, files, hz)
        self.infos, self.numbers = infos, numbers
        self.num_frames = np.array([len(chosen) for chosen in numbers], np.int64)

    def _images(self, episode: int, ids: np.ndarray, size: Size | None, mode: str) -> Images:
        numbers = np.asarray(self.numbers[episode], np.int64)[ids]
        return fitted(self.files[episode], numbers, size, mode, self.infos[episode])

    def _bad(self, episode: int, error: DamagedVideo) -> UserError:  # type: ignore[override]
        return _bad_videos(self.root, {self.files[episode]: error})

    def size_of(self, episode: int) -> Size:
        return self.infos[episode].height, self.infos[episode].width


def find_videos(root: Path, notes: bool = False) -> list[Path]:
    """Every video below `root`, in the order of paths, without hidden files; notes: print notes about other files."""
    found = find_files(root, SUFFIXES + UNREAD, notes)
    files = [file for file in found if file.suffix.lower() in SUFFIXES]
    if notes and files and len(files) < len(found):
        unread = [file for file in found if file.suffix.lower() in UNREAD]
        warn(f"{first_of(unread)} is left out: only {', '.join(SUFFIXES)} files are read")
    return files


def open_videos(
    root: Path, hz: float | None, include=None, exclude=None, skip_damaged: bool = False, resample: float | None = None
) -> Source:
    """Opens a folder of videos, or a video file; resample: frames per second by the clock of the container."""
    files, root = (find_videos(root, notes=True), root) if root.is_dir() else ([root], root.parent)
    files = keep_files(files, root, include, exclude)
    damage: list[str] = []
    if skip_damaged:
        files, damage = leave_out_damaged(root, files)
    state = FileState.read(root, files)  # first, so that later changes are noticed the next time
    keys = ("video", *([f"resample {resample!r}"] if resample else []))
    digest = fingerprint(root, files, *keys)
    infos = probe_all(root, files)
    every: list[Numbers] = [range(info.num_frames) for info in infos]
    numbers = resampled(root, files, infos, resample) if resample else every
    rates = np.full(len(files), resample) if resample else episode_hz(root, files, infos, hz)
    note_oddities(root, files, infos, resample)
    splits: dict[str, Split] = {}
    for split, members in split_folders(root, files).items():
        chosen = [files[i] for i in members]
        splits[split] = VideoSplit(
            split, f"{digest}-{split}", root, chosen, [infos[i] for i in members], rates[members],
            [numbers[i] for i in members],
        )  # fmt: skip
        splits[split].damage = damage
        splits[split].states = [state.subset(chosen)]
    return Source(root.name, str(root), "video", splits, digest)


def resampled(root: Path, files: list[Path], infos: list[VideoInfo], hz: float) -> list[Numbers]:
    """Numbers of the frames of each file that a player shows every 1/hz seconds. Raises UserError."""
    for file, info in zip(files, infos, strict=True):
        if info.times is None:
            raise UserError(
                f"{file} has no usable time stamps, so it cannot be resampled: replace --resample with --hz, which "
                f"declares its rate, or leave it out with {exclude_option([file.relative_to(root).as_posix()])}"
            )
    fast = [file for file, info in zip(files, infos, strict=True) if info.rate and hz > info.rate * (1 + RATE_DIFFERS)]
    if fast:
        warn(f"--resample {hz:g} is faster than {first_of(fast)}: frames are repeated")
    return [info.at_rate(hz) for info in infos]


def note_oddities(root: Path, files: list[Path], infos: list[VideoInfo], resample: float | None = None) -> None:
    """Prints one note for each property of these files that a user may not expect."""
    by_note: dict[str, list[Path]] = {}
    for file, info in zip(files, infos, strict=True):
        for note in info.notes:
            by_note.setdefault(note, []).append(file)
    for note, some in by_note.items():
        warn(f"{first_of(some)} {note}")
    uneven = [(info.uneven, file) for file, info in zip(files, infos, strict=True) if info.uneven]
    if uneven and resample is None:
        share, file = max(uneven)
        more = f" ({len(uneven) - 1} more files have some)" if len(uneven) > 1 else ""
        warn(
            f"uneven time stamps in {file}: {share:.1%} of its intervals differ from the median by more than a quarter"
            f"{more}. Frames are read as stored; --resample HZ samples by the clock of the container"
        )
    note_copies(files)


def episode_hz(root: Path, files: list[Path], infos: list[VideoInfo], asked: float | None) -> np.ndarray:
    """(E,) rates: `asked`, else those of data sets named like file or folder, else the containers' with a note."""
    if asked is not None:
        return np.full(len(files), asked)
    rates = np.zeros(len(files))
    guessed = []
    others: list[tuple[Path, float, float]] = []
    for i, (file, info) in enumerate(zip(files, infos, strict=True)):
        known = known_hz(file.name) or known_hz(root.name)
        rates[i] = known or info.rate or DEFAULT_HZ
        if known is None:
            guessed.append(rates[i])
        elif info.rate and abs(info.rate / known - 1) > RATE_DIFFERS:
            others.append((file, known, info.rate))
    if others:
        file, known, stated = others[0]
        warn(
            f"assuming {known:g} Hz for {first_of([file for file, _, _ in others])}, which is named like a known data "
            f"set but states {stated:g} frames/s: pass --hz to set the rate"
        )
    if guessed:
        span = f"{min(guessed):g}" if min(guessed) == max(guessed) else f"{min(guessed):g} to {max(guessed):g}"
        warn(
            f"assuming the {span} frames/s that {len(guessed)} files of {root} state: the rate of a video is often not "
            "that of the robot; pass --hz to set it"
        )
    return rates


def probe_all(root: Path, files: list[Path]) -> list[VideoInfo]:
    """The VideoInfo of each file. Raises UserError, which names the damaged ones."""
    infos, bad = _inspect_all(root, files, "first", probe)
    if bad:
        raise _bad_videos(root, bad)
    return infos


def leave_out_damaged(root: Path, files: list[Path]) -> tuple[list[Path], list[str]]:
    """The files that decode from the first frame to the last, and one line for each of the others."""
    _, bad = _inspect_all(root, files, "whole", probe_whole)
    if len(bad) == len(files):
        raise _bad_videos(root, bad)
    damage = [f"{file.relative_to(root).as_posix()} ({error})" for file, error in bad.items()]
    if damage:
        warn(f"{root}: skipped what is damaged: {first_of(damage)}")
    return [file for file in files if file not in bad], damage


def _inspect_all(
    root: Path, files: list[Path], depth: str, inspect: Callable[[Path], VideoInfo]
) -> tuple[list[VideoInfo], dict[Path, DamagedVideo]]:
    """`inspect` of every file, on all cores, or its results of an earlier call from the user's cache directory."""
    from tqdm import tqdm

    state = FileState.read(root, files)
    key = hashlib.sha256(f"{state.root}\0{state.digest}\0{version('av')}".encode(errors="surrogateescape"))
    path = cache_dir() / "index" / f"video-v{PROBE_VERSION}-{depth}-{key.hexdigest()[:16]}.npz"
    try:
        return _infos_of_arrays(root, map_npz(path))
    except (*BROKEN, KeyError, IndexError, ValueError):  # absent or damaged
        pass

    def result(file: Path) -> VideoInfo | DamagedVideo:
        try:
            return inspect(file)
        except DamagedVideo as error:
            return error

    infos: list[VideoInfo] = []
    bad: dict[Path, DamagedVideo] = {}
    with ThreadPoolExecutor(num_cores()) as pool:  # FFmpeg releases the GIL
        found = tqdm(
            pool.map(result, files), "count frames", len(files), unit="file", leave=False, disable=len(files) < 100
        )
        for file, info in zip(files, found, strict=True):
            if isinstance(info, DamagedVideo):
                bad[file] = info
            else:
                infos.append(info)
    if any(error.is_temporary for error in bad.values()):
        return infos, bad
    try:
        with atomic_file(path) as stream:
            write_npz(stream, _arrays_of_infos(root, infos, bad))
    except OSError as error:
        warn(f"cannot keep the frame counts in {path.parent} ({error.strerror}): they will be counted again")
    return infos, bad


NUMBERS = ("num_frames", "rate", "height", "width", "is_stamped", "start", "tick", "uneven")


def _arrays_of_infos(root: Path, infos: list[VideoInfo], bad: dict[Path, DamagedVideo]) -> dict[str, np.ndarray]:
    times = [np.zeros(0) if info.times is None else info.times for info in infos]
    return {
        "table": np.array([[getattr(info, name) for name in NUMBERS] for info in infos], float).reshape(
            -1, len(NUMBERS)
        ),
        "upright": np.array([astuple(info.upright) for info in infos], float).reshape(-1, 5),
        "notes": np.array(["\n".join(info.notes) for info in infos], str),
        "num_times": np.array([len(some) for some in times], np.int64),
        "times": np.concatenate([np.zeros(0), *times]),
        "bad": np.array([file.relative_to(root).as_posix().encode(errors="surrogateescape") for file in bad], bytes),
        "why": np.array([str(error) for error in bad.values()], str),
    }


def _infos_of_arrays(root: Path, kept: dict[str, np.ndarray]) -> tuple[list[VideoInfo], dict[Path, DamagedVideo]]:
    infos, ends = [], np.cumsum(kept["num_times"])
    rows = kept["table"].tolist(), kept["upright"].tolist(), kept["notes"].tolist(), kept["num_times"], ends
    for row, upright, notes, num, end in zip(*rows, strict=True):
        values = dict(zip(NUMBERS, row, strict=True)) | {"times": kept["times"][end - num : end] if num else None}
        for name in ("num_frames", "height", "width"):
            values[name] = int(values[name])
        values["is_stamped"] = bool(values["is_stamped"])
        infos.append(VideoInfo(**values, upright=Upright(*upright), notes=tuple(notes.split("\n")) if notes else ()))
    names = [name.decode(errors="surrogateescape") for name in kept["bad"].tolist()]
    return infos, {root / name: DamagedVideo(why) for name, why in zip(names, kept["why"].tolist(), strict=True)}


def _bad_videos(root: Path, bad: dict[Path, DamagedVideo]) -> UserError:
    error = next(iter(bad.values()))
    names = [f.relative_to(root).as_posix() for f in bad]
    remedy = "make it readable and rerun the command" if error.is_temporary else "repair it"
    return UserError(
        f"{first_of([*bad])} cannot be read as video ({error}): {remedy}, or leave it out with "
        f"{exclude_option(names)} or --skip-damaged"
    )
