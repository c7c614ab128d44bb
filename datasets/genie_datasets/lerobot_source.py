"""LeRobotDataset folders (v2.0, v2.1, v3.0): video files, or images inside the table; see `lerobot_meta`."""

import threading
from collections import OrderedDict
from pathlib import Path

import numpy as np

from genie_datasets.cache_dir import fingerprint
from genie_datasets.decode import DamagedImage, decode_image, image_size
from genie_datasets.errors import UserError
from genie_datasets.globs import keep_files
from genie_datasets.lerobot_meta import Episode, Meta, first_line, read_meta, where
from genie_datasets.lerobot_truth import TruthColumns
from genie_datasets.registry import warn
from genie_datasets.split import Size, Source, Split, frame_ids
from genie_datasets.truth import Truth
from genie_datasets.video_file import VideoInfo
from genie_datasets.video_source import VideoSplit, leave_out_damaged, probe_all

KEEP_TABLES = 4  # decoded columns of images, each of one file


class LeRobotVideos(VideoSplit):
    """Episodes in video files; several may share one."""

    def __init__(self, name: str, mark: str, meta: Meta, chosen: list[int], infos: dict[str, VideoInfo], hz: float):
        self.episodes = [meta.episodes[i] for i in chosen]
        files = [meta.root / where(episode) for episode in self.episodes]
        own = [infos[where(episode)] for episode in self.episodes]
        self.starts = [episode.start for episode in self.episodes]
        super().__init__(name, mark, meta.root, files, own, np.full(len(files), hz))
        self.num_frames = np.array([episode.num_frames for episode in self.episodes], np.int64)
        self._truth = TruthColumns.find(meta.features)

    def truth(self, episode: int) -> Truth | None:
        return None if self._truth is None else self._truth.read(self.root, self.episodes[episode])

    def start(self, episode: int) -> float:
        return self.starts[episode]

    def instruction(self, episode: int) -> str:
        return self.episodes[episode].instruction

    def episode_name(self, episode: int) -> str:
        return f"{where(self.episodes[episode])}#{self.episodes[episode].number}"


class LeRobotImages(Split):
    """Episodes whose frames are encoded images in the table's column."""

    def __init__(self, name: str, mark: str, meta: Meta, chosen: list[int], hz: float):
        self.name, self.fingerprint, self.root, self.key = name, mark, meta.root, meta.camera.key
        self.episodes = [meta.episodes[i] for i in chosen]
        self.num_frames = np.array([episode.num_frames for episode in self.episodes], np.int64)
        self.hz = np.full(len(chosen), hz)
        self._truth = TruthColumns.find(meta.features)
        self.__setstate__(self.__dict__)

    def truth(self, episode: int) -> Truth | None:
        return None if self._truth is None else self._truth.read(self.root, self.episodes[episode])

    def __getstate__(self) -> dict:
        return {k: v for k, v in self.__dict__.items() if k not in ("_kept", "_lock")}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._kept: OrderedDict[int, list[bytes]] = OrderedDict()
        self._lock = threading.Lock()

    def frames(
        self, episode: int, ids: np.ndarray | None = None, size: Size | None = None, mode: str = "crop"
    ) -> np.ndarray:
        ids = frame_ids(ids, self.num_frames[episode])
        encoded = self._encoded(episode)
        found = []
        for step in ids.tolist():
            try:
                found.append(decode_image(encoded[step], size, mode))
            except DamagedImage as error:
                raise self._bad(episode, f"step {step}: {error}") from None
            if found[-1].shape != found[0].shape:
                raise self._bad(episode, f"step {step} has {found[-1].shape[:2]} pixels, others {found[0].shape[:2]}")
        return np.stack(found) if found else np.empty((0, *(size or self.image_size), 3), np.uint8)

    def _encoded(self, episode: int) -> list[bytes]:
        with self._lock:
            kept = self._kept.pop(episode, None)
        if kept is None:
            kept = self._read(episode)
        with self._lock:
            self._kept[episode] = kept
            while len(self._kept) > KEEP_TABLES:
                self._kept.popitem(last=False)
        return kept

    def _read(self, episode: int) -> list[bytes]:
        import pyarrow.parquet as parquet

        entry = self.episodes[episode]
        path = self.root / entry.table
        try:
            chosen = [("episode_index", "=", entry.number)]
            rows = parquet.read_table(path, columns=[self.key], filters=chosen).column(self.key).to_pylist()
            images = [row["bytes"] if isinstance(row, dict) else row for row in rows]
        except (OSError, ValueError, KeyError, NotImplementedError) as error:
            raise self._bad(episode, first_line(error)) from None
        if not all(isinstance(image, bytes) for image in images):
            raise self._bad(episode, f"column '{self.key}' holds no encoded images")
        if len(images) != entry.num_frames:
            raise self._bad(episode, f"{len(images)} rows where the metadata says {entry.num_frames}")
        return images

    @property
    def image_size(self) -> Size:
        try:
            return image_size(self._encoded(0)[0])
        except DamagedImage as error:
            raise self._bad(0, f"step 0: {error}") from None

    def instruction(self, episode: int) -> str:
        return self.episodes[episode].instruction

    def episode_name(self, episode: int) -> str:
        return f"{self.episodes[episode].table}#{self.episodes[episode].number}"

    def _bad(self, episode: int, what: str) -> UserError:
        entry = self.episodes[episode]
        return UserError(
            f"{self.root / entry.table}, episode {entry.number} cannot be read ({what}): download it again, or leave "
            f"it out with --exclude '{entry.table}'"
        )


def open_lerobot(
    root: Path,
    hz: float | None,
    include=None,
    exclude=None,
    image_key: str | None = None,
    skip_damaged: bool = False,
) -> Source:
    """root: the folder that holds meta/info.json; skip_damaged: without videos that do not decode."""
    meta = read_meta(root, image_key)
    if meta.absent:
        warn(
            f"{root}: {len(meta.absent)} of {len(meta.absent) + len(meta.episodes)} episodes have no file of "
            f"{meta.camera.key}, such as {where(meta.absent[0])}: left out"
        )
    files = sorted({root / where(episode) for episode in meta.episodes})
    kept = {path.relative_to(root).as_posix() for path in keep_files(files, root, include, exclude)}
    files = [root / name for name in sorted(kept)]
    mark = fingerprint(root, [root / "meta/info.json", *files], "lerobot", meta.camera.key)
    damage: list[str] = []
    if skip_damaged and meta.camera.kind != "video":
        warn(
            f"--skip-damaged does nothing for images in tables, such as those of {root}: leave files out with --exclude"
        )
    if skip_damaged and meta.camera.kind == "video":
        files, damage = leave_out_damaged(root, files, mark)
        kept = {path.relative_to(root).as_posix() for path in files}
        mark = fingerprint(root, [root / "meta/info.json", *files], "lerobot", meta.camera.key)
    rate = hz or meta.hz
    infos: dict[str, VideoInfo] = {}
    if meta.camera.kind == "video":
        infos = dict(zip(sorted(kept), probe_all(root, files, mark), strict=True))
        check_lengths(meta, infos, kept)
    splits: dict[str, Split] = {}
    for name, positions in meta.splits.items():
        chosen = [i for i in positions if where(meta.episodes[i]) in kept]
        if chosen and meta.camera.kind == "video":
            splits[name] = LeRobotVideos(name, f"{mark}-{name}", meta, chosen, infos, rate)
        elif chosen:
            splits[name] = LeRobotImages(name, f"{mark}-{name}", meta, chosen, rate)
    for split in splits.values():
        split.damage = damage
    return Source(root.name, str(root), "lerobot", splits, mark)


def check_lengths(meta: Meta, infos: dict[str, VideoInfo], kept: set[str]) -> None:
    """Every episode lies within its file; raises UserError for the first that does not."""
    for episode in meta.episodes:
        if episode.video not in kept:
            continue
        info = infos[episode.video]
        needed = first_frame(episode, info.rate or meta.hz) + episode.num_frames
        if info.num_frames < needed:
            raise UserError(
                f"{meta.root / episode.video} has {info.num_frames} frames where episode {episode.number} needs "
                f"{needed}: download it again, or leave it out with --exclude '{episode.video}'"
            )


def first_frame(episode: Episode, rate: float) -> int:
    return round(episode.start * rate)
