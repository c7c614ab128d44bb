"""The reference reader, through `tfds.builder_from_directory` and `rlds.transformations`: the same frames as the index.

It opens everything that TFDS opens, gs:// addresses too, and the tests compare the index with it. It reads in order: an
earlier episode than the last one is read again from the beginning. Build a frame cache from it for training.
"""

import hashlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from genie_datasets.base.cache_dir import READERS_VERSION, SAMPLE_BYTES
from genie_datasets.base.errors import UserError, first_line
from genie_datasets.base.file_state import FileState
from genie_datasets.base.fit import fit_frames
from genie_datasets.base.notes import warn
from genie_datasets.sources.catalog import DEFAULT_HZ, known
from genie_datasets.sources.decode import DamagedImage, image_size, jpeg_ratio
from genie_datasets.sources.encoded import EncodedSplit
from genie_datasets.sources.rlds.schema import find_image_key, find_instruction_key, read_schema
from genie_datasets.sources.rlds.source import METADATA, resolve_hz
from genie_datasets.sources.split import Size, Source, Split


def import_tensorflow():
    """TensorFlow, without access to the GPU, which is torch's."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")
    return tf


def import_rlds():
    """The module `rlds`, with a stub of `reverb` if the real one cannot be imported.

    The last release of dm-reverb cannot be loaded together with current TensorFlow. `rlds.transformations.pattern`
    imports it at the top, but only `pattern_map` and similar functions use it, which are not used here.
    """
    try:
        import reverb
    except ImportError:
        for name in [n for n in sys.modules if n == "reverb" or n.startswith("reverb.")]:
            del sys.modules[name]  # remains of the failed import
        writer = ModuleType("reverb.structured_writer")
        for name in ("Config", "Pattern", "ReferenceStep", "Condition"):
            setattr(writer, name, type(name, (), {}))
        reverb = ModuleType("reverb")
        reverb.structured_writer = writer
        sys.modules.update({"reverb": reverb, "reverb.structured_writer": writer})
    import rlds

    return rlds


class TfdsSplit(EncodedSplit):
    """A split that TFDS reads."""

    sequential = True

    def __init__(self, builder, name: str, image_key: str, instruction_key: str | None, hz: float, keep_if: str = ""):
        self._builder, self.name, self.location = builder, name, str(builder.data_path)
        self._image_key = image_key.split("/")[1:]
        self._instruction_key = instruction_key and instruction_key.split("/")[1:]
        self._keep_if = keep_if
        info = builder.info.splits[name]
        self.fingerprint = f"tfds-{builder.info.full_name}-{name}-{image_key}-{info.num_bytes}-{info.shard_lengths}"
        state, content = state_and_content(builder, name)
        self.fingerprint += f"-{content}"
        self.states = [state]
        self._instructions: list[str] = []
        if keep_if:
            self.fingerprint += f"-if-{keep_if}"
        self.num_frames = self._count()
        self.num_filtered = info.num_examples - len(self.num_frames) if keep_if else 0
        self.hz = np.full(len(self.num_frames), hz)
        self._next = 0
        self._stream: Iterator[dict] = iter(())
        self._last: tuple[int, list[bytes]] = (-1, [])

    def encoded_episodes(self):
        """tf.data of the episodes in file order, with images as stored bytes."""
        import tensorflow_datasets as tfds

        skip = tfds.decode.SkipDecoding()
        for key in reversed(self._image_key):
            skip = {key: skip}
        return self.episodes({"steps": skip})

    def episodes(self, decoders=None):
        """tf.data of the episodes in file order; by default with every image decoded, as TFDS gives it."""
        import tensorflow_datasets as tfds

        in_order = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)
        found = self._builder.as_dataset(split=self.name, decoders=decoders, read_config=in_order, shuffle_files=False)
        return found.filter(lambda episode: episode[self._keep_if]) if self._keep_if else found

    def image_of(self, step: dict):
        """The image of the camera in one step."""
        return _get(step, self._image_key)

    def _count(self) -> np.ndarray:
        rlds = import_rlds()
        counts = []
        for episode in self.encoded_episodes():
            counts.append(int(rlds.transformations.episode_length(episode["steps"])))
            first = next(iter(episode["steps"].take(1)), None)
            key = self._instruction_key if first is not None else None
            self._instructions.append(_text(_get(first, key)) if key else "")
        return np.array(counts, np.int64)

    def _images(self, episode: int) -> list[bytes]:
        if self._last[0] != episode:
            if episode < self._next or self._next == 0:
                self._next, self._stream = 0, iter(self.encoded_episodes())
            while self._next <= episode:
                steps = next(self._stream)["steps"]
                self._next += 1
            images = self._encoded_images(steps)
            self._last = (episode, [image.numpy() for image in images])
        return self._last[1]

    def _encoded_images(self, steps):
        # By default rlds divides by the size of a step, which is 0 for a step of texts.
        steps_at_once = 1
        return import_rlds().transformations.map_steps(steps, self.image_of, steps_at_once)

    def encoded(self, episode: int, step: int) -> bytes:
        return self._images(episode)[step]

    def _decode(self, data: bytes, size: Size | None, mode: str) -> np.ndarray:
        tf = import_tensorflow()
        try:
            frame = decode(data, self._ratio(data, size)).numpy()
        except tf.errors.InvalidArgumentError as error:
            raise DamagedImage(first_line(error)) from None
        return frame if size is None else fit_frames(frame, size, mode)

    def _place(self, episode: int) -> tuple[str, str]:
        return f"episode {episode} of split '{self.name}' of {self.location}", ""

    def _bad(self, episode: int, what: str) -> UserError:
        return UserError(f"{self._place(episode)[0]} has a damaged image ({what}): download its shard again")

    def instruction(self, episode: int) -> str:
        return self._instructions[episode]

    def episode_name(self, episode: int) -> str:
        return f"{self.name}#{episode}"

    def _ratio(self, image: bytes, size: Size | None) -> int:
        return 1 if size is None else jpeg_ratio(*image_size(image), size)

    def clips(
        self, clip_length: int, shift: int, gap_frames: int, size: Size, repeat: bool = False
    ) -> Iterator[np.ndarray]:
        """Windows (T, H, W, 3) uint8 made by `rlds.transformations.batch` of encoded images, which are decoded then."""
        tf, rlds = import_tensorflow(), import_rlds()

        def windows(episode):
            images = self._encoded_images(episode["steps"])
            return rlds.transformations.batch(images, clip_length, shift, gap_frames, drop_remainder=True)

        ratio = self._ratio(self._images(0)[0], size)

        def decode_window(images):
            spec = tf.TensorSpec((None, None, 3), tf.uint8)
            return tf.map_fn(lambda image: decode(image, ratio), images, fn_output_signature=spec)

        parallel = tf.data.AUTOTUNE
        stream = self.encoded_episodes().repeat(None if repeat else 1)
        stream = stream.flat_map(windows).map(decode_window, num_parallel_calls=parallel)
        for window in stream.prefetch(parallel):
            yield fit_frames(window.numpy(), size)


def decode(image, ratio: int = 1):
    """Decodes an image to (H, W, 3) uint8 with the accurate DCT; ratio: by which a JPEG is shrunk."""
    import tensorflow as tf

    is_png = tf.strings.substr(image, 0, 4) == b"\x89PNG"
    return tf.cond(
        is_png,
        lambda: tf.io.decode_png(image, channels=3),
        lambda: tf.io.decode_jpeg(image, channels=3, ratio=ratio, dct_method="INTEGER_ACCURATE"),
    )


def state_and_content(builder, name: str) -> tuple[FileState, str]:
    """The state of a split's files, in any file system of TensorFlow, and their digest: of whole metadata files, and of
    name, size and last 4 KB of shards."""
    tf = import_tensorflow()
    folder = str(builder.data_path)
    shards = [str(path) for path in builder.info.splits[name].filepaths]
    found, digest = {}, hashlib.sha256(READERS_VERSION.encode())
    for path in sorted([*shards, *(f"{folder}/{file}" for file in METADATA)]):
        file = path.rpartition("/")[2]
        try:
            info = tf.io.gfile.stat(path)
            found[file] = (int(info.length), int(info.mtime_nsec))
            if "://" not in path:  # TensorFlow rounds times to seconds
                found[file] = (os.stat(path).st_size, os.stat(path).st_mtime_ns)
            with tf.io.gfile.GFile(path, "rb") as stream:
                if file not in METADATA:
                    stream.seek(max(0, found[file][0] - SAMPLE_BYTES))
                digest.update(f"\0{file}\0{found[file][0]}\0".encode() + stream.read())
        except tf.errors.NotFoundError:  # metadata.json is optional, and shards may be missing
            continue
    return FileState(folder, found), digest.hexdigest()[:16]


def open_tfds(folder: str, hz: float | None, image_key: str | None, unfiltered: bool = False) -> Source:
    """Opens the folder with features.json, at a path or a gs:// address. Raises UserError."""
    tf = import_tensorflow()
    import tensorflow_datasets as tfds

    try:
        with tf.io.gfile.GFile(f"{folder}/features.json") as file:
            text = file.read()
        builder = tfds.builder_from_directory(folder)
    except Exception as error:  # TFDS, protobuf and the file systems raise exceptions of many types
        reason = first_line(error)
        raise UserError(f"TFDS cannot open {folder} ({reason}): choose the folder that holds features.json") from None
    if str(builder.info.file_format.value) == "array_record":
        raise UserError(f"{folder} holds array_record shards, which TFDS cannot read in order: leave out --reader rlds")
    schema = read_schema(text, f"{folder}/features.json")
    row = known(builder.name)
    key = find_image_key(schema, image_key, folder, row.image_key if row else None)
    keep_if = row.keep_if if row and row.keep_if in schema and not unfiltered else ""
    rate = hz or (resolve_hz(Path(folder), builder.name, None) if "://" not in folder else row.hz if row else None)
    if rate is None:
        rate = DEFAULT_HZ
        warn(f"the control rate of '{builder.name}' is unknown: assuming {rate:g} Hz; pass --hz if that is wrong")
    names = sorted(builder.info.splits, key=lambda name: (name != "train", name))
    try:
        splits: dict[str, Split] = {
            name: TfdsSplit(builder, name, key, find_instruction_key(schema), rate, keep_if) for name in names
        }
    except tf.errors.OpError as error:
        reason = re.sub(r"\{\{.*?\}\} ?", "", " ".join(str(error).split()))[:120]
        raise UserError(f"TFDS cannot read {folder} ({reason}): download its shards again") from None
    return Source(builder.name, folder, "rlds", splits, "+".join(split.fingerprint for split in splits.values()))


def _get(step: Any, keys: list[str]):
    for key in keys:
        step = step[key]
    return step


def _text(value) -> str:
    value = value.numpy()
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return bytes(int(code) for code in np.ravel(value) if 0 < code < 256).decode(errors="replace")
