"""npz files of any size in numpy's own format: written in chunks, read as memory maps."""

import math
import struct
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

LOCAL_HEADER = 30  # bytes of a zip member's header before its name
SMALL = 4096  # bytes below which an array is read: a map of its own would cost more


@dataclass(frozen=True)
class ChunkedArray:
    """An array given as chunks along its first axis, of which one at a time need be in memory."""

    dtype: np.dtype
    shape: tuple[int, ...]
    chunks: Iterable[np.ndarray]


def write_npz(stream: IO[bytes], arrays: Mapping[str, np.ndarray | ChunkedArray]) -> None:
    """Writes what `numpy.savez` would write, with one chunk in memory at a time. Raises OSError."""
    with zipfile.ZipFile(stream, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                header = {"descr": npy.dtype_to_descr(array.dtype), "fortran_order": False, "shape": array.shape}
                npy.write_array_header_1_0(member, header)
                num_written = 0
                for chunk in array.chunks if isinstance(array, ChunkedArray) else [array]:
                    member.write(np.ascontiguousarray(chunk, array.dtype).data.cast("B") if chunk.size else b"")
                    num_written += chunk.size
            if num_written != math.prod(array.shape):
                raise ValueError(f"{name}: the chunks hold {num_written} values, expected {array.shape}")


class BrokenNpz(ValueError):
    """The file is not an npz that can be mapped; the message says why."""


BROKEN = (OSError, BrokenNpz)
"""The exceptions of `map_npz` for a file that is absent or damaged."""


def map_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an uncompressed npz file as read-only memory maps. Raises OSError, BrokenNpz."""
    with path.open("rb") as stream:
        try:
            with zipfile.ZipFile(stream) as archive:
                return {
                    member.filename.removesuffix(".npy"): _map_member(path, stream, member)
                    for member in archive.infolist()
                }
        except BrokenNpz:
            raise
        except Exception as error:  # zipfile and numpy raise exceptions of many types for arbitrary bytes
            raise BrokenNpz(f"{path.name} is not an npz file: {str(error)[:120]}") from None


def read_npy_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether it is stored in Fortran's order, and type of the array that begins here. Raises ValueError."""
    return (npy.read_array_header_1_0 if npy.read_magic(stream) == (1, 0) else npy.read_array_header_2_0)(stream)


def _map_member(path: Path, stream: IO[bytes], member: zipfile.ZipInfo) -> np.ndarray:
    if member.compress_type != zipfile.ZIP_STORED:
        raise BrokenNpz(f"{path.name} is compressed, so it cannot be mapped")
    stream.seek(member.header_offset)
    name_length, extra_length = struct.unpack("<HH", stream.read(LOCAL_HEADER)[26:])
    start = member.header_offset + LOCAL_HEADER + name_length + extra_length
    stream.seek(start)
    shape, fortran, dtype = read_npy_header(stream)
    if fortran or dtype.hasobject or any(n < 0 for n in shape):
        raise BrokenNpz(f"{path.name}: '{member.filename}' is not a plain array")
    num_bytes = math.prod(shape) * dtype.itemsize
    if stream.tell() + num_bytes > start + member.file_size:
        raise BrokenNpz(f"{path.name}: '{member.filename}' is cut off")
    if num_bytes < SMALL:
        return np.frombuffer(stream.read(num_bytes), dtype).reshape(shape)
    return np.memmap(path, dtype, "r", stream.tell(), shape)
