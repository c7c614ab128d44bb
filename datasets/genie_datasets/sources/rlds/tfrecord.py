"""Reads TFRecord files without TensorFlow.

record = length (u64 LE) | masked crc32c of the length (u32) | data | masked crc32c of the data (u32)

The checksum of the length is always compared, which detects damaged and foreign files. That of the data is compared
when all data are read: for whole episodes, as frame caches read them, and when damaged records are searched.
"""

import mmap
import struct
from collections.abc import Iterator

import google_crc32c

Buffer = bytes | mmap.mmap
HEADER = 12
FOOTER = 4
GZIP_MAGIC = b"\x1f\x8b"
GZIP = "is compressed with gzip"


class DamagedRecord(ValueError):
    """A record cannot be parsed; the message says what is wrong, as in "shard X ..."."""


def masked_crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli) of `data`, masked as in TFRecord."""
    return masked(google_crc32c.value(data))


def masked(crc: int) -> int:
    """A checksum, rotated and offset as TFRecord stores it."""
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def check_data(buffer: Buffer, start: int, end: int) -> None:
    """Raises DamagedRecord if the data of the record at this span do not match their checksum."""
    (crc,) = struct.unpack("<I", buffer[end : end + FOOTER])
    if crc != masked_crc32c(bytes(buffer[start:end])):
        raise DamagedRecord(f"has a record at byte {start} with a wrong checksum")


def record_spans(buffer: Buffer) -> Iterator[tuple[int, int]]:
    """Yields (start, end) of the data of each record of a shard. Raises DamagedRecord."""
    size = len(buffer)
    at = 0
    while at < size:
        if size - at < HEADER:
            raise DamagedRecord(f"is cut off at byte {size}")
        head = buffer[at : at + 8]
        if not at and head.startswith(GZIP_MAGIC):
            raise DamagedRecord(GZIP)
        (length,) = struct.unpack("<Q", head)
        (crc,) = struct.unpack("<I", buffer[at + 8 : at + HEADER])
        if crc != masked_crc32c(head):
            raise DamagedRecord(f"is not a TFRecord at byte {at} (the checksum of the record's length is wrong)")
        start = at + HEADER
        at = start + length + FOOTER
        if at > size:
            raise DamagedRecord(f"is cut off at byte {size}: its last record needs {at - size} bytes more")
        yield start, start + length


def frame_record(data: bytes) -> bytes:
    """The bytes of one record with these data."""
    head = struct.pack("<Q", len(data))
    return head + struct.pack("<I", masked_crc32c(head)) + data + struct.pack("<I", masked_crc32c(data))
