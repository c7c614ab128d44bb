"""One shard walked: where its episodes, their frames and instructions lie. The unit of work of an index."""

import mmap
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from genie_datasets.sources.decode import DamagedImage, decode_image
from genie_datasets.sources.rlds.array_records import address, is_array_record, open_reader, read_record
from genie_datasets.sources.rlds.example import bytes_spans, feature_spans, ints, list_span, texts
from genie_datasets.sources.rlds.tfrecord import Buffer, DamagedRecord, check_data, record_spans

MOST_INSTRUCTION_CODES = 512
IS_FIRST = "steps/is_first"


@dataclass(frozen=True)
class Wanted:
    """What an index is made for."""

    image_key: str
    instruction_key: str = ""
    keep_if: str = ""
    """A bool of the episode; where it is false, the episode is left out."""
    step_key: str = ""
    """A number per step, by which the steps are counted: there must be as many images."""
    instruction_codes: int = MOST_INSTRUCTION_CODES
    """Numbers of an instruction at a step, if it is a row of UTF-8 codes."""
    skip_damaged: bool = False
    """Damaged episodes are left out. To find them, checksums are compared and every image is decoded."""


@dataclass
class ShardIndex:
    """The kept episodes of one shard, e of them with f frames together."""

    record_start: np.ndarray  # (e,) int64, where the tf.train.Example begins
    record_end: np.ndarray  # (e,) int64
    record_number: np.ndarray  # (e,) int32
    num_frames: np.ndarray  # (e,) int64
    frame_offset: np.ndarray  # (f,) int64
    frame_length: np.ndarray  # (f,) int32
    instructions: np.ndarray  # (e,) text
    damage: np.ndarray  # (d,) text, what was skipped
    num_records: np.ndarray  # () int64, all that were read, kept or not
    num_left_out: np.ndarray  # () int64, by keep_if
    num_joined: np.ndarray  # () int64, kept episodes in which a later step says that it is the first
    num_empty: np.ndarray  # () int64, without an image
    num_retold: np.ndarray  # () int64, kept episodes whose instruction changes

    def arrays(self) -> dict[str, np.ndarray]:
        return asdict(self)

    @classmethod
    def of(cls, arrays: dict[str, np.ndarray]) -> "ShardIndex":
        return cls(**{field.name: arrays[field.name] for field in fields(cls)})


def index_shard(shard: Path, wanted: Wanted) -> ShardIndex:
    """Walks one shard. Raises DamagedRecord, unless damaged episodes are to be skipped."""
    records: list[tuple[int, int, int]] = []
    spans: list[np.ndarray] = []
    instructions: list[str] = []
    damage: list[str] = []
    num_records = num_left_out = num_joined = num_empty = num_retold = 0
    for number, start, found in walk(shard, wanted):
        if isinstance(found, DamagedRecord):
            if not wanted.skip_damaged:
                raise found
            damage.append(f"{shard.name} {found}")
            continue
        num_records += 1
        end, images, instruction, kept, is_joined, is_retold = found
        num_left_out += not kept
        num_empty += not len(images)
        if len(images) and kept:
            num_joined += is_joined
            num_retold += is_retold
            records.append((start, end, number))
            spans.append(images)
            instructions.append(instruction)
    table = np.array(records, np.int64).reshape(-1, 3)
    frames = np.concatenate([np.zeros((0, 2), np.int64), *spans])
    return ShardIndex(
        record_start=table[:, 0],
        record_end=table[:, 1],
        record_number=table[:, 2].astype(np.int32),
        num_frames=np.array([len(images) for images in spans], np.int64),
        frame_offset=frames[:, 0].copy(),
        frame_length=(frames[:, 1] - frames[:, 0]).astype(np.int32),
        instructions=np.array(instructions, str),
        damage=np.array(damage, str),
        num_records=np.array(num_records),
        num_left_out=np.array(num_left_out),
        num_joined=np.array(num_joined),
        num_empty=np.array(num_empty),
        num_retold=np.array(num_retold),
    )


# End of the record, (L,2) spans of its images, instruction, is it kept, does a later step say that it is the first,
# does the instruction change.
Found = tuple[int, np.ndarray, str, bool, bool, bool]


def walk(shard: Path, wanted: Wanted) -> Iterator[tuple[int, int, Found | DamagedRecord]]:
    """Yields (number, start, what is there or what is wrong) of each record.

    After a damaged record the next one is read, unless the damage hides where that begins.
    """
    if shard.stat().st_size == 0:
        return
    if is_array_record(shard):
        yield from walk_array_record(shard, wanted)
        return
    with shard.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as buffer:
        spans = record_spans(buffer)
        number = -1
        while True:
            number += 1
            try:
                start, end = next(spans)
            except StopIteration:
                return
            except DamagedRecord as error:
                yield number, 0, error
                return
            try:
                if wanted.skip_damaged:
                    check_data(buffer, start, end)
                found = read_episode(buffer, start, end, wanted)
            except DamagedRecord as error:
                yield number, start, error
            else:
                yield number, start, (end, *found)


def walk_array_record(shard: Path, wanted: Wanted) -> Iterator[tuple[int, int, Found | DamagedRecord]]:
    """`walk` of an array_record shard, whose positions are addresses."""
    try:
        reader = open_reader(shard)
    except DamagedRecord as error:
        yield 0, 0, error
        return
    try:
        for number in range(reader.num_records()):
            at = address(number)
            try:
                data = read_record(reader, number)
                images, instruction, kept, joined, retold = read_episode(data, 0, len(data), wanted)
            except DamagedRecord as error:
                yield number, at, error
            else:
                yield number, at, (address(number, len(data)), images + at, instruction, kept, joined, retold)
    finally:
        reader.close()


def read_episode(buffer: Buffer, start: int, end: int, wanted: Wanted) -> tuple[np.ndarray, str, bool, bool, bool]:
    """Read one episode: the entries of `Found` after the first. Raises DamagedRecord."""
    try:
        features = feature_spans(buffer, start, end)
        if wanted.image_key not in features:
            raise DamagedRecord(f"has an episode without '{wanted.image_key}' at byte {start}")
        images = np.array(bytes_spans(buffer, features[wanted.image_key]), np.int64).reshape(-1, 2)
        instruction = first_text(buffer, features.get(wanted.instruction_key), wanted.instruction_codes)
        is_retold = changes(buffer, features.get(wanted.instruction_key), len(images))
        keep_if = wanted.keep_if
        kept = not keep_if or bool(keep_if in features and ints(buffer, features[keep_if]).any())
        steps = ints(buffer, features[wanted.step_key]) if wanted.step_key in features else None
        if steps is not None and len(steps) != len(images):
            raise DamagedRecord(f"has an episode of {len(steps)} steps with {len(images)} images at byte {start}")
        is_joined = steps is not None and wanted.step_key == IS_FIRST and bool(steps[1:].any())
    except (IndexError, ValueError) as error:  # DamagedRecord is a ValueError
        if isinstance(error, DamagedRecord):
            raise
        raise DamagedRecord(f"holds a damaged tf.train.Example at byte {start}") from None
    if wanted.skip_damaged:
        check_images(buffer, images)
    return images, instruction, kept, is_joined, is_retold


def check_images(buffer: Buffer, images: np.ndarray) -> None:
    """Raises DamagedRecord where one of an episode's images does not decode."""
    for start, end in images.tolist():
        try:
            decode_image(bytes(buffer[start:end]))
        except DamagedImage as error:
            raise DamagedRecord(f"holds an image that does not decode at byte {start} ({error})") from None


def changes(buffer: Buffer, feature: tuple[int, int] | None, num_steps: int) -> bool:
    """True if the values of a feature are not the same at every step."""
    if feature is None or feature[0] == feature[1] or not num_steps:
        return False
    start, end = list_span(buffer, feature)
    each, rest = divmod(end - start, num_steps)
    return bool(rest) or bytes(buffer[start:end]) != bytes(buffer[start : start + each]) * num_steps


def first_text(buffer: Buffer, feature: tuple[int, int] | None, num_codes: int = MOST_INSTRUCTION_CODES) -> str:
    """The instruction at the first step: text, or (Language-Table) a row of UTF-8 codes padded with zeros."""
    if feature is None or feature[0] == feature[1]:
        return ""
    if buffer[feature[0]] == 0x0A:
        values = texts(buffer, feature)
        return values[0] if values else ""
    codes = ints(buffer, feature)[:num_codes]
    return bytes(int(code) & 0xFF for code in codes[codes > 0]).decode(errors="replace")
