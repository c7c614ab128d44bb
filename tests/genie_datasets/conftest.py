"""Small sources written by hand, without TensorFlow: RLDS records, features.json, videos."""

import json
import os
import struct
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import simplejpeg

from genie_datasets.sources.rlds.tfrecord import frame_record


def examples(number: int) -> int:
    """Number of inputs of a property test, multiplied by GENIE_EXAMPLES."""
    return number * int(os.environ.get("GENIE_EXAMPLES", 1))


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(tag: int, payload: bytes) -> bytes:
    return bytes([tag]) + varint(len(payload)) + payload


def encode_example(features: dict) -> bytes:
    """{name: list of bytes | float array | int array} -> a serialized tf.train.Example."""
    entries = b""
    for name, values in features.items():
        if isinstance(values, list):
            feature = field(0x0A, b"".join(field(0x0A, value) for value in values))
        elif np.asarray(values).dtype.kind == "f":
            data = np.asarray(values, "<f4").tobytes()
            feature = field(0x12, field(0x0A, data))
        else:
            feature = field(0x1A, field(0x0A, b"".join(varint(int(v)) for v in np.ravel(values))))
        entries += field(0x0A, field(0x0A, name.encode()) + field(0x12, feature))
    return field(0x0A, entries)


def unpacked_floats(name: str, values) -> bytes:
    """A float feature as old writers store it, with one tag per value."""
    data = b"".join(b"\x0d" + struct.pack("<f", v) for v in values)
    return field(0x0A, field(0x0A, field(0x0A, name.encode()) + field(0x12, field(0x12, data))))


def moving_square(length: int, height: int = 32, width: int = 40, seed: int = 0) -> np.ndarray:
    """(L, H, W, 3) uint8: a bright square walks over a smooth background."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 120, width)[None, :, None] + np.linspace(0, 60, height)[:, None, None]
    frames = np.repeat((ramp + rng.integers(0, 40, 3)).astype(np.uint8)[None], length, 0)
    for t in range(length):
        left = (seed * 3 + t * 2) % (width - 8)
        frames[t, 8:16, left : left + 8] = 230
    return frames


def jpeg(image: np.ndarray) -> bytes:
    return simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=95)


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()


FEATURES = "tensorflow_datasets.core.features"
CLASSES = {"image": "image_feature.Image", "tensor": "tensor_feature.Tensor", "text": "text_feature.Text"}


def leaf(kind: str, shape=(), dtype: str = "float32") -> dict:
    spec: dict = {"shape": {"dimensions": [str(d) for d in shape]}, "dtype": dtype}
    spec |= {"image": {"encodingFormat": "jpeg"}, "tensor": {"encoding": "none"}}.get(kind, {})
    return {"pythonClassName": f"{FEATURES}.{CLASSES[kind]}", kind: {} if kind == "text" else spec}


def nest(leaves: dict) -> dict:
    """{"steps/observation/image": leaf} -> the tree that features.json holds."""
    tree: dict = {}
    for path, node in leaves.items():
        *folders, name = path.split("/")
        branch = tree
        for folder in folders:
            branch = branch.setdefault(folder, {})
        branch[name] = node

    def pack(branch: dict, is_root: bool = False) -> dict:
        features = {k: v if "pythonClassName" in v else pack(v) for k, v in branch.items()}
        if is_root and "steps" in features:
            features["steps"] = {
                "pythonClassName": f"{FEATURES}.dataset_feature.Dataset",
                "sequence": {"feature": features["steps"], "length": "-1"},
            }
        return {"pythonClassName": f"{FEATURES}.features_dict.FeaturesDict", "featuresDict": {"features": features}}

    return pack(tree, is_root=True)


IMAGE = "steps/observation/image"
INSTRUCTION = "steps/observation/natural_language_instruction"


class RldsFolder:
    """Writes a TFDS folder: `add(split, episodes)` with episodes as dicts of features, then `finish()`."""

    def __init__(self, root: Path, name: str = "fractal_test"):
        self.name, self.folder = name, root / name / "1.0.0"
        self.folder.mkdir(parents=True)
        self.leaves = {IMAGE: leaf("image", (32, 40, 3), "uint8"), INSTRUCTION: leaf("text")}
        self.lengths: dict[str, list[int]] = {}

    def episode(self, length: int, seed: int = 0, encode=jpeg, **more) -> dict:
        frames = moving_square(length, seed=seed)
        told = f"move {seed}".encode()
        return {IMAGE: [encode(f) for f in frames], INSTRUCTION: [told] * length, **more}

    def add(self, split: str, *shards: list[dict]) -> list[Path]:
        paths = []
        for number, episodes in enumerate(shards):
            path = self.folder / f"{self.name}-{split}.tfrecord-{number:05d}-of-{len(shards):05d}"
            path.write_bytes(b"".join(frame_record(encode_example(episode)) for episode in episodes))
            paths.append(path)
        self.lengths[split] = [len(episodes) for episodes in shards]
        return paths

    def finish(self) -> Path:
        (self.folder / "features.json").write_text(json.dumps(nest(self.leaves)))
        template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
        splits = [
            {"name": split, "shardLengths": [str(n) for n in ns], "numBytes": "1", "filepathTemplate": template}
            for split, ns in self.lengths.items()
        ]
        info = {"name": self.name, "version": "1.0.0", "fileFormat": "tfrecord", "splits": splits}
        (self.folder / "dataset_info.json").write_text(json.dumps(info))
        return self.folder


@pytest.fixture
def rlds_folder(tmp_path) -> RldsFolder:
    return RldsFolder(tmp_path / "rlds")


@pytest.fixture
def rlds_dir(rlds_folder) -> Path:
    """train: two shards of 2 episodes (5, 20 | 6, 18 frames); test: one episode of 17."""
    new = rlds_folder.episode
    rlds_folder.add("train", [new(5, 0), new(20, 1)], [new(6, 2), new(18, 3)])
    rlds_folder.add("test", [new(17, 4)])
    return rlds_folder.finish()


def write_video(path: Path, frames: np.ndarray, rate: int = 12) -> None:
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        stream.bit_rate = 4_000_000
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture
def video_dir(tmp_path) -> Path:
    """scene1/pick_can_2.mp4 (12 frames), scene1/open-drawer.mp4 (20), scene2/push it.mp4 (16)."""
    root = tmp_path / "videos"
    for number, (name, length) in enumerate(
        {"scene1/pick_can_2.mp4": 12, "scene1/open-drawer.mp4": 20, "scene2/push it.mp4": 16}.items()
    ):
        write_video(root / name, moving_square(length, 32, 48, number))
    return root


@pytest.fixture(scope="session")
def kit() -> SimpleNamespace:
    """The functions above as a fixture."""
    return SimpleNamespace(
        encode_example=encode_example,
        unpacked_floats=unpacked_floats,
        moving_square=moving_square,
        jpeg=jpeg,
        png=png,
        leaf=leaf,
        write_video=write_video,
        RldsFolder=RldsFolder,
        IMAGE=IMAGE,
        INSTRUCTION=INSTRUCTION,
    )
