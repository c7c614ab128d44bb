"""Reads the protocol buffer `tf.train.Example` in place, without TensorFlow.

Example{1: Features{1: map entry{1: name, 2: Feature{1: bytes | 2: floats | 3: ints}}}}; each list{1: values}.
Spans are (start, end) positions in the buffer, so images are never copied.
"""

import numpy as np

from genie_datasets.sources.rlds.tfrecord import Buffer, DamagedRecord

Span = tuple[int, int]
BYTES, FLOATS, INTS = 0x0A, 0x12, 0x1A  # tags of the three kinds of a Feature
MAX_SHIFT = 63  # without a limit, a run of bytes above 127 takes quadratic time


def varint(buffer: Buffer, at: int) -> tuple[int, int]:
    """The number at `at`, and the position after it. Raises DamagedRecord."""
    value = shift = 0
    while True:
        byte = buffer[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > MAX_SHIFT:
            raise DamagedRecord(f"has a number of more than 64 bits at byte {at}")


def delimited(buffer: Buffer, at: int, end: int, tag: int) -> Span:
    """Span of the length-delimited field with `tag` at `at`. Raises DamagedRecord unless it ends before `end`."""
    if at >= end or buffer[at] != tag:
        raise DamagedRecord(f"has no tf.train.Example at byte {at}")
    length, start = varint(buffer, at + 1)
    if start + length > end:
        raise DamagedRecord(f"has a damaged tf.train.Example at byte {at}")
    return start, start + length


def feature_spans(buffer: Buffer, start: int, end: int) -> dict[str, Span]:
    """Span of the Feature message of each feature of one record, by name."""
    features: dict[str, Span] = {}
    at, end = delimited(buffer, start, end, 0x0A)
    while at < end:
        entry, entry_end = delimited(buffer, at, end, 0x0A)
        name, name_end = delimited(buffer, entry, entry_end, 0x0A)
        if name_end < entry_end:
            features[bytes(buffer[name:name_end]).decode()] = delimited(buffer, name_end, entry_end, 0x12)
        at = entry_end
    return features


def _values(buffer: Buffer, feature: Span, kind: int) -> Span:
    """Span of the list in a Feature of this kind; an unset Feature is an empty list."""
    start, end = feature
    return delimited(buffer, start, end, kind) if start < end else (start, start)


def list_span(buffer: Buffer, feature: Span) -> Span:
    """Span of the values of a feature of any kind; for packed numbers, without their tag."""
    at, end = feature
    at, end = delimited(buffer, at, end, buffer[at])
    if at < end and buffer[feature[0]] in (FLOATS, INTS) and buffer[at] == 0x0A:
        at, end = delimited(buffer, at, end, 0x0A)
    return at, end


def bytes_spans(buffer: Buffer, feature: Span) -> list[Span]:
    """Span of every value of a bytes feature. Most of the time of building an index is spent in this loop."""
    at, end = _values(buffer, feature, BYTES)
    spans = []
    while at < end:
        if buffer[at] != 0x0A:
            raise DamagedRecord(f"has a damaged list of bytes at byte {at}")
        length = buffer[at + 1]
        at += 2
        if length >= 0x80:  # the rest of the varint, inlined because calls would double the time
            length &= 0x7F
            shift = 7
            while True:
                byte = buffer[at]
                at += 1
                length |= (byte & 0x7F) << shift
                if byte < 0x80:
                    break
                shift += 7
                if shift > MAX_SHIFT:
                    raise DamagedRecord(f"has a number of more than 64 bits at byte {at}")
        spans.append((at, at + length))
        at += length
    if at != end:
        raise DamagedRecord(f"has a damaged list of bytes at byte {end}")
    return spans


def floats(buffer: Buffer, feature: Span) -> np.ndarray:
    """The values of a float feature, flat float32, packed or not."""
    at, end = _values(buffer, feature, FLOATS)
    if at < end and buffer[at] == 0x0A:
        at, end = delimited(buffer, at, end, 0x0A)
        return np.frombuffer(buffer[at:end], "<f4")
    unpacked = np.frombuffer(buffer[at:end], np.dtype([("tag", "u1"), ("value", "<f4")]))
    return unpacked["value"].copy()


def ints(buffer: Buffer, feature: Span) -> np.ndarray:
    """The values of an int64 feature, flat, packed or not."""
    at, end = _values(buffer, feature, INTS)
    packed = at < end and buffer[at] == 0x0A
    if packed:
        at, end = delimited(buffer, at, end, 0x0A)
        flat = np.frombuffer(bytes(buffer[at:end]), np.uint8)
        if (flat < 0x80).all():  # small numbers, such as flags, of one byte each
            return flat.astype(np.int64)
    values = []
    while at < end:
        value, at = varint(buffer, at if packed else at + 1)
        value &= (1 << 64) - 1
        values.append(value - (1 << 64) if value >> 63 else value)
    return np.array(values, np.int64)


def texts(buffer: Buffer, feature: Span) -> list[str]:
    """The values of a bytes feature as text."""
    return [bytes(buffer[a:b]).decode(errors="replace") for a, b in bytes_spans(buffer, feature)]
