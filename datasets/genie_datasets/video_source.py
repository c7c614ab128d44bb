"""A folder of videos: one file an episode, its instruction in the file's name, subfolders allowed."""

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple
from pathlib import Path

import numpy as np

from genie_datasets.cache_dir import AtomicFile, cache_dir, fingerprint
from genie_datasets.cores import num_cores
from genie_datasets.errors import UserError
from genie_datasets.globs import keep_files
from genie_datasets.registry import DEFAULT_HZ, known_hz, warn
from genie_datasets.split import Size, Source, Split, frame_ids
from genie_datasets.video_file import DamagedVideo, VideoInfo, probe, probe_whole, read_frames

SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v")
SPLIT_FOLDERS = ("train", "val", "validation", "test")
KEEP_BYTES = 256 << 20  # of decoded episodes, so that clips in order do not decode the same file again and again
PROBE_VERSION = 2


class VideoSplit(Split):
    """Random access decodes a file from its beginning: for training, build a frame cache."""

    def __init__(self, name: str, mark: str, root: Path, files: list[Path], infos: list[VideoInfo], hz: np.ndarray):
        self.name = name
        self.fingerprint = mark
        self.root = root
        self.files = files
        self.infos = infos
        self.num_frames = np.array([info.num_frames for info in infos], np.int64)
        self.hz = hz
        self.__setstate__(self.__dict__)

    def __getstate__(self) -> dict:
        return {k: v for k, v in self.__dict__.items() if k not in ("_decoded", "_lock")}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._decoded: OrderedDict[tuple, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def frames(
        self, episode: int, ids: np.ndarray | None = None, size: Size | None = None, mode: str = "crop"
    ) -> np.ndarray:
        wanted = frame_ids(ids, self.num_frames[episode])
        if ids is None:
            return self._decode(episode, wanted, size, mode)
        height, width = size or self._native(episode)
        if not len(wanted):
            return np.empty((0, height, width, 3), np.uint8)
        if self.num_frames[episode] * height * width * 3 > KEEP_BYTES:
            return self._decode(episode, wanted, size, mode)
        return self._whole(episode, size, mode)[wanted]

    def _whole(self, episode: int, size: Size | None, mode: str) -> np.ndarray:
        key = (episode, size and tuple(size), mode)
        with self._lock:
            clip = self._decoded.pop(key, None)
        if clip is None:
            clip = self._decode(episode, np.arange(self.num_frames[episode]), size, mode)
        with self._lock:
            self._decoded[key] = clip
            while sum(c.nbytes for c in self._decoded.values()) > KEEP_BYTES:
                self._decoded.popitem(last=False)
        return clip

    def _decode(self, episode: int, ids: np.ndarray, size: Size | None, mode: str) -> np.ndarray:
        try:
            return read_frames(self.files[episode], ids, size, mode, self.start(episode))
        except DamagedVideo as error:
            raise bad_videos(self.root, {self.files[episode]: error}) from None

    def start(self, episode: int) -> float:
        """Seconds into its file at which an episode begins."""
        return 0.0

    def _native(self, episode: int) -> Size:
        return self.infos[episode].height, self.infos[episode].width

    @property
    def image_size(self) -> Size:
        return self._native(0)

    def instruction(self, episode: int) -> str:
        return instruction_of(self.files[episode])

    def episode_name(self, episode: int) -> str:
        return self.files[episode].relative_to(self.root).as_posix()


def instruction_of(file: Path) -> str:
    """'pick_green_can_2.mp4' -> 'pick green can': the words of the name, without the number of the take."""
    words = re.split(r"[\s_\-]+", file.stem)
    while len(words) > 1 and words[-1].isdigit():
        words.pop()
    return " ".join(word for word in words if word)


def find_videos(root: Path) -> list[Path]:
    """Every video below `root` in order of its path; hidden files are none."""
    found = (p for p in root.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    return sorted(p for p in found if p.is_file())


def open_videos(root: Path, hz: float | None, include=None, exclude=None, skip_damaged: bool = False) -> Source:
    """root: a folder of videos at any depth, or one video file; skip_damaged: without those that do not decode."""
    files, root = (find_videos(root), root) if root.is_dir() else ([root], root.parent)
    files = keep_files(files, root, include, exclude)
    if not files:
        raise UserError(f"{root} holds no video ({', '.join(SUFFIXES)}): give a folder of episodes")
    mark = fingerprint(root, files, "video")
    damage: list[str] = []
    if skip_damaged:
        files, damage = leave_out_damaged(root, files, mark)
        mark = fingerprint(root, files, "video")
    infos = probe_all(root, files, mark)
    rates = episode_hz(root, files, infos, hz)
    splits: dict[str, Split] = {}
    for split, members in split_folders(root, files).items():
        chosen = [files[i] for i in members]
        splits[split] = VideoSplit(split, f"{mark}-{split}", root, chosen, [infos[i] for i in members], rates[members])
        splits[split].damage = damage
    return Source(root.name, str(root), "video", splits, mark)


def split_folders(root: Path, files: list[Path]) -> dict[str, list[int]]:
    """Split -> numbers of its files. All are `train`, unless every one lies in a folder train, val or test."""
    tops = [file.relative_to(root).parts[0] for file in files]
    if not set(tops) <= set(SPLIT_FOLDERS):
        return {"train": list(range(len(files)))}
    return {name: [i for i, top in enumerate(tops) if top == name] for name in SPLIT_FOLDERS if name in tops}


def episode_hz(root: Path, files: list[Path], infos: list[VideoInfo], asked: float | None) -> np.ndarray:
    """(E,) Hz: --hz, else what is known of the file's or the folder's name, else the container's with a warning."""
    if asked is not None:
        return np.full(len(files), asked)
    rates = np.zeros(len(files))
    guessed = []
    for i, (file, info) in enumerate(zip(files, infos, strict=True)):
        known = known_hz(file.name) or known_hz(root.name)
        rates[i] = known or info.rate or DEFAULT_HZ
        if known is None:
            guessed.append(rates[i])
    if guessed:
        span = f"{min(guessed):g}" if min(guessed) == max(guessed) else f"{min(guessed):g} to {max(guessed):g}"
        warn(
            f"taking the {span} frames/s that {len(guessed)} files of {root} state: a video's rate is often not the "
            "robot's; say --hz to set it"
        )
    return rates


def probe_all(root: Path, files: list[Path], mark: str) -> list[VideoInfo]:
    """What each file holds, from the user's cache directory if it was counted before; UserError names the bad ones."""
    infos, bad = each_video(root, files, mark, probe)
    if bad:
        raise bad_videos(root, bad)
    return infos


def leave_out_damaged(root: Path, files: list[Path], mark: str) -> tuple[list[Path], list[str]]:
    """The files that decode from the first frame to the last, and a line for each of the others."""
    _, bad = each_video(root, files, f"whole-{mark}", probe_whole)
    if len(bad) == len(files):
        raise bad_videos(root, bad)
    damage = [f"{file.relative_to(root).as_posix()} ({error})" for file, error in bad.items()]
    if damage:
        more = f" (and {len(damage) - 1} more files)" if len(damage) > 1 else ""
        warn(f"{root}: skipped what is damaged: {damage[0]}{more}")
    return [file for file in files if file not in bad], damage


def each_video(
    root: Path, files: list[Path], mark: str, look: Callable[[Path], VideoInfo]
) -> tuple[list[VideoInfo], dict[Path, DamagedVideo]]:
    """`look` at every file, on all cores, or what was seen before and kept in the user's cache directory."""
    from tqdm import tqdm

    path = cache_dir() / "index" / f"video-v{PROBE_VERSION}-{mark}.json"
    try:
        rows = json.loads(path.read_text())
        whole = [VideoInfo(*row) for row in rows["infos"]]
        return whole, {root / name: DamagedVideo(why) for name, why in rows["bad"].items()}
    except (OSError, ValueError, TypeError, KeyError):  # absent, or not whole: look again
        pass

    def seen(file: Path) -> VideoInfo | DamagedVideo:
        try:
            return look(file)
        except DamagedVideo as error:
            return error

    infos: list[VideoInfo] = []
    bad: dict[Path, DamagedVideo] = {}
    with ThreadPoolExecutor(num_cores()) as pool:  # FFmpeg lets go of the interpreter's lock
        found = tqdm(
            pool.map(seen, files), "count frames", len(files), unit="file", leave=False, disable=len(files) < 100
        )
        for file, info in zip(files, found, strict=True):
            if isinstance(info, DamagedVideo):
                bad[file] = info
            else:
                infos.append(info)
    kept = {
        "infos": [astuple(info) for info in infos],
        "bad": {file.relative_to(root).as_posix(): str(error) for file, error in bad.items()},
    }
    try:
        with AtomicFile(path) as stream:
            stream.write(json.dumps(kept).encode())
    except OSError as error:
        warn(f"cannot keep the frame counts in {path.parent} ({error.strerror}): they will be counted again")
    return infos, bad


def bad_videos(root: Path, bad: dict[Path, DamagedVideo]) -> UserError:
    file, error = next(iter(bad.items()))
    name = file.relative_to(root).as_posix()
    others = f" (and {len(bad) - 1} more files)" if len(bad) > 1 else ""
    globs = ",".join(f.relative_to(root).as_posix() for f in list(bad)[:8])
    return UserError(
        f"{file}{others} cannot be read as video ({error}): mend '{name}', or leave it out with --exclude '{globs}' "
        "or --skip-damaged"
    )
