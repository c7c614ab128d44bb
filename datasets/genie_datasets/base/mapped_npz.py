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


class BrokenNpz(ValueError):
    """The file is no npz that can be mapped; the message says why."""


BROKEN = (OSError, BrokenNpz)
"""What `map_npz` raises where a file is absent or not whole."""


def map_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an npz file (uncompressed, as `numpy.savez` and `write_npz` write it), read-only.

    They are read from the disk where they are touched, and the kernel may drop them again. Raises OSError, BrokenNpz.
    """
    with path.open("rb") as stream:
        try:
            with zipfile.ZipFile(stream) as archive:
                return {
                    member.filename.removesuffix(".npy"): map_member(path, stream, member)
                    for member in archive.infolist()
                }
        except BrokenNpz:
            raise
        except Exception as error:  # zipfile and numpy's header parser raise whatever foreign bytes lead to
            raise BrokenNpz(f"{path.name} is no npz file: {str(error)[:120]}") from None


def map_member(path: Path, stream: IO[bytes], member: zipfile.ZipInfo) -> np.ndarray:
    if member.compress_type != zipfile.ZIP_STORED:
        raise BrokenNpz(f"{path.name} is compressed: it cannot be mapped")
    stream.seek(member.header_offset)
    name_length, extra_length = struct.unpack("<HH", stream.read(LOCAL_HEADER)[26:])
    start = member.header_offset + LOCAL_HEADER + name_length + extra_length
    stream.seek(start)
    read_header = npy.read_array_header_1_0 if npy.read_magic(stream) == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read_header(stream)
    if fortran or dtype.hasobject or any(n < 0 for n in shape):
        raise BrokenNpz(f"{path.name}: '{member.filename}' is no plain array")
    num_bytes = math.prod(shape) * dtype.itemsize
    if stream.tell() + num_bytes > start + member.file_size:
        raise BrokenNpz(f"{path.name}: '{member.filename}' is cut off")
    if num_bytes < SMALL:
        return np.frombuffer(stream.read(num_bytes), dtype).reshape(shape)
    return np.memmap(path, dtype, "r", stream.tell(), shape)
