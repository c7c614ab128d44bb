"""EpisodeIndex: where every frame of one split lies in its unchanged TFRecord shards. Built once, then mapped."""

import mmap
import zipfile
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from genie_datasets.array_records import address, is_array_record, records
from genie_datasets.cache_dir import AtomicFile, cache_dir
from genie_datasets.errors import UserError
from genie_datasets.example import bytes_spans, feature_spans, ints, texts
from genie_datasets.tfrecord import Buffer, DamagedRecord, record_spans

INDEX_VERSION = 2


@dataclass
class EpisodeIndex:
    """12 bytes a frame. Frames of an episode lie in the shard of its record."""

    shards: np.ndarray  # (S,) file names
    record_shard: np.ndarray  # (E,) int32, which shard holds the episode
    record_start: np.ndarray  # (E,) int64, where its tf.train.Example begins
    record_end: np.ndarray  # (E,) int64
    record_number: np.ndarray  # (E,) int32, the episode's number within its shard
    episode_start: np.ndarray  # (E+1,) int64, first frame of each episode in the arrays below
    frame_offset: np.ndarray  # (F,) int64, byte offset of the encoded image in its shard
    frame_length: np.ndarray  # (F,) int32, bytes
    instructions: np.ndarray  # (I,) distinct instructions
    instruction_id: np.ndarray  # (E,) int32
    num_left_out: np.ndarray  # () int64, episodes that the filter left out

    @property
    def num_frames(self) -> np.ndarray:
        return np.diff(self.episode_start)

    @property
    def num_filtered(self) -> int:
        return int(self.num_left_out)

    def save(self, path: Path) -> None:
        with AtomicFile(path) as stream:
            np.savez(stream, **{field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def load(cls, path: Path) -> "EpisodeIndex":
        with np.load(path) as arrays:
            return cls(**{field.name: arrays[field.name] for field in fields(cls)})


def load_or_build(
    shards: list[Path],
    image_key: str,
    instruction_key: str | None,
    fingerprint: str,
    lengths: dict[str, int],
    keep_if: str = "",
) -> EpisodeIndex:
    """The index of a split's shards, from the user's cache directory if it was built before.

    lengths: episodes per shard name as the data set's own metadata states them, where it does. keep_if: a bool of the
    episode; where it is false, the episode is left out.
    """
    path = cache_dir() / "index" / f"v{INDEX_VERSION}-{fingerprint}.npz"
    try:
        return EpisodeIndex.load(path)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):  # absent, or not whole: build it
        index = build(shards, image_key, instruction_key, lengths, keep_if)
    try:
        index.save(path)
    except OSError as error:  # works without; only the next start takes as long again
        from genie_datasets.registry import warn

        warn(
            f"cannot keep the index in {path.parent} ({error.strerror}); set GENIE_ROBOTICS_CACHE to a writable folder"
        )
    return index


def build(
    shards: list[Path], image_key: str, instruction_key: str | None, lengths: dict[str, int], keep_if: str = ""
) -> EpisodeIndex:
    """Walk every shard; raises UserError naming the first that is damaged."""
    from tqdm import tqdm

    records: list[tuple[int, int, int, int]] = []
    spans: list[np.ndarray] = []
    instructions: dict[str, int] = {}
    instruction_id: list[int] = []
    num_left_out = 0
    num_bytes = sum(shard.stat().st_size for shard in shards)
    bar = tqdm(total=num_bytes, desc="index", unit="B", unit_scale=True, leave=False, disable=num_bytes < 1 << 28)
    for number, shard in enumerate(shards):
        try:
            found = list(walk(shard, image_key, instruction_key, keep_if))
        except DamagedRecord as error:
            raise damaged(shard, str(error)) from None
        expected = lengths.get(shard.name, len(found))
        if len(found) != expected:
            raise damaged(shard, f"holds {len(found)} episodes where dataset_info.json says {expected}")
        for position, (start, end, images, instruction, kept) in enumerate(found):
            num_left_out += not kept
            if not len(images) or not kept:
                continue
            records.append((number, start, end, position))
            spans.append(images)
            instruction_id.append(instructions.setdefault(instruction, len(instructions)))
        bar.update(shard.stat().st_size)
    bar.close()
    table = np.array(records, np.int64).reshape(-1, 4)
    frames = np.concatenate([np.zeros((0, 2), np.int64), *spans])
    return EpisodeIndex(
        shards=np.array([shard.name for shard in shards]),
        record_shard=table[:, 0].astype(np.int32),
        record_start=table[:, 1],
        record_end=table[:, 2],
        record_number=table[:, 3].astype(np.int32),
        episode_start=np.concatenate([[0], np.cumsum([len(s) for s in spans], dtype=np.int64)]).astype(np.int64),
        frame_offset=frames[:, 0].copy(),
        frame_length=(frames[:, 1] - frames[:, 0]).astype(np.int32),
        instructions=np.array(list(instructions) or [""]),
        instruction_id=np.array(instruction_id, np.int32),
        num_left_out=np.array(num_left_out),
    )


def walk(shard: Path, image_key: str, instruction_key: str | None, keep_if: str = ""):
    """Yield (record start, record end, (L,2) spans of its images, instruction, is it kept) for each episode."""
    if shard.stat().st_size == 0:
        return
    keys = image_key, instruction_key or "", keep_if
    if is_array_record(shard):
        for number, data in records(shard):
            images, instruction, kept = read_episode(data, 0, len(data), *keys)
            yield address(number), address(number, len(data)), images + address(number), instruction, kept
        return
    with shard.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as buffer:
        for start, end in record_spans(buffer):
            yield start, end, *read_episode(buffer, start, end, *keys)


def read_episode(
    buffer: Buffer, start: int, end: int, image_key: str, instruction_key: str, keep_if: str
) -> tuple[np.ndarray, str, bool]:
    """(L,2) spans of an episode's images, its instruction, and whether it is kept; raises DamagedRecord."""
    try:
        features = feature_spans(buffer, start, end)
        if image_key not in features:
            raise DamagedRecord(f"has an episode without '{image_key}' at byte {start}")
        images = np.array(bytes_spans(buffer, features[image_key]), np.int64).reshape(-1, 2)
        instruction = first_text(buffer, features.get(instruction_key))
        kept = not keep_if or bool(keep_if in features and ints(buffer, features[keep_if]).any())
    except (IndexError, UnicodeDecodeError):
        raise DamagedRecord(f"holds a damaged tf.train.Example at byte {start}") from None
    return images, instruction, kept


def first_text(buffer: Buffer, feature: tuple[int, int] | None) -> str:
    """The instruction at the first step: text, or (Language-Table) a row of UTF-8 codes padded with zeros."""
    if feature is None or feature[0] == feature[1]:
        return ""
    if buffer[feature[0]] == 0x0A:
        values = texts(buffer, feature)
        return values[0] if values else ""
    codes = ints(buffer, feature)[:512]
    return bytes(int(code) & 0xFF for code in codes[codes > 0]).decode(errors="replace")


def damaged(shard: Path, what: str) -> UserError:
    return UserError(f"shard {shard} {what}: download it again, or leave it out with --exclude '{shard.name}'")
