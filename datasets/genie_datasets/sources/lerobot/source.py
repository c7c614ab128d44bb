"""LeRobotDataset folders (v2.0, v2.1, v3.0), with frames in video files or as images in the table."""

import contextlib
import itertools
from pathlib import Path

import numpy as np

from genie_datasets.base.cache_dir import cache_dir, fingerprint
from genie_datasets.base.errors import UserError
from genie_datasets.base.file_state import FileState
from genie_datasets.base.folders import first_of, note_copies
from genie_datasets.base.globs import exclude_option, keep_files
from genie_datasets.base.notes import warn
from genie_datasets.base.recent import RecentItems
from genie_datasets.sources.encoded import EncodedSplit
from genie_datasets.sources.lerobot.meta import Episode, Meta, meta_files, read_meta
from genie_datasets.sources.lerobot.table import TOLERANCE, DamagedTable, bad_table, check_tables, episode_column
from genie_datasets.sources.lerobot.truth import TruthColumns
from genie_datasets.sources.split import Source, Split
from genie_datasets.sources.truth import Truth
from genie_datasets.sources.video.file import VideoInfo
from genie_datasets.sources.video.source import RATE_DIFFERS, Numbers, VideoSplit, leave_out_damaged, probe_all

KEEP_TABLES = 4  # columns of images in memory, each of one episode


class LeRobotSplit(Split):
    """The part of a LeRobotDataset's split that does not depend on how its frames are stored."""

    def __init__(self, meta: Meta, chosen: list[int]):
        self.folder = meta.root
        self.episodes = [meta.episodes[i] for i in chosen]
        self._truth = TruthColumns.find(meta.features)

    def truth(self, episode: int) -> Truth | None:
        return None if self._truth is None else self._truth.read(self.folder, self.episodes[episode])

    def instruction(self, episode: int) -> str:
        return self.episodes[episode].instruction

    def episode_name(self, episode: int) -> str:
        return f"{self.episodes[episode].file}#{self.episodes[episode].number}"


class LeRobotVideos(LeRobotSplit, VideoSplit):
    """Episodes in video files; several may share one."""

    def __init__(
        self,
        name: str,
        fingerprint: str,
        meta: Meta,
        chosen: list[int],
        infos: dict[str, VideoInfo],
        numbers: dict[int, Numbers],
        hz: float,
    ):
        LeRobotSplit.__init__(self, meta, chosen)
        files = [meta.root / episode.file for episode in self.episodes]
        own = [infos[episode.file] for episode in self.episodes]
        frames = [numbers[episode.number] for episode in self.episodes]
        VideoSplit.__init__(self, name, fingerprint, meta.root, files, own, np.full(len(files), hz), frames)


class LeRobotImages(LeRobotSplit, EncodedSplit):
    """Episodes whose frames are encoded images in a column of the table."""

    def __init__(self, name: str, fingerprint: str, meta: Meta, chosen: list[int], hz: float):
        super().__init__(meta, chosen)
        self.name, self.fingerprint, self.location = name, fingerprint, str(meta.root)
        self.key = meta.camera.key
        self.num_frames = np.array([episode.num_frames for episode in self.episodes], np.int64)
        self.hz = np.full(len(chosen), hz)
        self._images: RecentItems[list[bytes]] = RecentItems(KEEP_TABLES)

    def encoded(self, episode: int, step: int) -> bytes:
        return self._images.get(episode, lambda: self._read(episode))[step]

    def _read(self, episode: int) -> list[bytes]:
        entry = self.episodes[episode]
        try:
            rows = episode_column(self.folder / entry.table, entry, self.key)
        except DamagedTable as error:
            raise self._bad(episode, str(error)) from None
        images = [row["bytes"] if isinstance(row, dict) else row for row in rows]
        if not all(isinstance(image, bytes) for image in images):
            raise self._bad(episode, f"column '{self.key}' holds no encoded images")
        return images

    def _place(self, episode: int) -> tuple[str, str]:
        return f"{self.folder / self.episode_name(episode)}", self.episodes[episode].table

    def _bad(self, episode: int, what: str) -> UserError:
        return bad_table(self.folder, self.episodes[episode], what)


def open_lerobot(
    root: Path,
    hz: float | None,
    include=None,
    exclude=None,
    image_key: str | None = None,
    skip_damaged: bool = False,
) -> Source:
    """Opens the folder that holds meta/info.json; skip_damaged: leave out videos that do not decode."""
    before = FileState.read(root, meta_files(root))  # first, so that later changes are noticed the next time
    meta = read_meta(root, image_key)
    if meta.absent:
        warn(
            f"{root}: {len(meta.absent)} of {len(meta.absent) + len(meta.episodes)} episodes have no file of "
            f"{meta.camera.key}, such as {meta.absent[0].file}: left out"
        )
    files = keep_files(sorted({root / episode.file for episode in meta.episodes}), root, include, exclude)
    damage: list[str] = []
    is_video = meta.camera.kind == "video"
    if skip_damaged and not is_video:
        warn(
            f"--skip-damaged has no effect on images in tables, such as those of {root}: leave files out with --exclude"
        )
    if skip_damaged and is_video:
        files, damage = leave_out_damaged(root, files)
    kept = {path.relative_to(root).as_posix() for path in files}
    episodes = [episode for episode in meta.episodes if episode.file in kept]
    tables = sorted({root / episode.table for episode in episodes if (root / episode.table).is_file()})
    data = sorted({*files, *tables})
    note_copies(files)
    # These files of meta/ decide which frames and instructions are read.
    deciding = [file for file in meta.files if file.name not in ("episodes_stats.jsonl", "stats.json")]
    digest = fingerprint(root, data, "lerobot", meta.camera.key, f"{meta.hz:g}", metadata=deciding)
    state = FileState.read(root, data).merged(before)
    passed = cache_dir() / "index" / f"lerobot-tables-v1-{digest}-{state.digest}"  # made when the check passes
    if tables and not passed.exists():
        check_tables(root, episodes, meta.hz)
        with contextlib.suppress(OSError):
            passed.parent.mkdir(parents=True, exist_ok=True)
            passed.touch()
    rate = hz or meta.hz
    infos: dict[str, VideoInfo] = {}
    numbers: dict[int, Numbers] = {}
    if is_video:
        infos = dict(zip([file.relative_to(root).as_posix() for file in files], probe_all(root, files), strict=True))
        numbers = {episode.number: frame_numbers(meta, episode, infos[episode.video]) for episode in episodes}
        check_disjoint(meta, episodes, numbers)
        note_oddities(meta, episodes, infos, numbers)
    splits: dict[str, Split] = {}
    for name, positions in meta.splits.items():
        chosen = [i for i in positions if meta.episodes[i].file in kept]
        if chosen and is_video:
            splits[name] = LeRobotVideos(name, f"{digest}-{name}", meta, chosen, infos, numbers, rate)
        elif chosen:
            splits[name] = LeRobotImages(name, f"{digest}-{name}", meta, chosen, rate)
    if not splits:
        raise UserError(
            f"{root}: --include and --exclude leave none of its splits ({', '.join(meta.splits)}): pass other globs"
        )
    for split in splits.values():
        split.damage = damage
        split.states = [state]
    return Source(root.name, str(root), "lerobot", splits, digest)


def frame_numbers(meta: Meta, episode: Episode, info: VideoInfo) -> Numbers:
    """Numbers of an episode's frames in its video file: frame i is the one at start + i / fps, as in LeRobot.

    Raises UserError if the video has no frame within LeRobot's tolerance of such a time.
    """
    if episode.num_frames > info.num_frames:
        raise UserError(
            f"{meta.root / episode.video} has {info.num_frames} frames, expected the {episode.num_frames} of episode "
            f"{episode.number}: download it again, or leave it out with {exclude_option([episode.video])}"
        )
    seconds = episode.start + np.arange(episode.num_frames) / meta.hz
    ids, off = info.nearest(seconds)
    # Time stamps are rounded to the unit of the container, such as milliseconds in WebM.
    far = off > TOLERANCE + info.tick / 2
    if far.any():
        at = int(far.argmax())
        raise UserError(
            f"{meta.root / episode.video} has no frame at {seconds[at]:.4f} s, the time of frame {at} of episode "
            f"{episode.number} (the nearest is {off[at]:.4f} s away): correct the start of the episode in meta/episodes"
            f", download the file again, or leave it out with {exclude_option([episode.video])}"
        )
    return range(int(ids[0]), int(ids[-1]) + 1) if len(ids) == ids[-1] - ids[0] + 1 else ids


def check_disjoint(meta: Meta, episodes: list[Episode], numbers: dict[int, Numbers]) -> None:
    """Raises UserError if two episodes share frames of a file."""
    by_file: dict[str, list[Episode]] = {}
    for episode in episodes:
        by_file.setdefault(episode.video, []).append(episode)
    for file, some in by_file.items():
        some.sort(key=lambda episode: (int(numbers[episode.number][0]), episode.number))
        for one, other in itertools.pairwise(some):
            if numbers[one.number][-1] >= numbers[other.number][0]:
                raise UserError(
                    f"{meta.root / file}: episodes {one.number} and {other.number} share frames (they begin at "
                    f"{one.start:.4f} s and {other.start:.4f} s): correct their starts in meta/episodes, or leave the "
                    f"file out with {exclude_option([file])}"
                )


def note_oddities(
    meta: Meta, episodes: list[Episode], infos: dict[str, VideoInfo], numbers: dict[int, Numbers]
) -> None:
    """Prints one note for each property of the video files that a user may not expect."""
    paths = {name: meta.root / name for name in infos}
    for note in sorted({note for info in infos.values() for note in info.notes}):
        warn(f"{first_of([paths[name] for name, info in infos.items() if note in info.notes])} {note}")
    others = [name for name, info in infos.items() if info.rate and abs(info.rate / meta.hz - 1) > RATE_DIFFERS]
    if others:
        warn(
            f"{first_of([paths[name] for name in others])} runs at {infos[others[0]].rate:g} frames/s, the table at "
            f"{meta.hz:g} Hz: frames are chosen by their times"
        )
    late = [name for name, info in infos.items() if abs(info.start) > TOLERANCE + info.tick]
    if late:
        first = infos[late[0]].start
        warn(f"{first_of([paths[name] for name in late])} begins at {first:.4f} s: times count from its first frame")
    rest = {name: info.num_frames for name, info in infos.items()}
    slack = dict.fromkeys(infos, 0.0)  # a faster video may have frames between the last of an episode and the next
    for episode in episodes:
        taken = numbers[episode.number]
        rest[episode.video] -= int(taken[-1]) - int(taken[0]) + 1
        slack[episode.video] += max(0.0, infos[episode.video].rate / meta.hz - 1)
    rest = {name: num for name, num in rest.items() if num > slack[name]}
    if rest:
        name = next(iter(rest))
        warn(
            f"{first_of([paths[n] for n in rest])} has {rest[name]} frames that belong to no episode: they are not read"
        )
