"""The features of a tabletop data set: fractal20220817_data's keys and shapes, and a `truth` group beside them."""

from genie_datasets.tabletop.scene import MAX_OBJECTS, NUM_DRAWERS

STATE_LENGTH = 352  # of a recorded state: those of all scenes fit, shorter ones end in zeros
TEXTURE_SIZE = 128  # pixels a side

ASPECTS = ("already_success", "feasible", "has_aspects", "success", "undesirable")
ATTRIBUTES = ("collection_mode", "data_type", "env", "location", "objects_family", "task_family")


def features_dict(size: tuple[int, int]):
    """tfds FeaturesDict for pictures of `size` (height, width)."""
    import numpy as np
    import tensorflow_datasets as tfds

    def floats(*shape: int):
        return tfds.features.Tensor(shape=shape, dtype=np.float32)

    def doubles(*shape: int):
        return tfds.features.Tensor(shape=shape, dtype=np.float64)  # TFDS keeps their float32 values

    def texture():
        return tfds.features.Image(shape=(TEXTURE_SIZE, TEXTURE_SIZE, 3), dtype=np.uint8, encoding_format="png")

    # As bytes, since a state must come back to the bit; compressed, since half of it is zeros.
    state = tfds.features.Tensor(shape=(STATE_LENGTH,), dtype=np.float64, encoding=tfds.features.Encoding.ZLIB)

    flag, number, text = np.bool_, np.int64, tfds.features.Text()
    return tfds.features.FeaturesDict(
        {
            "aspects": {name: flag for name in ASPECTS},
            "attributes": {
                **{name: number for name in ATTRIBUTES},
                **{f"{name}_name": text for name in ATTRIBUTES},
            },
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
