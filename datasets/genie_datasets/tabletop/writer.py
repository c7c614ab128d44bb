"""Writes simulated episodes as a TFDS data set: the keys and shapes of fractal20220817_data, and a `truth` group."""

import contextlib
import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from genie_datasets.tabletop.episode import HZ
from genie_datasets.tabletop.mjcf import TEXTURES
from genie_datasets.tabletop.scene import MAX_OBJECTS, NUM_DRAWERS
from genie_datasets.tabletop.shards import NAME, VERSION, Shards
from genie_datasets.tabletop.worker import EncodedEpisode
from genie_datasets.writers.rlds import nested
from genie_datasets.writers.tfds_folder import Records, describe, os_errors, tensorflow

CITATION = (
    "Simulated with MuJoCo by genie_datasets.tabletop; layout of fractal20220817_data (Brohan et al., RT-1, 2022)."
)
STATE_LENGTH = 352  # at least the length of the states of all scenes; shorter states are padded with zeros
TEXTURE_SIZE = 128  # pixels per side

ASPECTS = ("already_success", "feasible", "has_aspects", "success", "undesirable")
ATTRIBUTES = ("collection_mode", "data_type", "env", "location", "objects_family", "task_family")
FLOATS = {  # shapes of the float32 features of a step; those without a meaning here are zeros
    "action/base_displacement_vector": (2,),
    "action/base_displacement_vertical_rotation": (1,),
    "action/gripper_closedness_action": (1,),
    "action/rotation_delta": (3,),
    "action/world_vector": (3,),
    "observation/natural_language_embedding": (512,),
    "observation/base_pose_tool_reached": (7,),
    "observation/gripper_closed": (1,),
    "observation/gripper_closedness_commanded": (1,),
    "observation/height_to_bottom": (1,),
    "observation/orientation_box": (2, 3),
    "observation/orientation_start": (4,),
    "observation/robot_orientation_positions_box": (3, 3),
    "observation/rotation_delta_to_go": (3,),
    "observation/src_rotation": (4,),
    "observation/vector_to_go": (3,),
    "observation/workspace_bounds": (3, 3),
}
TRUTH = {  # feature -> (field of an Episode, shape)
    "truth/ee_position": ("position", (3,)),
    "truth/ee_rotation": ("rotation", (3,)),
    "truth/ee_image": ("image_position", (2,)),
    "truth/gripper": ("gripper", ()),
    "truth/object_poses": ("object_poses", (MAX_OBJECTS, 7)),
    "truth/drawers": ("drawer_openings", (NUM_DRAWERS,)),
}
METADATA = {"scene": np.int64, "seed": np.int64} | dict.fromkeys(
    ("skill", "family", "factors", "scene_config", "mjcf"), str
)  # fields of an EncodedEpisode
TEXTURE_KEYS = [f"texture_{name.removesuffix('.png')}" for name in TEXTURES]


def features_dict(size: tuple[int, int]):
    """The tfds.features.FeaturesDict for frames of `size` (height, width)."""
    from tensorflow_datasets import features as tfds

    flags, text = dict.fromkeys(("is_first", "is_last", "is_terminal"), np.bool_), tfds.Text()
    texture = tfds.Image(shape=(TEXTURE_SIZE, TEXTURE_SIZE, 3), dtype=np.uint8, encoding_format="png")
    steps = {
        **flags,
        "reward": np.float32,
        "action/terminate_episode": tfds.Tensor(shape=(3,), dtype=np.int32),
        "observation/image": tfds.Image(shape=(*size, 3), dtype=np.uint8, encoding_format="jpeg"),
        "observation/natural_language_instruction": text,
        **{key: tfds.Tensor(shape=shape, dtype=np.float32) for key, shape in FLOATS.items()},
        # TFDS stores float64 as float32. Compressed bytes keep the state bit-identical, and half of it is zeros.
        **{key: tfds.Tensor(shape=shape, dtype=np.float64) for key, (_, shape) in TRUTH.items()},
        "truth/state": tfds.Tensor(shape=(STATE_LENGTH,), dtype=np.float64, encoding=tfds.Encoding.ZLIB),
    }
    return tfds.FeaturesDict(
        {
            "aspects": dict.fromkeys(ASPECTS, np.bool_),
            "attributes": dict.fromkeys(ATTRIBUTES, np.int64) | {f"{name}_name": text for name in ATTRIBUTES},
            "episode_metadata": {name: text if kind is str else kind for name, kind in METADATA.items()}
            | dict.fromkeys(TEXTURE_KEYS, texture),
            "steps": tfds.Dataset(nested(steps)),
        }
    )


def _quaternion(rotvec: np.ndarray) -> np.ndarray:
    """Convert a rotation vector (3,) to a quaternion (x, y, z, w)."""
    angle = float(np.linalg.norm(rotvec))
    axis = rotvec / angle if angle > 1e-12 else np.zeros(3)
    return np.array([*(np.sin(angle / 2) * axis), np.cos(angle / 2)])


def to_example(episode: EncodedEpisode) -> dict:
    """An episode as the nested dictionary that `features_dict` encodes."""
    low, high = episode.limits
    states = np.zeros((len(episode.jpegs), STATE_LENGTH))
    states[:, : episode.states.shape[1]] = episode.states
    last = len(episode.jpegs) - 1
    steps = []
    for t, jpeg in enumerate(episode.jpegs):
        quaternion = _quaternion(episode.rotation[t]).astype(np.float32)
        position = episode.position[t].astype(np.float32)
        step = {
            "is_first": t == 0,
            "is_last": t == last,
            "is_terminal": t == last,
            "reward": np.float32(t == last and episode.success),
            "action/terminate_episode": np.array([1, 0, 0] if t == last else [0, 1, 0], np.int32),
            **{key: np.zeros(shape, np.float32) for key, shape in FLOATS.items()},
            "action/gripper_closedness_action": episode.actions[t, 6:7],
            "action/rotation_delta": episode.actions[t, 3:6],
            "action/world_vector": episode.actions[t, :3],
            "observation/image": io.BytesIO(jpeg),
            "observation/natural_language_instruction": episode.instructions[t],
            "observation/base_pose_tool_reached": np.concatenate([position, quaternion]),
            "observation/gripper_closed": episode.gripper[t : t + 1].astype(np.float32),
            "observation/gripper_closedness_commanded": episode.gripper_command[t : t + 1].astype(np.float32),
            "observation/height_to_bottom": position[2:3] - np.float32(low[2]),
            "observation/orientation_start": _quaternion(episode.rotation[0]).astype(np.float32),
            "observation/src_rotation": quaternion,
            "observation/vector_to_go": (episode.position[last] - episode.position[t]).astype(np.float32),
            "observation/workspace_bounds": np.array([low, high, np.subtract(high, low)], np.float32),
            **{key: getattr(episode, field)[t] for key, (field, _) in TRUTH.items()},
            "truth/state": states[t],
        }
        steps.append(nested(step))
    names = dict.fromkeys(ATTRIBUTES, "simulation")
    names |= {"env": "tabletop", "task_family": episode.skill, "collection_mode": "scripted"}
    true = {"feasible", "has_aspects", *(["success"] if episode.success else [])}
    return {
        "aspects": {name: name in true for name in ASPECTS},
        "attributes": dict.fromkeys(ATTRIBUTES, 0) | {f"{name}_name": names[name] for name in ATTRIBUTES},
        "episode_metadata": {name: getattr(episode, name) for name in METADATA}
        | {key: io.BytesIO(png) for key, png in zip(TEXTURE_KEYS, episode.textures, strict=True)},
        "steps": steps,
    }


class TabletopWriter:
    """Writes episodes with frames of `size` (height, width). Several threads may use it."""

    def __init__(self, size: tuple[int, int]):
        self._tf = tensorflow()
        self._features = features_dict(size)
        self._records = Records(self._features)

    def write(self, path: Path, episode: EncodedEpisode) -> None:
        """Write a TFRecord file with one record, atomically. Its bytes depend on the episode only. Raises OSError."""
        partial = path.with_name(f"{path.name}.tmp")
        try:
            with os_errors(), self._tf.io.TFRecordWriter(str(partial)) as writer:
                writer.write(self._records.encode(to_example(episode)))
            partial.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                partial.unlink()
            raise

    def describe(self, folder: Path, splits: Iterable[str], shards: Shards, metadata: dict) -> None:
        """Write dataset_info.json, features.json and metadata.json next to the full shards. Raises OSError."""
        describe(
            folder,
            NAME,
            VERSION,
            self._features,
            {split: shards.sizes(split) for split in splits},
            "Simulated tabletop manipulation in RT-1's view, with exact truth.",
            CITATION,
            {"hz": HZ, **metadata},
        )
