"""Writes an RLDS data set (a TFDS folder) from frames and per-step fields: `tfds.builder_from_directory` opens it.

OUT/NAME/VERSION/                  features.json, dataset_info.json, metadata.json, NAME-SPLIT.tfrecord-00000-of-00002
OUT/NAME/VERSION.incomplete/       the same while it is written; readers skip it
"""

import io
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg
from jaxtyping import Shaped, UInt8

from genie_datasets.base.errors import UserError
from genie_datasets.base.files import unwritable
from genie_datasets.sources.rlds.tfrecord import frame_record
from genie_datasets.writers.tfds_folder import Records, describe

VERSION = "1.0.0"
SHARD_BYTES = 128 << 20  # a shard is full when it reaches this size
JPEG_QUALITY = 95  # that of RT-1
IMAGE, INSTRUCTION = "observation/image", "observation/natural_language_instruction"
Frames = UInt8[np.ndarray, "L H W 3"] | Iterable[UInt8[np.ndarray, "n H W 3"]]
Kinds = tuple[tuple[int, ...], dict[str, tuple[np.dtype, tuple[int, ...]]], dict[str, np.dtype]]
"""(H, W, 3) of an episode's frames, type and shape of its fields, and type of its metadata."""
RESERVED = ("is_first", "is_last", "is_terminal", IMAGE, INSTRUCTION)


class RldsWriter(AbstractContextManager["RldsWriter"]):
    """`with RldsWriter(out, "my_robot", hz=3) as writer: writer.add(frames, "pick the can", {"action": actions})`.

    The data set appears as OUT/NAME/VERSION when the block ends without an error.

    Args:
        out: folder of data sets.
        name: name of the data set, of lower case letters, digits and underscores.
        hz: frames per second, stored in metadata.json.
        image_format: "jpeg", or "png" for exact pixels.

    Raises:
        UserError: the data set exists, or `name` or `image_format` is not possible.
    """

    def __init__(
        self, out: str | Path, name: str, hz: float, image_format: str = "jpeg", description: str = "",
        citation: str = "",
    ):  # fmt: skip
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise UserError(f"'{name}' is not a TFDS name; expected lower case letters, digits and underscores")
        if image_format not in ("jpeg", "png"):
            raise UserError(f"unknown image format '{image_format}'; expected jpeg or png")
        self.folder = Path(out) / name / VERSION
        self.name, self.hz, self.image_format = name, hz, image_format
        self.description, self.citation = description, citation
        self._partial = self.folder.with_name(f"{VERSION}.incomplete")
        if self.folder.exists():
            raise UserError(f"{self.folder} exists: choose another folder or name")
        shutil.rmtree(self._partial, ignore_errors=True)  # of a call that was interrupted
        self._kinds: Kinds | None = None
        self._records: Records | None = None
        self._features: Any = None
        self._lengths: dict[str, list[int]] = {}  # episodes per shard, by split
        self._bytes: dict[str, list[int]] = {}

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.finish()
        else:
            shutil.rmtree(self._partial, ignore_errors=True)

    def add(
        self,
        frames: Frames,
        instruction: str = "",
        fields: dict[str, Shaped[np.ndarray, "L ..."]] | None = None,
        split: str = "train",
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Adds one episode. All episodes must have the same fields, metadata and image size.

        frames: (L, H, W, 3) uint8, or an iterable of arrays (n, H, W, 3), which need not fit into memory together.
        fields: numbers, booleans or text, one row per frame; "observation/state" is the feature `state` of the
            observation. float64 is stored as float32, as in TFDS.
        metadata: numbers or text of the whole episode, stored under `episode_metadata`.

        Raises:
            UserError: the episode differs from those before it, or cannot be written.
        """
        fields = {key: field_of(value) for key, value in (fields or {}).items()}
        metadata = {key: field_of(value) for key, value in (metadata or {}).items()}
        images, shape = self._encode(frames)
        kinds = self._check(shape, fields, metadata, split)
        if self._records is None:
            self._kinds, self._features = kinds, features_of(self.image_format, *kinds)
            self._records = Records(self._features)
        last = len(images) - 1
        steps = (
            {"is_first": t == 0, "is_last": t == last, "is_terminal": t == last, IMAGE: image, INSTRUCTION: instruction}
            | {key: value[t] for key, value in fields.items()}
            for t, image in enumerate(images)
        )
        episode: dict[str, Any] = {"steps": [*map(nested, steps)]}
        if metadata:
            episode["episode_metadata"] = {key: value[()] for key, value in metadata.items()}
        record = self._records.encode(episode)
        lengths, sizes = self._lengths.setdefault(split, [0]), self._bytes.setdefault(split, [0])
        if sizes[-1] >= SHARD_BYTES:
            lengths.append(0)
            sizes.append(0)
        try:
            self._partial.mkdir(parents=True, exist_ok=True)
            with (self._partial / f"{split}-{len(lengths) - 1}").open("ab") as stream:
                stream.write(frame_record(record))
        except OSError as error:
            raise unwritable(self.folder, error) from None
        lengths[-1] += 1
        sizes[-1] += len(record)

    def _encode(self, frames: Frames) -> tuple[list[io.BytesIO], tuple[int, ...]]:
        """The encoded images of an episode, which TFDS stores unchanged, and its shape (L, H, W, 3)."""
        images: list[io.BytesIO] = []
        shape: tuple[int, ...] = ()
        for block in blocks_of(frames, self._where()):
            shape = shape or block.shape[1:]
            if block.shape[1:] != shape:
                raise UserError(
                    f"{self._where()}: its frames have several sizes, {shape[:2]} and {block.shape[1:3]}; expected "
                    "one; fit them with genie_datasets.fit_frames"
                )
            images += [io.BytesIO(self._encoded(frame)) for frame in block]
        if not images:
            raise UserError(f"{self._where()} has no frames; expected at least one")
        return images, (len(images), *shape)

    def _encoded(self, frame: np.ndarray) -> bytes:
        if self.image_format == "png":
            return cv2.imencode(".png", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))[1].tobytes()
        return simplejpeg.encode_jpeg(np.ascontiguousarray(frame), JPEG_QUALITY)

    def _where(self) -> str:
        return f"episode {sum(map(sum, self._lengths.values()))}"

    def _check(
        self, shape: tuple[int, ...], fields: dict[str, np.ndarray], metadata: dict[str, np.ndarray], split: str
    ) -> Kinds:
        where, length = self._where(), shape[0]
        if not re.fullmatch(r"\w+", split):
            raise UserError(f"{where}: split '{split}' is not a name; expected letters, digits and underscores")
        for key, value in fields.items():
            if key in RESERVED or not re.fullmatch(r"\w+(/\w+)*", key):
                raise UserError(
                    f"{where}: '{key}' cannot be a field; expected names separated by /, except {', '.join(RESERVED)}"
                )
            if value.ndim == 0 or len(value) != length:
                raise UserError(f"{where}: field '{key}' must have one row per frame, {length}, got {value.shape}")
        for key, value in metadata.items():
            if value.ndim:
                raise UserError(f"{where}: metadata '{key}' must be one number or text, got {value.shape}")
        kinds = (
            shape[1:],
            {key: (value.dtype, value.shape[1:]) for key, value in fields.items()},
            {key: value.dtype for key, value in metadata.items()},
        )
        if self._kinds not in (None, kinds):
            raise UserError(f"{where} has other fields or another size than the first: write it to another data set")
        return kinds

    def finish(self) -> Path:
        """Finishes the data set and returns its folder. Raises UserError."""
        if self._records is None:
            raise UserError(f"{self.folder}: a data set needs at least one episode; none was added")
        try:
            for split, lengths in self._lengths.items():
                for number in range(len(lengths)):
                    shard = f"{self.name}-{split}.tfrecord-{number:05d}-of-{len(lengths):05d}"
                    (self._partial / f"{split}-{number}").rename(self._partial / shard)
            splits = {split: (lengths, sum(self._bytes[split])) for split, lengths in self._lengths.items()}
            describe(
                self._partial, self.name, VERSION, self._features, splits, self.description, self.citation,
                {"hz": self.hz},
            )  # fmt: skip
            self._partial.rename(self.folder)
        except OSError as error:
            raise unwritable(self.folder, error) from None
        return self.folder


def blocks_of(frames: Frames, where: str) -> Iterator[np.ndarray]:
    """The frames of an episode as arrays (n, H, W, 3) uint8, n above 0. Raises UserError."""
    for block in [frames] if isinstance(frames, np.ndarray) else frames:
        if block.ndim != 4 or block.shape[-1] != 3 or block.dtype != np.uint8 or not len(block):
            raise UserError(f"{where}: frames must be (L, H, W, 3) uint8, L above 0, got {block.shape} {block.dtype}")
        yield block


def field_of(value: Any) -> np.ndarray:
    """A field as TFDS stores it: text as objects, float64 as float32."""
    array = np.asarray(value)
    if array.dtype.kind in "US":
        return array.astype(object)
    return array.astype(np.float32) if array.dtype == np.float64 else array


def features_of(
    image_format: str, shape: tuple[int, ...], kinds: dict[str, tuple[np.dtype, tuple[int, ...]]],
    metadata: dict[str, np.dtype],
) -> Any:  # fmt: skip
    """The tfds FeaturesDict of episodes with such images, fields and metadata."""
    import tensorflow_datasets as tfds

    def feature(dtype: np.dtype, shape: tuple[int, ...]) -> Any:
        if dtype.kind == "O":
            return tfds.features.Text()
        return tfds.features.Tensor(shape=shape, dtype=dtype.type) if shape else dtype.type

    steps = {
        "is_first": np.bool_, "is_last": np.bool_, "is_terminal": np.bool_,
        IMAGE: tfds.features.Image(shape=shape, dtype=np.uint8, encoding_format=image_format),
        INSTRUCTION: tfds.features.Text(), **{key: feature(*kind) for key, kind in kinds.items()},
    }  # fmt: skip
    whole = {"episode_metadata": {key: feature(dtype, ()) for key, dtype in metadata.items()}} if metadata else {}
    return tfds.features.FeaturesDict({"steps": tfds.features.Dataset(nested(steps)), **whole})


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    """{"observation/image": x} -> {"observation": {"image": x}}."""
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *folders, name = path.split("/")
        branch = tree
        for folder in folders:
            branch = branch.setdefault(folder, {})
        branch[name] = value
    return tree
