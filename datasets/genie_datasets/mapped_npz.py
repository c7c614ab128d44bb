"""npz files of any size in numpy's own format: written piece by piece, read as memory maps."""

import math
import struct
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

LOCAL_HEADER = 30  # bytes of a zip member's header before its name
SMALL = 4096  # bytes under which an array is read: a map of its own would cost more
BROKEN = (OSError, KeyError, ValueError, struct.error, zipfile.BadZipFile)
"""What `map_npz` raises where a file is absent or not whole."""


@dataclass(frozen=True)
class Pieces:
    """An array that need not be in memory as a whole: `pieces`, one after the other along the first axis."""

    dtype: np.dtype
    shape: tuple[int, ...]
    pieces: Iterable[np.ndarray]

    @classmethod
    def whole(cls, array: np.ndarray) -> "Pieces":
        return cls(array.dtype, array.shape, [array])


def write_npz(stream: IO[bytes], arrays: dict[str, Pieces]) -> None:
    """What `numpy.savez` writes, with one piece in memory at a time. Raises OSError."""
    with zipfile.ZipFile(stream, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                header = {"descr": npy.dtype_to_descr(array.dtype), "fortran_order": False, "shape": array.shape}
                npy.write_array_header_1_0(member, header)
                num_written = 0
                for piece in array.pieces:
                    member.write(np.ascontiguousarray(piece, array.dtype).data.cast("B") if piece.size else b"")
                    num_written += piece.size
            if num_written != math.prod(array.shape):
                raise ValueError(f"{name}: {num_written} values where {array.shape} was announced")


def map_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an npz file (uncompressed, as `numpy.savez` and `write_npz` write it), read-only.

    They are read from the disk where they are touched, and the kernel may drop them again. Raises one of `BROKEN`.
    """
    found: dict[str, np.ndarray] = {}
    with path.open("rb") as stream, zipfile.ZipFile(stream) as archive:
        for member in archive.infolist():
            if member.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{path} is compressed: it cannot be mapped")
            stream.seek(member.header_offset)
            name_length, extra_length = struct.unpack("<HH", stream.read(LOCAL_HEADER)[26:])
            stream.seek(member.header_offset + LOCAL_HEADER + name_length + extra_length)
            version = npy.read_magic(stream)
            read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, fortran, dtype = read_header(stream)
            count = math.prod(shape)
            if (
                dtype.hasobject
                or fortran
                or stream.tell() + count * dtype.itemsize
                > member.header_offset + (member.file_size + LOCAL_HEADER + name_length + extra_length)
            ):
                raise ValueError(f"{path}: '{member.filename}' is no plain array")
            if count * dtype.itemsize < SMALL:
                array = np.fromfile(stream, dtype, count).reshape(shape)
            else:
                array = np.memmap(path, dtype, "r", stream.tell(), shape)
            found[member.filename.removesuffix(".npy")] = array
    return found
