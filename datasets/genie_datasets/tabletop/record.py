"""One episode as the nested dictionary that the features of a tabletop data set encode."""

import io

import numpy as np

from genie_datasets.tabletop.features import ASPECTS, ATTRIBUTES, STATE_LENGTH
from genie_datasets.tabletop.mjcf import TEXTURES
from genie_datasets.tabletop.worker import EncodedEpisode

_EMBEDDING = np.zeros(512, np.float32)


def _quaternion(rotvec: np.ndarray) -> np.ndarray:
    """Rotation vector (3,) -> (x, y, z, w)."""
    angle = float(np.linalg.norm(rotvec))
    axis = rotvec / angle if angle > 1e-12 else np.zeros(3)
    return np.array([*(np.sin(angle / 2) * axis), np.cos(angle / 2)])


def to_example(episode: EncodedEpisode) -> dict:
    """The nested dictionary that the features of `features_dict` encode."""
    low, high = episode.limits
    bounds = np.array([low, high, np.subtract(high, low)], np.float32)
    states = np.zeros((len(episode.jpegs), STATE_LENGTH))
    states[:, : episode.state.shape[1]] = episode.state
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
                    "gripper_closedness_action": episode.action[t, 6:7],
                    "rotation_delta": episode.action[t, 3:6],
                    "terminate_episode": np.array([1, 0, 0] if t == last else [0, 1, 0], np.int32),
                    "world_vector": episode.action[t, :3],
                },
                "observation": {
                    "image": io.BytesIO(jpeg),
                    "natural_language_instruction": episode.instructions[t],
                    "natural_language_embedding": _EMBEDDING,
                    "base_pose_tool_reached": np.concatenate([position, quaternion]),
                    "gripper_closed": episode.gripper[t : t + 1].astype(np.float32),
                    "gripper_closedness_commanded": episode.commanded[t : t + 1].astype(np.float32),
                    "height_to_bottom": (position[2:3] - np.float32(low[2])),
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
                    "ee_image": episode.image[t],
                    "gripper": episode.gripper[t],
                    "object_poses": episode.objects[t],
                    "drawers": episode.drawers[t],
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
