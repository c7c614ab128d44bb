"""Episodes as a TFDS data set that `tfds.builder_from_directory` opens, in the order in which they are given."""

import contextlib
import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from genie_datasets.tabletop.control import ControlConfig
from genie_datasets.tabletop.episode import HZ
from genie_datasets.tabletop.features import ASPECTS, ATTRIBUTES, features_dict
from genie_datasets.tabletop.worker import EncodedEpisode

NAME, VERSION = "tabletop", "1.0.0"
EPISODES_PER_SHARD = 200
_EMBEDDING = np.zeros(512, np.float32)
CITATION = (
    "Simulated with MuJoCo by genie_datasets.tabletop; layout of fractal20220817_data (Brohan et al., RT-1, 2022)."
)


def _quaternion(rotvec: np.ndarray) -> np.ndarray:
    """Rotation vector (3,) -> (x, y, z, w)."""
    angle = float(np.linalg.norm(rotvec))
    axis = rotvec / angle if angle > 1e-12 else np.zeros(3)
    return np.array([*(np.sin(angle / 2) * axis), np.cos(angle / 2)])


def to_example(episode: EncodedEpisode) -> dict:
    """The nested dictionary that the features of `features_dict` encode."""
    c = ControlConfig()
    bounds = np.array([c.low, c.high, np.subtract(c.high, c.low)], np.float32)
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
                    "natural_language_instruction": episode.instruction,
                    "natural_language_embedding": _EMBEDDING,
                    "base_pose_tool_reached": np.concatenate([position, quaternion]),
                    "gripper_closed": episode.gripper[t : t + 1].astype(np.float32),
                    "gripper_closedness_commanded": episode.commanded[t : t + 1].astype(np.float32),
                    "height_to_bottom": (position[2:3] - np.float32(c.low[2])),
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
                    "object_positions": episode.objects[t],
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
        },
        "steps": steps,
    }


def write_errors() -> tuple[type[Exception], ...]:
    """What writing to a full or vanished disk raises."""
    import tensorflow as tf

    return (OSError, tf.errors.OpError)


class RLDSWriter:
    """Writes splits of known length into `out`/tabletop/1.0.0, which appears when `finish` is called, whole.

    Used as a context manager: leaving it without `finish` removes what was written.
    """

    def __init__(self, out: Path, size: tuple[int, int], lengths: dict[str, int], metadata: dict):
        import tensorflow as tf
        import tensorflow_datasets as tfds

        self._tf, self._tfds = tf, tfds
        self._folder = out / NAME / VERSION
        self._partial = out / NAME / f"{VERSION}.incomplete"
        self._partial.mkdir(parents=True)
        self._lengths = lengths
        self._features = features_dict(size)
        identity = tfds.core.dataset_info.DatasetIdentity(
            name=NAME, version=tfds.core.Version(VERSION), data_dir=str(self._partial), module_name=__name__
        )
        self._info = tfds.core.DatasetInfo(
            builder=identity,
            features=self._features,
            description="Simulated tabletop manipulation in RT-1's view, with exact truth.",
            citation=CITATION,
            metadata=tfds.core.MetadataDict({"hz": HZ, **metadata}),
        )
        self._shards: dict[str, list[tuple[int, int]]] = {name: [] for name in lengths}  # (episodes, bytes)
        self._writer: Any = None  # of the shard under way
        self._split = ""

    def __enter__(self) -> "RLDSWriter":
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._partial, ignore_errors=True)
        with contextlib.suppress(OSError):
            self._folder.parent.rmdir()  # only if nothing is in it, so that the same command can run again

    def _template(self, split: str):
        return self._tfds.core.ShardedFileTemplate(
            data_dir=self._partial, dataset_name=NAME, split=split, filetype_suffix="tfrecord"
        )

    def add(self, split: str, episode: EncodedEpisode) -> None:
        """Appends an episode; those of a split must come one after another."""
        shards = self._shards[split]
        if split != self._split or shards[-1][0] == EPISODES_PER_SHARD:
            self._close_shard()
            count = -(-self._lengths[split] // EPISODES_PER_SHARD)
            path = self._template(split).sharded_filepath(shard_index=len(shards), num_shards=count)
            self._writer = self._tf.io.TFRecordWriter(str(path))
            self._split = split
            shards.append((0, 0))
        record = self._features.serialize_example(to_example(episode))
        self._writer.write(record)
        shards[-1] = (shards[-1][0] + 1, shards[-1][1] + len(record))

    def _close_shard(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def finish(self) -> Path:
        """Writes dataset_info.json and features.json, and gives the folder its name, which is returned."""
        self._close_shard()
        self._info.set_splits(
            self._tfds.core.splits.SplitDict(
                [
                    self._tfds.core.SplitInfo(
                        name=name,
                        shard_lengths=[episodes for episodes, _ in shards],
                        num_bytes=sum(size for _, size in shards),
                        filename_template=self._template(name),
                    )
                    for name, shards in self._shards.items()
                ]
            )
        )
        self._info.write_to_directory(str(self._partial))
        self._partial.rename(self._folder)
        return self._folder
