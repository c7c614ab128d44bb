"""RLDS/TFDS folders, read from their unchanged TFRecord or array_record shards without TensorFlow."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from genie_datasets.base.cache_dir import fingerprint
from genie_datasets.base.errors import UserError
from genie_datasets.base.file_state import FileState
from genie_datasets.base.folders import first_of, note_copies
from genie_datasets.base.globs import exclude_option, glob_of, keep_files
from genie_datasets.base.notes import warn
from genie_datasets.sources.catalog import DEFAULT_HZ, known, known_hz
from genie_datasets.sources.encoded import EncodedSplit
from genie_datasets.sources.rlds.array_records import ArrayRecordFiles, is_array_record
from genie_datasets.sources.rlds.episode_index import EpisodeIndex, load_or_build
from genie_datasets.sources.rlds.index_shard import MAX_INSTRUCTION_CODES, IndexSpec
from genie_datasets.sources.rlds.schema import find_image_key, find_instruction_key, find_step_key, read_schema_file
from genie_datasets.sources.rlds.shard_files import ShardFiles
from genie_datasets.sources.rlds.truth import TruthReader
from genie_datasets.sources.split import Ids, Size, Source, Split
from genie_datasets.sources.truth import Truth

SHARD = re.compile(
    r"^(?P<name>.+)-(?P<split>[^-]+)\.(?P<format>tfrecord|array_record)-(?P<number>\d+)-of-(?P<total>\d+)$"
)
METADATA = ("features.json", "dataset_info.json", "metadata.json")


class RldsSplit(EncodedSplit):
    """A split whose frames are read through its EpisodeIndex."""

    def __init__(
        self, name: str, fingerprint: str, index: EpisodeIndex, folder: Path, hz: float, truth: TruthReader | None
    ):
        self.name = name
        self.fingerprint = fingerprint
        self.index = index
        self.num_frames = index.num_frames
        self.num_filtered = int(index.num_left_out.sum())
        self.damage = index.damage.tolist()
        self.hz = np.full(len(self.num_frames), hz)
        self.folder, self.location = folder, str(folder)
        paths = [folder / shard for shard in index.shards]
        self._files = ArrayRecordFiles(paths) if is_array_record(paths[0]) else ShardFiles(paths)
        self._truth = truth

    def frames(self, episode: int, ids: Ids = None, size: Size | None = None, mode: str = "crop") -> np.ndarray:
        frames = super().frames(episode, ids, size, mode)
        if ids is None:
            self._check_intact(episode)
        return frames

    def frame_blocks(self, episode: int, size: Size | None = None, mode: str = "crop") -> Iterator[np.ndarray]:
        yield from super().frame_blocks(episode, size, mode)
        self._check_intact(episode)

    def _check_intact(self, episode: int) -> None:
        if not self._files.is_intact(*self._span(episode)):
            raise self._bad(episode, "its checksum is wrong, so the file was changed or is damaged")

    def _span(self, episode: int) -> tuple[int, int, int]:
        """Number of the shard, start and end of the record."""
        index = self.index
        return int(index.record_shard[episode]), int(index.record_start[episode]), int(index.record_end[episode])

    def encoded(self, episode: int, step: int) -> bytes:
        frame = self.index.episode_start[episode] + step
        shard = self.index.record_shard[episode]
        return self._files.read(shard, int(self.index.frame_offset[frame]), int(self.index.frame_length[frame]))

    def instruction(self, episode: int) -> str:
        return str(self.index.instructions[self.index.instruction_id[episode]])

    def episode_name(self, episode: int) -> str:
        return f"{self.index.shards[self.index.record_shard[episode]]}#{self.index.record_number[episode]}"

    def truth(self, episode: int) -> Truth | None:
        if self._truth is None:
            return None
        try:
            found = self._truth.read(self.record(episode))
        except (IndexError, KeyError, ValueError) as error:  # DamagedRecord is a ValueError
            raise self._bad(episode, f"its true motion cannot be read ({error})") from None
        if len(found.position) != self.num_frames[episode]:
            raise self._bad(
                episode, f"it has true motion for {len(found.position)} of its {self.num_frames[episode]} steps"
            )
        return found

    def record(self, episode: int) -> bytes:
        shard, start, end = self._span(episode)
        return self._files.read(shard, start, end - start)

    def _place(self, episode: int) -> tuple[str, str]:
        shard = str(self.index.shards[self.index.record_shard[episode]])
        return f"episode {self.index.record_number[episode]} of shard {self.folder / shard}", shard

    def _bad(self, episode: int, what: str) -> UserError:
        where, shard = self._place(episode)
        return UserError(f"{where}: {what}; download the shard again, or leave it out with {exclude_option([shard])}")


def open_rlds(
    folder: Path,
    hz: float | None,
    include,
    exclude,
    image_key: str | None,
    unfiltered: bool = False,
    skip_damaged: bool = False,
) -> Source:
    """Opens the folder with features.json; unfiltered: also read episodes that the catalog leaves out."""
    schema = read_schema_file(folder / "features.json")
    info = read_described(folder / "dataset_info.json")
    name = str(info.get("name") or folder.parent.name)
    row = known(name)
    key = find_image_key(schema, image_key, str(folder), row.image_key if row else None)
    keep_if = row.keep_if if row and row.keep_if in schema and not unfiltered else ""
    words = find_instruction_key(schema) or ""
    codes = schema[words].shape[0] if words and len(schema[words].shape) == 1 and schema[words].shape[0] > 0 else 0
    spec = IndexSpec(key, words, keep_if, find_step_key(schema), codes or MAX_INSTRUCTION_CODES, skip_damaged)
    keys = ("rlds", key, *([f"if {keep_if}"] if keep_if else []), *(["skip damaged"] if skip_damaged else []))
    metadata = [folder / name for name in METADATA]
    lengths = shard_lengths(info)
    rate = resolve_hz(folder, name, hz)
    truth = TruthReader.for_schema(schema, name)
    splits: dict[str, Split] = {}
    groups = find_shards(folder, include, exclude)
    damage: list[str] = []
    for split, shards in groups.items():
        state = FileState.read(folder, [*shards, *metadata])
        digest = fingerprint(folder, shards, *keys, metadata=metadata)
        index = load_or_build(shards, spec, f"{digest}-{state.digest}", lengths)
        damage += index.damage.tolist()
        if len(index.damage):
            warn(f"split '{split}' of {folder}: skipped what is damaged: {first_of(index.damage.tolist())}")
        for num, what in (
            (index.num_joined, "have is_first set at a later step: each record is read as one episode"),
            (index.num_empty, "have no frames: left out"),
            (index.num_retold, "change their instruction: the first is read"),
            (index.num_left_out, f"have no {keep_if} set: left out, as is usual for {name}; --unfiltered reads all"),
        ):
            if num.sum():
                warn(f"split '{split}' of {folder}: {int(num.sum())} episodes {what}")
        note_copies(shards)
        if len(index.record_shard):
            splits[split] = RldsSplit(split, f"{digest}-{index.digest}", index, folder, rate, truth)
            splits[split].states = [state]
    if not splits:
        which = ": its shards are empty; download them again"
        if damage:
            which = f" that can be read: {damage[0]}; leave out --skip-damaged for a remedy"
        elif keep_if:
            which = f" with {keep_if}: --unfiltered reads all"
        raise UserError(f"{folder} holds no episode{which}")
    return Source(name, str(folder), "rlds", splits, "+".join(split.fingerprint for split in splits.values()))


def find_shards(folder: Path, include=None, exclude=None) -> dict[str, list[Path]]:
    """The shards of each split in the order of their numbers, `train` first.

    Raises UserError if there are none, or if the folder mixes shards of two data sets: other names, formats, or numbers
    of shards.
    """
    matches = {path: match for path in sorted(folder.iterdir()) if (match := SHARD.match(path.name))}
    kept = keep_files(list(matches), folder, include, exclude)
    if not kept:
        raise UserError(
            f"{folder} has features.json but no shard (such as NAME-SPLIT.tfrecord-00000-of-00001): download them"
        )
    groups: dict[str, list[Path]] = {}
    for path in kept:
        groups.setdefault(matches[path]["split"], []).append(path)
    _check_one_kind(folder, {f"*.{matches[path]['format']}-*": path for path in kept}, "formats")
    _check_one_kind(folder, {f"{glob_of(matches[path]['name'])}-*.*": path for path in kept}, "data sets")
    for split, shards in groups.items():
        totals = [int(matches[path]["total"]) for path in shards]
        globs = {f"*-{glob_of(split)}.*-of-{matches[path]['total']}": path for path in shards}
        _check_one_kind(folder, globs, f"writings of split '{split}'")
        shards.sort(key=lambda path: int(matches[path]["number"]))
        numbers = [int(matches[path]["number"]) for path in shards]
        if numbers[-1] >= totals[0] or len({*numbers}) < len(numbers):
            wrong = shards[-1] if numbers[-1] >= totals[0] else shards[int((np.diff(numbers) == 0).argmax()) + 1]
            raise UserError(
                f"{wrong} does not belong to the other {totals[0]} shards, numbered 0 to {totals[0] - 1}: "
                f"remove it, or leave it out with {exclude_option([wrong.name])}"
            )
        present = sum(match["split"] == split for match in matches.values())
        if present != totals[0]:
            warn(f"{folder} has {present} of the {totals[0]} shards of split '{split}': reading those")
    return dict(sorted(groups.items(), key=lambda item: (item[0] != "train", item[0])))


def _check_one_kind(folder: Path, globs: dict[str, Path], what: str) -> None:
    """Raises UserError if there are several kinds of shards; globs: one shard of each, by the glob of its kind."""
    if len(globs) > 1:
        first, *others = globs
        raise UserError(
            f"{folder} holds shards of several {what}, such as {globs[first].name} and {globs[others[0]].name}: read "
            f"one of them, for instance with --exclude '{','.join(others)}'"
        )


def read_described(path: Path) -> dict:
    """A JSON object that describes a data set; {} if the file is missing, or, with a note, damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
        if isinstance(found, dict):
            return found
        why = "it is not a JSON object"
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        why = str(error)
    warn(f"{path} cannot be read ({' '.join(why.split())[:120]}): continuing without it")
    return {}


def shard_lengths(info: dict) -> dict[str, int]:
    """Number of episodes of each shard, by file name, as stated in dataset_info.json; {} if that is damaged."""
    kind = info.get("fileFormat", "tfrecord")
    try:
        return {
            f"{info.get('name')}-{split.get('name')}.{kind}-{number:05d}-of-{len(counts):05d}": int(count)
            for split in info.get("splits", [])
            for counts in [split.get("shardLengths", [])]
            for number, count in enumerate(counts)
        }
    except (TypeError, ValueError, AttributeError):
        return {}


def resolve_hz(folder: Path, name: str, asked: float | None) -> float:
    """The rate: `asked`, else that of metadata.json, else that of the catalog, else 3 Hz with a note."""
    if asked is not None:
        return asked
    stated = read_described(folder / "metadata.json").get("hz")
    is_rate = isinstance(stated, int | float) and not isinstance(stated, bool) and 0 < stated < float("inf")
    if stated is not None and not is_rate:
        warn(f"{folder / 'metadata.json'} states the rate {stated!r}, which is not positive frames per second: ignored")
    rate = float(stated) if is_rate and stated is not None else known_hz(name)
    if rate is None:
        warn(f"the control rate of '{name}' is unknown: assuming {DEFAULT_HZ:g} Hz; pass --hz if that is wrong")
    return rate or DEFAULT_HZ
