"""The layout of a tabletop data set: the keys and shapes of fractal20220817_data, and a `truth` group next to them."""

import io

import numpy as np

from genie_datasets.tabletop.mjcf import TEXTURES
from genie_datasets.tabletop.scene import MAX_OBJECTS, NUM_DRAWERS
from genie_datasets.tabletop.worker import EncodedEpisode

STATE_LENGTH = 352  # at least the length of the states of all scenes; shorter states are padded with zeros
TEXTURE_SIZE = 128  # pixels per side

ASPECTS = ("already_success", "feasible", "has_aspects", "success", "undesirable")
ATTRIBUTES = ("collection_mode", "data_type", "env", "location", "objects_family", "task_family")


def features_dict(size: tuple[int, int]):
    """The tfds.features.FeaturesDict for frames of `size` (height, width)."""
    import tensorflow_datasets as tfds

    def floats(*shape: int):
        return tfds.features.Tensor(shape=shape, dtype=np.float32)

    def doubles(*shape: int):
        return tfds.features.Tensor(shape=shape, dtype=np.float64)  # TFDS stores them as float32

    def texture():
        return tfds.features.Image(shape=(TEXTURE_SIZE, TEXTURE_SIZE, 3), dtype=np.uint8, encoding_format="png")

    # Compressed bytes keep the state bit-identical (TFDS would store float32), and half of it is zeros.
    state = tfds.features.Tensor(shape=(STATE_LENGTH,), dtype=np.float64, encoding=tfds.features.Encoding.ZLIB)

    flag, number, text = np.bool_, np.int64, tfds.features.Text()
    return tfds.features.FeaturesDict(
        {
            "aspects": {name: flag for name in ASPECTS},
            "attributes": {**{name: number for name in ATTRIBUTES}, **{f"{name}_name": text for name in ATTRIBUTES}},
            "episode_metadata": {
                "scene": number,
                "seed": number,
                "skill": text,
                "family": text,
                "factors": text,
                "scene_config": text,
                "mjcf": text,
                "texture_table": texture(),
                "texture_floor": texture(),
            },
            "steps": tfds.features.Dataset(
                {
                    "is_first": flag,
                    "is_last": flag,
                    "is_terminal": flag,
                    "reward": np.float32,
                    "action": {
                        "base_displacement_vector": floats(2),
                        "base_displacement_vertical_rotation": floats(1),
                        "gripper_closedness_action": floats(1),
                        "rotation_delta": floats(3),
                        "terminate_episode": tfds.features.Tensor(shape=(3,), dtype=np.int32),
                        "world_vector": floats(3),
                    },
                    "observation": {
                        "image": tfds.features.Image(shape=(*size, 3), dtype=np.uint8, encoding_format="jpeg"),
                        "natural_language_instruction": text,
                        "natural_language_embedding": floats(512),
                        "base_pose_tool_reached": floats(7),
                        "gripper_closed": floats(1),
                        "gripper_closedness_commanded": floats(1),
                        "height_to_bottom": floats(1),
                        "orientation_box": floats(2, 3),
                        "orientation_start": floats(4),
                        "robot_orientation_positions_box": floats(3, 3),
                        "rotation_delta_to_go": floats(3),
                        "src_rotation": floats(4),
                        "vector_to_go": floats(3),
                        "workspace_bounds": floats(3, 3),
                    },
                    "truth": {
                        "ee_position": doubles(3),
                        "ee_rotation": doubles(3),
                        "ee_image": doubles(2),
                        "gripper": doubles(),
                        "object_poses": doubles(MAX_OBJECTS, 7),
                        "drawers": doubles(NUM_DRAWERS),
                        "state": state,
                    },
                }
            ),
        }
    )


_EMBEDDING = np.zeros(512, np.float32)


def _quaternion(rotvec: np.ndarray) -> np.ndarray:
    """Convert a rotation vector (3,) to a quaternion (x, y, z, w)."""
    angle = float(np.linalg.norm(rotvec))
    axis = rotvec / angle if angle > 1e-12 else np.zeros(3)
    return np.array([*(np.sin(angle / 2) * axis), np.cos(angle / 2)])


def to_example(episode: EncodedEpisode) -> dict:
    """An episode as the nested dictionary that `features_dict` encodes."""
    low, high = episode.limits
    bounds = np.array([low, high, np.subtract(high, low)], np.float32)
    states = np.zeros((len(episode.jpegs), STATE_LENGTH))
    states[:, : episode.states.shape[1]] = episode.states
    last = len(episode.jpegs) - 1
    final = episode.position[last]
    steps = []
    for t, jpeg in enumerate(episode.jpegs):
        quaternion = _quaternion(episode.rotation[t]).astype(np.float32)
        position = episode.position[t].astype(np.float32)
        steps.append(
            {
                "is_first": t == 0,
                "is_last": t == last,
                "is_terminal": t == last,
                "reward": np.float32(t == last and episode.success),
                "action": {
                    "base_displacement_vector": np.zeros(2, np.float32),
                    "base_displacement_vertical_rotation": np.zeros(1, np.float32),
                    "gripper_closedness_action": episode.actions[t, 6:7],
                    "rotation_delta": episode.actions[t, 3:6],
                    "terminate_episode": np.array([1, 0, 0] if t == last else [0, 1, 0], np.int32),
                    "world_vector": episode.actions[t, :3],
                },
                "observation": {
                    "image": io.BytesIO(jpeg),
                    "natural_language_instruction": episode.instructions[t],
                    "natural_language_embedding": _EMBEDDING,
                    "base_pose_tool_reached": np.concatenate([position, quaternion]),
                    "gripper_closed": episode.gripper[t : t + 1].astype(np.float32),
                    "gripper_closedness_commanded": episode.gripper_command[t : t + 1].astype(np.float32),
                    "height_to_bottom": position[2:3] - np.float32(low[2]),
                    "orientation_box": np.zeros((2, 3), np.float32),
                    "orientation_start": _quaternion(episode.rotation[0]).astype(np.float32),
                    "robot_orientation_positions_box": np.zeros((3, 3), np.float32),
                    "rotation_delta_to_go": np.zeros(3, np.float32),
                    "src_rotation": quaternion,
                    "vector_to_go": (final - episode.position[t]).astype(np.float32),
                    "workspace_bounds": bounds,
                },
                "truth": {
                    "ee_position": episode.position[t],
                    "ee_rotation": episode.rotation[t],
                    "ee_image": episode.image_position[t],
                    "gripper": episode.gripper[t],
                    "object_poses": episode.object_poses[t],
                    "drawers": episode.drawer_openings[t],
                    "state": states[t],
                },
            }
        )
    names = dict.fromkeys(ATTRIBUTES, "simulation")
    names |= {"env": "tabletop", "task_family": episode.skill, "collection_mode": "scripted"}
    return {
        "aspects": {
            name: name in ("feasible", "has_aspects") or (name == "success" and episode.success) for name in ASPECTS
        },
        "attributes": {**dict.fromkeys(ATTRIBUTES, 0), **{f"{name}_name": names[name] for name in ATTRIBUTES}},
        "episode_metadata": {
            "scene": episode.scene,
            "seed": episode.seed,
            "skill": episode.skill,
            "family": episode.family,
            "factors": episode.factors,
            "scene_config": episode.scene_config,
            "mjcf": episode.mjcf,
            **{
                f"texture_{name.removesuffix('.png')}": io.BytesIO(png)
                for name, png in zip(TEXTURES, episode.textures, strict=True)
            },
        },
        "steps": steps,
    }
