"""A folder of numpy files: one .npy or .npz an episode, its frames an array (L, H, W, 3) of whole numbers 0 .. 255."""

import re
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from genie_datasets.cache_dir import fingerprint
from genie_datasets.errors import UserError
from genie_datasets.fit import fit_frames
from genie_datasets.globs import keep_files
from genie_datasets.registry import DEFAULT_HZ, known_hz, warn
from genie_datasets.schema import PREFERRED_IMAGES
from genie_datasets.split import Size, Source, Split, frame_ids
from genie_datasets.video_source import instruction_of, split_folders

SUFFIXES = (".npy", ".npz")
FRAMES = ("frames", "video", "images", *PREFERRED_IMAGES)  # names of arrays, the likeliest first
KEEP_FILES = 4  # that were read last
MOST_BYTES = 8 << 30  # of one episode's frames


class DamagedArray(ValueError):
    """The file is none, or holds no frames; the message says why."""


class ArraySplit(Split):
    def __init__(
        self, name: str, mark: str, root: Path, files: list[Path], keys: list[str], shapes: list[tuple], hz: np.ndarray
    ):
        self.name, self.fingerprint, self.root, self.files, self.keys, self.hz = name, mark, root, files, keys, hz
        self.shapes = shapes
        self.num_frames = np.array([shape[0] for shape in shapes], np.int64)
        self.__setstate__(self.__dict__)

    def __getstate__(self) -> dict:
        return {k: v for k, v in self.__dict__.items() if k not in ("_kept", "_lock")}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._kept: OrderedDict[int, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def frames(
        self, episode: int, ids: np.ndarray | None = None, size: Size | None = None, mode: str = "crop"
    ) -> np.ndarray:
        frames = self._read(episode)[frame_ids(ids, self.num_frames[episode])]
        return frames if size is None else fit_frames(frames, size, mode)

    def _read(self, episode: int) -> np.ndarray:
        with self._lock:
            kept = self._kept.pop(episode, None)
        if kept is None:
            file = self.files[episode]
            try:
                kept = as_bytes(load(file, self.keys[episode]))
                if kept.shape != self.shapes[episode]:
                    raise DamagedArray("it has changed since it was opened")
            except DamagedArray as error:
                raise bad_file(self.root, file, str(error)) from None
        with self._lock:
            self._kept[episode] = kept
            while len(self._kept) > KEEP_FILES:
                self._kept.popitem(last=False)
        return kept

    @property
    def image_size(self) -> Size:
        return self.shapes[0][1:3]

    def instruction(self, episode: int) -> str:
        return instruction_of(self.files[episode])

    def episode_name(self, episode: int) -> str:
        return self.files[episode].relative_to(self.root).as_posix()


def find_arrays(root: Path) -> list[Path]:
    """Every numpy file below `root` in order of its path; hidden files are none."""
    found = (p for p in root.rglob("*") if p.suffix in SUFFIXES and not p.name.startswith("."))
    return sorted(p for p in found if p.is_file())


def open_arrays(root: Path, hz: float | None, include=None, exclude=None, image_key: str | None = None) -> Source:
    """root: a folder that holds numpy files at any depth. Raises UserError naming the first that holds no frames."""
    files = keep_files(find_arrays(root), root, include, exclude)
    if not files:
        raise UserError(f"{root} holds no numpy file ({', '.join(SUFFIXES)}): give a folder of episodes")
    mark = fingerprint(root, files, "arrays", image_key or "")
    keys, shapes = [], []
    for file in files:
        try:
            key, shape = find_frames(headers(file), image_key)
        except DamagedArray as error:
            raise bad_file(root, file, str(error)) from None
        keys.append(key)
        shapes.append(shape)
    rate = hz or known_hz(root.name)
    if rate is None:
        rate = DEFAULT_HZ
        warn(f"numpy files state no rate: taking {rate:g} Hz for {root}; say --hz if that is wrong")
    splits: dict[str, Split] = {}
    for name, members in split_folders(root, files).items():
        splits[name] = ArraySplit(
            name, f"{mark}-{name}", root, [files[i] for i in members], [keys[i] for i in members],
            [shapes[i] for i in members], np.full(len(members), rate),
        )  # fmt: skip
    return Source(root.name, str(root), "arrays", splits, mark)


def headers(file: Path) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Shape and type of each array of a file, from their headers alone ("" names the one of a .npy)."""
    import zipfile

    def header(stream: Any) -> tuple[tuple[int, ...], np.dtype]:
        read = npy.read_array_header_1_0 if npy.read_magic(stream) == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read(stream)
        return shape, dtype

    try:
        if file.suffix == ".npy":
            with file.open("rb") as stream:
                return {"": header(stream)}
        found = {}
        with zipfile.ZipFile(file) as archive:
            for name in archive.namelist():
                with archive.open(name) as member:
                    found[name.removesuffix(".npy")] = header(member)
        return found
    except Exception as error:  # zipfile and numpy's header parser raise whatever foreign bytes lead to
        raise DamagedArray(f"no numpy file: {in_short(error)}") from None


def find_frames(found: dict[str, tuple[tuple[int, ...], np.dtype]], asked: str | None) -> tuple[str, tuple[int, ...]]:
    """Name and shape of the array that holds the frames; raises DamagedArray."""
    fitting = {
        name: shape
        for name, (shape, dtype) in found.items()
        if len(shape) == 4 and shape[-1] == 3 and min(shape) > 0 and dtype.kind in "ui"
    }
    listing = ", ".join(f"{name or 'the array'} {shape} {dtype}" for name, (shape, dtype) in found.items()) or "nothing"
    if asked is not None:
        if asked not in fitting:
            raise DamagedArray(f"no frames '{asked}': it holds {listing}")
        return asked, fitting[asked]
    for name in ("", *FRAMES, *(fitting if len(fitting) == 1 else ())):
        if name in fitting:
            return name, fitting[name]
    raise DamagedArray(f"no frames (L, H, W, 3) of whole numbers, or several: it holds {listing}; see --image-key")


def load(file: Path, key: str) -> np.ndarray:
    shape, dtype = headers(file).get(key, ((), np.dtype(np.uint8)))
    if int(np.prod([int(n) for n in shape], dtype=object)) * dtype.itemsize > MOST_BYTES:
        raise DamagedArray(f"claims {shape} {dtype}")
    try:
        if file.suffix == ".npy":
            return np.load(file, mmap_mode="r", allow_pickle=False)
        with np.load(file, allow_pickle=False) as arrays:
            return arrays[key]
    except Exception as error:
        raise DamagedArray(f"cut off or damaged: {in_short(error)}") from None


def in_short(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]


def as_bytes(frames: np.ndarray) -> np.ndarray:
    """(L, H, W, 3) uint8 of other whole numbers, which must be 0 .. 255."""
    if frames.dtype == np.uint8:
        return frames
    if frames.size and (frames.min() < 0 or frames.max() > 255):
        raise DamagedArray(f"numbers {frames.min()} .. {frames.max()} where pixels are 0 .. 255")
    return frames.astype(np.uint8)


def bad_file(root: Path, file: Path, what: str) -> UserError:
    name = re.sub(r"\s", "?", file.relative_to(root).as_posix())
    return UserError(f"{file} cannot be read as frames ({what}): mend it, or leave it out with --exclude '{name}'")
