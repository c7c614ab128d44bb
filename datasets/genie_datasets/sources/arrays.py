"""A folder of numpy files: one .npy or .npz an episode, its frames an array (L, H, W, 3) of whole numbers 0 .. 255."""

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from genie_datasets.base.cache_dir import fingerprint
from genie_datasets.base.errors import UserError
from genie_datasets.base.file_state import FileState
from genie_datasets.base.fit import fit_frames
from genie_datasets.base.folders import find_files, say_copies, such
from genie_datasets.base.globs import exclude_option, keep_files
from genie_datasets.base.notes import warn
from genie_datasets.sources.registry import DEFAULT_HZ, known_hz
from genie_datasets.sources.rlds.schema import PREFERRED_IMAGES
from genie_datasets.sources.split import BLOCK, Size, Source, Split, frame_ids
from genie_datasets.sources.video.source import instruction_of, split_folders

SUFFIXES = (".npy", ".npz")
FRAMES = ("frames", "video", "images", *PREFERRED_IMAGES)  # names of arrays, the likeliest first
KEEP_BYTES = 256 << 20  # of the episodes that were read last
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
        self._kept: OrderedDict[tuple, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def frames(
        self, episode: int, ids: np.ndarray | None = None, size: Size | None = None, mode: str = "crop"
    ) -> np.ndarray:
        wanted = frame_ids(ids, self.num_frames[episode])
        height, width = size or self.shapes[episode][1:3]
        is_large = int(self.num_frames[episode]) * height * width * 3 > KEEP_BYTES
        if ids is None or is_large:
            return self._read(episode, wanted, size, mode)
        key = (episode, size and tuple(size), mode)
        with self._lock:
            kept = self._kept.pop(key, None)
        if kept is None:
            kept = self._read(episode, np.arange(self.num_frames[episode]), size, mode)
        with self._lock:
            self._kept[key] = kept
            while sum(frames.nbytes for frames in self._kept.values()) > KEEP_BYTES:
                self._kept.popitem(last=False)
        return kept[wanted]

    def frame_blocks(self, episode: int, size: Size | None = None, mode: str = "crop") -> Iterator[np.ndarray]:
        height, width = size or self.shapes[episode][1:3]
        block = np.empty((BLOCK, height, width, 3), np.uint8)
        num = 0
        with self._errors(episode):
            for frame in each_frame(self.files[episode], self.keys[episode], self.shapes[episode]):
                block[num] = frame if size is None else fit_frames(frame, size, mode)
                num += 1
                if num == BLOCK:
                    yield block.copy()
                    num = 0
        if num:
            yield block[:num].copy()

    def _read(self, episode: int, ids: np.ndarray, size: Size | None, mode: str) -> np.ndarray:
        out = np.empty((len(ids), *(size or self.shapes[episode][1:3]), 3), np.uint8)
        with self._errors(episode):
            for number, frame in enumerate(each_frame(self.files[episode], self.keys[episode], self.shapes[episode])):
                places = np.flatnonzero(ids == number)
                if len(places):
                    out[places] = frame if size is None else fit_frames(frame, size, mode)
        return out

    @contextlib.contextmanager
    def _errors(self, episode: int) -> Iterator[None]:
        for state in self.states:
            state.check(self.files[episode])
        try:
            yield
        except DamagedArray as error:
            raise bad_file(self.root, self.files[episode], str(error)) from None

    def size_of(self, episode: int) -> Size:
        return self.shapes[episode][1:3]

    def instruction(self, episode: int) -> str:
        return instruction_of(self.files[episode])

    def episode_name(self, episode: int) -> str:
        return self.files[episode].relative_to(self.root).as_posix()


def find_arrays(root: Path, say: bool = False) -> list[Path]:
    """Every numpy file below `root` in order of its path; hidden files are left out. say: with notes on links."""
    return find_files(root, SUFFIXES, say)


def open_arrays(root: Path, hz: float | None, include=None, exclude=None, image_key: str | None = None) -> Source:
    """root: a folder that holds numpy files at any depth. Raises UserError naming the first that holds no frames."""
    files = keep_files(find_arrays(root, say=True), root, include, exclude)
    if not files:
        raise UserError(f"{root} holds no numpy file ({', '.join(SUFFIXES)}): give a folder of episodes")
    state = FileState.read(root, files)
    mark = fingerprint(root, files, "arrays", image_key or "")
    keys, shapes = [], []
    others: dict[Path, list[str]] = {}
    for file in files:
        try:
            found = headers(file)
            key, shape = find_frames(found, image_key)
            if image_key is None and (rest := [name for name in fitting(found) if name != key]):
                others[file] = rest
        except DamagedArray as error:
            raise bad_file(root, file, str(error)) from None
        keys.append(key)
        shapes.append(shape)
    if len({*keys}) > 1 and image_key is None:
        names = {key: str(file) for key, file in zip(keys, files, strict=True)}
        warn("arrays of several names are read: " + ", ".join(f"'{key}' of {file}" for key, file in names.items()))
    if others:
        file, rest = next(iter(others.items()))
        key = keys[files.index(file)]
        warn(f"{such([*others])}: reading '{key}'; --image-key chooses another array ({', '.join(rest)})")
    rate = hz or known_hz(root.name)
    if rate is None:
        rate = DEFAULT_HZ
        warn(f"numpy files state no rate: taking {rate:g} Hz for {root}; pass --hz if that is wrong")
    say_copies(files)
    splits: dict[str, Split] = {}
    for name, members in split_folders(root, files).items():
        splits[name] = ArraySplit(
            name, f"{mark}-{name}", root, [files[i] for i in members], [keys[i] for i in members],
            [shapes[i] for i in members], np.full(len(members), rate),
        )  # fmt: skip
        splits[name].states = [state.part([files[i] for i in members])]
    return Source(root.name, str(root), "arrays", splits, mark)


def headers(file: Path) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Shape and type of each array of a file, from their headers alone ("" names the one of a .npy)."""
    import zipfile

    def header(stream: Any) -> tuple[tuple[int, ...], np.dtype]:
        read = npy.read_array_header_1_0 if npy.read_magic(stream) == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read(stream)
        return shape, dtype

    try:
        if file.suffix.lower() == ".npy":
            with file.open("rb") as stream:
                return {"": header(stream)}
        found = {}
        with zipfile.ZipFile(file) as archive:
            for name in archive.namelist():
                if not name.endswith(".npy"):
                    continue
                with archive.open(name) as member:
                    found[name.removesuffix(".npy")] = header(member)
        return found
    except Exception as error:  # zipfile and numpy's header parser raise whatever foreign bytes lead to
        raise DamagedArray(f"no numpy file: {in_short(error)}") from None


def fitting(found: dict[str, tuple[tuple[int, ...], np.dtype]]) -> dict[str, tuple[int, ...]]:
    """Name and shape of every array that may hold frames: (L, H, W, 3) of whole numbers."""
    return {
        name: shape
        for name, (shape, dtype) in found.items()
        if len(shape) == 4 and shape[-1] == 3 and min(shape) > 0 and dtype.kind in "ui"
    }


def find_frames(found: dict[str, tuple[tuple[int, ...], np.dtype]], asked: str | None) -> tuple[str, tuple[int, ...]]:
    """Name and shape of the array that holds the frames; raises DamagedArray."""
    likely = fitting(found)
    listing = ", ".join(f"{name or 'the array'} {shape} {dtype}" for name, (shape, dtype) in found.items()) or "nothing"
    if asked is not None:
        if asked not in likely:
            raise DamagedArray(f"no frames '{asked}': it holds {listing}")
        return asked, likely[asked]
    for name in ("", *FRAMES, *(likely if len(likely) == 1 else ())):
        if name in likely:
            return name, likely[name]
    raise DamagedArray(f"no frames (L, H, W, 3) of whole numbers, or several: it holds {listing}; see --image-key")


def each_frame(file: Path, key: str, expected: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Yield the frames (H, W, 3) uint8 of an array, with one in memory at a time. Raises DamagedArray.

    An .npz is read as a stream to its end, where its checksum is compared.
    """
    shape, dtype = headers(file).get(key, ((), np.dtype(np.uint8)))
    if shape != expected:
        raise DamagedArray(f"it has changed since it was opened, from {expected} to {shape}")
    if int(np.prod([int(n) for n in shape], dtype=object)) * dtype.itemsize > MOST_BYTES:
        raise DamagedArray(f"claims {shape} {dtype}")
    frames = mapped(file) if file.suffix.lower() == ".npy" else streamed(file, key)
    while True:
        try:
            frame = next(frames, None)
        except DamagedArray:
            raise
        except Exception as error:  # zipfile and numpy raise whatever foreign bytes lead to
            raise DamagedArray(f"cut off or damaged: {in_short(error)}") from None
        if frame is None:
            return
        yield as_bytes(frame)


def mapped(file: Path) -> Iterator[np.ndarray]:
    yield from np.load(file, mmap_mode="r", allow_pickle=False)


def streamed(file: Path, key: str) -> Iterator[np.ndarray]:
    import zipfile

    with zipfile.ZipFile(file) as archive, archive.open(f"{key}.npy") as member:
        read = npy.read_array_header_1_0 if npy.read_magic(member) == (1, 0) else npy.read_array_header_2_0
        shape, is_fortran, dtype = read(member)
        if not is_fortran:
            num_bytes = int(np.prod(shape[1:])) * dtype.itemsize
            for _ in range(shape[0]):
                data = member.read(num_bytes)
                if len(data) < num_bytes:
                    raise DamagedArray("cut off")
                yield np.frombuffer(data, dtype).reshape(shape[1:])
            member.read(1)  # the end, where the checksum is compared
            return
    with np.load(file, allow_pickle=False) as arrays:  # its frames do not lie one after the other
        yield from arrays[key]


def in_short(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]


def as_bytes(frames: np.ndarray) -> np.ndarray:
    """uint8 of other whole numbers, which must be 0 .. 255."""
    if frames.dtype == np.uint8:
        return frames
    if frames.size and (frames.min() < 0 or frames.max() > 255):
        raise DamagedArray(f"numbers {frames.min()} .. {frames.max()} where pixels are 0 .. 255")
    return frames.astype(np.uint8)


def bad_file(root: Path, file: Path, what: str) -> UserError:
    name = file.relative_to(root).as_posix()
    return UserError(
        f"{file} cannot be read as frames ({what}): repair it, or leave it out with {exclude_option([name])}"
    )
