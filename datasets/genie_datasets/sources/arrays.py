"""Folders of numpy files: one .npy or .npz per episode, with frames (L, H, W, 3) of whole numbers from 0 to 255."""

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from genie_datasets.base.cache_dir import fingerprint
from genie_datasets.base.errors import UserError, first_line
from genie_datasets.base.file_state import FileState
from genie_datasets.base.fit import fit_frames
from genie_datasets.base.folders import find_files, first_of, note_copies
from genie_datasets.base.globs import exclude_option, keep_files
from genie_datasets.base.mapped_npz import read_npy_header
from genie_datasets.base.notes import warn
from genie_datasets.sources.catalog import DEFAULT_HZ, known_hz
from genie_datasets.sources.file_split import DamagedFile, FileSplit, Images, split_folders
from genie_datasets.sources.rlds.schema import PREFERRED_IMAGES
from genie_datasets.sources.split import Size, Source, Split

SUFFIXES = (".npy", ".npz")
FRAMES = ("frames", "video", "images", *PREFERRED_IMAGES)  # names of arrays, the most likely first
MAX_BYTES = 8 << 30  # of the frames of one episode


class ArraySplit(FileSplit):
    """Episodes in numpy files: array `keys[e]` of `files[e]`, of shape `shapes[e]` (L, H, W, 3)."""

    def __init__(
        self, name: str, fingerprint: str, root: Path, files: list[Path], keys: list[str], shapes: list[tuple],
        hz: np.ndarray,
    ):  # fmt: skip
        super().__init__(name, fingerprint, root, files, hz)
        self.keys, self.shapes = keys, shapes
        self.num_frames = np.array([shape[0] for shape in shapes], np.int64)

    def _images(self, episode: int, ids: np.ndarray, size: Size | None, mode: str) -> Images:
        frames = frames_of_array(self.files[episode], self.keys[episode], self.shapes[episode])
        for number, frame in enumerate(frames):
            places = np.flatnonzero(ids == number)
            if len(places):
                yield places, frame if size is None else fit_frames(frame, size, mode)

    def _bad(self, episode: int, error: DamagedFile) -> UserError:
        return _bad_file(self.root, self.files[episode], str(error))

    def size_of(self, episode: int) -> Size:
        return self.shapes[episode][1:3]


def find_arrays(root: Path, notes: bool = False) -> list[Path]:
    """Every numpy file below `root`, in the order of paths, without hidden files; notes: print notes about links."""
    return find_files(root, SUFFIXES, notes)


def open_arrays(root: Path, hz: float | None, include=None, exclude=None, image_key: str | None = None) -> Source:
    """Opens a folder that holds numpy files at any depth. Raises UserError, which names the first without frames."""
    files = keep_files(find_arrays(root, notes=True), root, include, exclude)
    state = FileState.read(root, files)
    digest = fingerprint(root, files, "arrays", image_key or "")
    keys, shapes = [], []
    others: dict[Path, list[str]] = {}
    for file in files:
        try:
            found = read_headers(file)
            key, shape = find_frames(found, image_key)
            if image_key is None and (rest := [name for name in frame_arrays(found) if name != key]):
                others[file] = rest
        except DamagedFile as error:
            raise _bad_file(root, file, str(error)) from None
        keys.append(key)
        shapes.append(shape)
    if len({*keys}) > 1 and image_key is None:
        names = {key: str(file) for key, file in zip(keys, files, strict=True)}
        warn("reading arrays of several names: " + ", ".join(f"'{key}' of {file}" for key, file in names.items()))
    if others:
        file, rest = next(iter(others.items()))
        key = keys[files.index(file)]
        warn(f"{first_of([*others])}: reading '{key}'; --image-key chooses another array ({', '.join(rest)})")
    rate = hz or known_hz(root.name)
    if rate is None:
        rate = DEFAULT_HZ
        warn(f"numpy files state no rate: assuming {rate:g} Hz for {root}; pass --hz if that is wrong")
    note_copies(files)
    splits: dict[str, Split] = {}
    for name, members in split_folders(root, files).items():
        splits[name] = ArraySplit(
            name, f"{digest}-{name}", root, [files[i] for i in members], [keys[i] for i in members],
            [shapes[i] for i in members], np.full(len(members), rate),
        )  # fmt: skip
        splits[name].states = [state.subset([files[i] for i in members])]
    return Source(root.name, str(root), "arrays", splits, digest)


def read_headers(file: Path) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Shape and type of each array of a file, read from the headers ("" is the name of the array of a .npy)."""

    def header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
        shape, _, dtype = read_npy_header(stream)
        return shape, dtype

    try:
        if file.suffix.lower() == ".npy":
            with file.open("rb") as stream:
                return {"": header(stream)}
        with zipfile.ZipFile(file) as archive:
            names = [name for name in archive.namelist() if name.endswith(".npy")]
            return {name.removesuffix(".npy"): header(archive.open(name)) for name in names}
    except Exception as error:  # zipfile and numpy raise exceptions of many types for arbitrary bytes
        raise DamagedFile(f"not a numpy file: {first_line(error)}") from None


def frame_arrays(found: dict[str, tuple[tuple[int, ...], np.dtype]]) -> dict[str, tuple[int, ...]]:
    """Name and shape of the arrays that may hold frames: (L, H, W, 3) of whole numbers."""
    return {
        name: shape
        for name, (shape, dtype) in found.items()
        if len(shape) == 4 and shape[-1] == 3 and min(shape) > 0 and dtype.kind in "ui"
    }


def find_frames(found: dict[str, tuple[tuple[int, ...], np.dtype]], asked: str | None) -> tuple[str, tuple[int, ...]]:
    """Name and shape of the array of frames. Raises DamagedFile."""
    likely = frame_arrays(found)
    listing = ", ".join(f"{name or 'the array'} {shape} {dtype}" for name, (shape, dtype) in found.items()) or "nothing"
    if asked is not None:
        if asked not in likely:
            raise DamagedFile(f"no frames (L, H, W, 3) of whole numbers '{asked}': it holds {listing}")
        return asked, likely[asked]
    for name in ("", *FRAMES, *(likely if len(likely) == 1 else ())):
        if name in likely:
            return name, likely[name]
    what = (
        "several arrays of frames, of which --image-key chooses one"
        if likely
        else "no frames (L, H, W, 3) of whole numbers"
    )
    raise DamagedFile(f"{what}: it holds {listing}")


def frames_of_array(file: Path, key: str, expected: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Yields the frames (H, W, 3) uint8 of an array, with one in memory at a time. Raises DamagedFile."""
    shape, dtype = read_headers(file).get(key, ((), np.dtype(np.uint8)))
    if shape != expected:
        raise DamagedFile(f"its shape has changed since it was opened, from {expected} to {shape}")
    if int(np.prod([int(n) for n in shape], dtype=object)) * dtype.itemsize > MAX_BYTES:
        raise DamagedFile(f"it claims {shape} {dtype}")
    try:
        is_npy = file.suffix.lower() == ".npy"
        for frame in np.load(file, mmap_mode="r", allow_pickle=False) if is_npy else _streamed(file, key):
            yield _as_uint8(frame)
    except DamagedFile:
        raise
    except Exception as error:  # as above
        raise DamagedFile(f"cut off or damaged: {first_line(error)}") from None


def _streamed(file: Path, key: str) -> Iterator[np.ndarray]:
    with zipfile.ZipFile(file) as archive, archive.open(f"{key}.npy") as member:
        shape, is_fortran, dtype = read_npy_header(member)
        if not is_fortran:
            num_bytes = int(np.prod(shape[1:])) * dtype.itemsize
            for _ in range(shape[0]):
                data = member.read(num_bytes)
                if len(data) < num_bytes:
                    raise DamagedFile("cut off")
                yield np.frombuffer(data, dtype).reshape(shape[1:])
            member.read(1)  # to the end, where the checksum is compared
            return
    with np.load(file, allow_pickle=False) as arrays:  # the frames do not lie one after the other
        yield from arrays[key]


def _as_uint8(frames: np.ndarray) -> np.ndarray:
    """Whole numbers as uint8. Raises DamagedFile unless all are from 0 to 255."""
    if frames.dtype == np.uint8:
        return frames
    if frames.size and (frames.min() < 0 or frames.max() > 255):
        raise DamagedFile(f"values from {frames.min()} to {frames.max()}, expected pixels from 0 to 255")
    return frames.astype(np.uint8)


def _bad_file(root: Path, file: Path, what: str) -> UserError:
    name = file.relative_to(root).as_posix()
    return UserError(
        f"{file} cannot be read as frames ({what}): repair it, or leave it out with {exclude_option([name])}"
    )
