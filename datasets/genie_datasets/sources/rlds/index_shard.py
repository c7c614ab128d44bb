"""The index of one shard: the places of its episodes and frames, and the instructions."""

import itertools
import mmap
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from genie_datasets.sources.decode import DamagedImage, decode_image
from genie_datasets.sources.rlds.array_records import address, is_array_record, open_reader, read_record
from genie_datasets.sources.rlds.example import bytes_spans, feature_spans, ints, list_span, texts
from genie_datasets.sources.rlds.tfrecord import Buffer, DamagedRecord, check_data, record_spans

MAX_INSTRUCTION_CODES = 512
IS_FIRST = "steps/is_first"


@dataclass(frozen=True)
class IndexSpec:
    """The features that an index is made of, and the episodes that it leaves out."""

    image_key: str
    instruction_key: str = ""
    keep_if: str = ""
    """A boolean of the episode: episodes in which it is false are left out."""
    step_key: str = ""
    """A feature with one number per step, by which the steps are counted; there must be as many images."""
    instruction_codes: int = MAX_INSTRUCTION_CODES
    """Length of an instruction that is a row of UTF-8 codes."""
    skip_damaged: bool = False
    """Leave out damaged episodes. To find them, checksums are compared and every image is decoded."""


@dataclass
class ShardIndex:
    """The e kept episodes of one shard, with f frames in all."""

    record_start: np.ndarray  # (e,) int64, first byte of the tf.train.Example
    record_end: np.ndarray  # (e,) int64
    record_number: np.ndarray  # (e,) int32
    num_frames: np.ndarray  # (e,) int64
    frame_offset: np.ndarray  # (f,) int64
    frame_length: np.ndarray  # (f,) int32
    instructions: np.ndarray  # (e,) text
    damage: np.ndarray  # (d,) text, one line for each damaged thing that was skipped
    num_records: np.ndarray  # () int64, all records that were read, kept or not
    num_left_out: np.ndarray  # () int64, left out by keep_if
    num_joined: np.ndarray  # () int64, kept episodes with is_first set at a later step
    num_empty: np.ndarray  # () int64, without an image
    num_retold: np.ndarray  # () int64, kept episodes whose instruction changes

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> "ShardIndex":
        return cls(**{field.name: arrays[field.name] for field in fields(cls)})


@dataclass(frozen=True)
class FoundEpisode:
    """One readable record of a shard."""

    end: int
    images: np.ndarray  # (L, 2) int64, spans of the encoded images
    instruction: str
    is_kept: bool  # by keep_if
    is_joined: bool  # is_first is set at a later step
    is_retold: bool  # the instruction changes


def index_shard(shard: Path, spec: IndexSpec) -> ShardIndex:
    """Reads a whole shard. Raises DamagedRecord, unless damaged episodes are skipped; OSError."""
    records: list[tuple[int, int, int]] = []
    kept: list[FoundEpisode] = []
    damage: list[str] = []
    num_records = num_left_out = num_empty = 0
    for number, start, found in walk(shard, spec):
        if isinstance(found, DamagedRecord):
            if not spec.skip_damaged:
                raise found
            damage.append(f"{shard.name} {found}")
            continue
        num_records += 1
        num_left_out += not found.is_kept
        num_empty += not len(found.images)
        if len(found.images) and found.is_kept:
            records.append((start, found.end, number))
            kept.append(found)
    table = np.array(records, np.int64).reshape(-1, 3)
    frames = np.concatenate([np.zeros((0, 2), np.int64), *(episode.images for episode in kept)])
    return ShardIndex(
        record_start=table[:, 0],
        record_end=table[:, 1],
        record_number=table[:, 2].astype(np.int32),
        num_frames=np.array([len(episode.images) for episode in kept], np.int64),
        frame_offset=frames[:, 0].copy(),
        frame_length=(frames[:, 1] - frames[:, 0]).astype(np.int32),
        instructions=np.array([episode.instruction for episode in kept], str),
        damage=np.array(damage, str),
        num_records=np.array(num_records),
        num_left_out=np.array(num_left_out),
        num_joined=np.array(sum(episode.is_joined for episode in kept)),
        num_empty=np.array(num_empty),
        num_retold=np.array(sum(episode.is_retold for episode in kept)),
    )


def walk(shard: Path, spec: IndexSpec) -> Iterator[tuple[int, int, FoundEpisode | DamagedRecord]]:
    """Yields (number, first byte, the episode or what is wrong) of each record.

    After a damaged record it continues with the next one, unless the damage hides where that begins.
    """
    if shard.stat().st_size == 0:
        return
    if is_array_record(shard):
        yield from walk_array_record(shard, spec)
        return
    with shard.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as buffer:
        spans = record_spans(buffer)
        for number in itertools.count():
            try:
                start, end = next(spans)
            except StopIteration:
                return
            except DamagedRecord as error:
                yield number, 0, error
                return
            try:
                if spec.skip_damaged:
                    check_data(buffer, start, end)
                found = read_episode(buffer, start, end, spec)
            except DamagedRecord as error:
                yield number, start, error
            else:
                yield number, start, found


def walk_array_record(shard: Path, spec: IndexSpec) -> Iterator[tuple[int, int, FoundEpisode | DamagedRecord]]:
    """`walk` of an array_record shard, with addresses as positions."""
    try:
        reader = open_reader(shard)
    except DamagedRecord as error:
        yield 0, 0, error
        return
    try:
        for number in range(reader.num_records()):
            start = address(number)
            try:
                data = read_record(reader, number)
                found = read_episode(data, 0, len(data), spec)
            except DamagedRecord as error:
                yield number, start, error
            else:
                yield number, start, replace(found, end=address(number, len(data)), images=found.images + start)
    finally:
        reader.close()


def read_episode(buffer: Buffer, start: int, end: int, spec: IndexSpec) -> FoundEpisode:
    """Reads the record at [start, end). Raises DamagedRecord."""
    try:
        features = feature_spans(buffer, start, end)
        if spec.image_key not in features:
            raise DamagedRecord(f"has an episode without '{spec.image_key}' at byte {start}")
        images = np.array(bytes_spans(buffer, features[spec.image_key]), np.int64).reshape(-1, 2)
        words = features.get(spec.instruction_key)
        instruction = first_text(buffer, words, spec.instruction_codes)
        is_retold = changes(buffer, words, len(images))
        keep_if = spec.keep_if
        is_kept = not keep_if or bool(keep_if in features and ints(buffer, features[keep_if]).any())
        steps = ints(buffer, features[spec.step_key]) if spec.step_key in features else None
        if steps is not None and len(steps) != len(images):
            raise DamagedRecord(f"has an episode of {len(steps)} steps with {len(images)} images at byte {start}")
        is_joined = steps is not None and spec.step_key == IS_FIRST and bool(steps[1:].any())
    except DamagedRecord:
        raise
    except (IndexError, ValueError):
        raise DamagedRecord(f"has a damaged tf.train.Example at byte {start}") from None
    for first, last in images.tolist() if spec.skip_damaged else ():
        try:
            decode_image(bytes(buffer[first:last]))
        except DamagedImage as error:
            raise DamagedRecord(f"has an image at byte {first} that does not decode ({error})") from None
    return FoundEpisode(end, images, instruction, is_kept, is_joined, is_retold)


def changes(buffer: Buffer, feature: tuple[int, int] | None, num_steps: int) -> bool:
    """True if the values of a feature differ from step to step."""
    if feature is None or feature[0] == feature[1] or not num_steps:
        return False
    start, end = list_span(buffer, feature)
    length, rest = divmod(end - start, num_steps)
    return bool(rest) or bytes(buffer[start:end]) != bytes(buffer[start : start + length]) * num_steps


def first_text(buffer: Buffer, feature: tuple[int, int] | None, num_codes: int = MAX_INSTRUCTION_CODES) -> str:
    """The instruction at the first step: a text, or a row of UTF-8 codes padded with zeros (as in Language-Table)."""
    if feature is None or feature[0] == feature[1]:
        return ""
    if buffer[feature[0]] == 0x0A:
        values = texts(buffer, feature)
        return values[0] if values else ""
    codes = ints(buffer, feature)[:num_codes]
    return bytes(int(code) & 0xFF for code in codes[codes > 0]).decode(errors="replace")
