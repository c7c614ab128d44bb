"""RLDS/TFDS directories, read from the unchanged TFRecord or array_record shards without TensorFlow."""

import json
import re
from pathlib import Path

import numpy as np

from genie_datasets.array_records import ArrayRecordFiles, is_array_record
from genie_datasets.cache_dir import fingerprint
from genie_datasets.decode import DamagedImage, decode_image, image_size
from genie_datasets.episode_index import EpisodeIndex, load_or_build
from genie_datasets.errors import UserError
from genie_datasets.globs import keep_files
from genie_datasets.index_shard import Wanted
from genie_datasets.registry import DEFAULT_HZ, known, known_hz, warn
from genie_datasets.rlds_truth import TruthReader
from genie_datasets.schema import find_image_key, find_instruction_key, read_schema_file
from genie_datasets.shard_files import ShardFiles
from genie_datasets.split import Size, Source, Split, frame_ids
from genie_datasets.truth import Truth

SHARD = re.compile(r"^(?P<name>.+)-(?P<split>[^-]+)\.(?P<format>tfrecord|array_record)-\d+-of-(?P<total>\d+)$")


class RldsSplit(Split):
    def __init__(
        self, name: str, fingerprint: str, index: EpisodeIndex, folder: Path, hz: float, truth: TruthReader | None
    ):
        self.name = name
        self.fingerprint = fingerprint
        self.index = index
        self.num_frames = index.num_frames
        self.num_filtered = index.num_filtered
        self.damage = index.damage.tolist()
        self.hz = np.full(len(self.num_frames), hz)
        paths = [folder / shard for shard in index.shards]
        self._files = ArrayRecordFiles(paths) if is_array_record(paths[0]) else ShardFiles(paths)
        self._truth = truth

    def frames(
        self, episode: int, ids: np.ndarray | None = None, size: Size | None = None, mode: str = "crop"
    ) -> np.ndarray:
        ids = frame_ids(ids, self.num_frames[episode])
        out: np.ndarray | None = None
        for n, step in enumerate(ids):
            try:
                image = decode_image(self.encoded(episode, step), size, mode)
            except DamagedImage as error:
                raise self._bad_image(episode, step, str(error)) from None
            if out is None:
                out = np.empty((len(ids), *image.shape), np.uint8)
            if image.shape != out.shape[1:]:
                raise self._bad_image(episode, step, f"{image.shape[:2]} pixels where the others have {out.shape[1:3]}")
            out[n] = image
        return np.empty((0, *(size or self.image_size), 3), np.uint8) if out is None else out

    def encoded(self, episode: int, step: int) -> bytes:
        """The stored image file of one frame, as it is."""
        frame = self.index.episode_start[episode] + step
        shard = self.index.record_shard[episode]
        return self._files.read(shard, int(self.index.frame_offset[frame]), int(self.index.frame_length[frame]))

    @property
    def image_size(self) -> Size:
        try:
            return image_size(self.encoded(0, 0))
        except DamagedImage as error:
            raise self._bad_image(0, 0, str(error)) from None

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
            raise self._bad(episode, f"true motion of {len(found.position)} of its {self.num_frames[episode]} steps")
        return found

    def record(self, episode: int) -> bytes:
        start, end = int(self.index.record_start[episode]), int(self.index.record_end[episode])
        return self._files.read(self.index.record_shard[episode], start, end - start)

    def _bad_image(self, episode: int, step: int, what: str) -> UserError:
        return self._bad(episode, what, f", step {step}")

    def _bad(self, episode: int, what: str, where: str = "") -> UserError:
        shard = self.index.shards[self.index.record_shard[episode]]
        return UserError(
            f"episode {self.index.record_number[episode]}{where} of shard {shard}: {what}; "
            f"download the shard again, or leave it out with --exclude '{shard}'"
        )


def open_rlds(
    folder: Path,
    hz: float | None,
    include,
    exclude,
    image_key: str | None,
    unfiltered: bool = False,
    skip_damaged: bool = False,
) -> Source:
    """folder: the one that holds features.json; unfiltered: also episodes that the catalogue leaves out; skip_damaged:
    without those that cannot be read."""
    schema = read_schema_file(folder / "features.json")
    info = read_info(folder)
    name = str(info.get("name") or folder.parent.name)
    row = known(name)
    key = find_image_key(schema, image_key, str(folder), row.image_key if row else None)
    keep_if = row.keep_if if row and row.keep_if in schema and not unfiltered else ""
    wanted = Wanted(key, find_instruction_key(schema) or "", keep_if, skip_damaged)
    keys = ("rlds", key, *([f"if {keep_if}"] if keep_if else []), *(["skip damaged"] if skip_damaged else []))
    lengths = shard_lengths(info)
    rate = resolve_hz(folder, name, hz)
    truth = TruthReader.for_schema(schema, name)
    splits: dict[str, Split] = {}
    groups = find_shards(folder, include, exclude)
    for split, shards in groups.items():
        mark = fingerprint(folder, shards, *keys)
        index = load_or_build(shards, wanted, mark, lengths)
        if len(index.damage):
            more = f" (and {len(index.damage) - 1} more)" if len(index.damage) > 1 else ""
            warn(f"split '{split}' of {folder}: skipped what is damaged: {index.damage[0]}{more}")
        if len(index.record_shard):
            splits[split] = RldsSplit(split, mark, index, folder, rate, truth)
    if not splits:
        which = f" with {keep_if}: --unfiltered reads all" if keep_if else ": its shards are empty; download it again"
        raise UserError(f"{folder} holds no episode{which}")
    shards = [shard for group in groups.values() for shard in group]
    return Source(name, str(folder), "rlds", splits, fingerprint(folder, shards, *keys))


def find_shards(folder: Path, include=None, exclude=None) -> dict[str, list[Path]]:
    """Split name -> its TFRecord shards in order, `train` first; raises UserError when there are none."""
    matches = {path: match for path in sorted(folder.iterdir()) if (match := SHARD.match(path.name))}
    formats = {match["format"] for match in matches.values()}
    if len(formats) > 1:
        raise UserError(f"{folder} holds shards of two formats, {' and '.join(sorted(formats))}: remove those of one")
    kept = keep_files(list(matches), folder, include, exclude)
    if not kept:
        raise UserError(
            f"{folder} has features.json but no shard (such as NAME-SPLIT.tfrecord-00000-of-00001): download them"
        )
    groups: dict[str, list[Path]] = {}
    for path in kept:
        groups.setdefault(matches[path]["split"], []).append(path)
    for split, shards in groups.items():
        present = sum(match["split"] == split for match in matches.values())
        total = int(matches[shards[0]]["total"])
        if present != total:
            warn(f"{folder} has {present} of the {total} shards of split '{split}': reading those")
    return dict(sorted(groups.items(), key=lambda item: (item[0] != "train", item[0])))


def read_info(folder: Path) -> dict:
    """dataset_info.json, or {} when there is none that parses: everything needed can be had without."""
    try:
        info = json.loads((folder / "dataset_info.json").read_text())
    except (OSError, ValueError):
        return {}
    return info if isinstance(info, dict) else {}


def shard_lengths(info: dict) -> dict[str, int]:
    """Shard file name -> number of episodes, as dataset_info.json states it; {} where it does not parse."""
    lengths = {}
    try:
        for split in info.get("splits", []):
            counts = split.get("shardLengths", [])
            for number, count in enumerate(counts):
                kind = info.get("fileFormat", "tfrecord")
                shard = f"{info.get('name')}-{split.get('name')}.{kind}-{number:05d}-of-{len(counts):05d}"
                lengths[shard] = int(count)
    except (TypeError, ValueError, AttributeError):
        return {}
    return lengths


def resolve_hz(folder: Path, name: str, asked: float | None) -> float:
    """--hz, else the data set's own metadata.json, else what is known of its name, else 3 with a warning."""
    if asked is not None:
        return asked
    try:
        stated = json.loads((folder / "metadata.json").read_text()).get("hz")
    except (OSError, ValueError, AttributeError):
        stated = None
    rate = float(stated) if isinstance(stated, int | float) and stated > 0 else known_hz(name)
    if rate is None:
        warn(f"the control rate of '{name}' is not known: taking {DEFAULT_HZ:g} Hz; say --hz if that is wrong")
    return rate or DEFAULT_HZ
