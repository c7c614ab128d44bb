"""The true motion in RLDS records: the `truth` group of the tabletop, the pose of RT-1, the state of BridgeData."""

from dataclasses import dataclass

import numpy as np

from genie_datasets.sources.rlds.example import feature_spans, floats, ints
from genie_datasets.sources.rlds.schema import Feature
from genie_datasets.sources.truth import Truth

TABLETOP = "steps/truth/ee_position"
RT1 = "steps/observation/base_pose_tool_reached"
RT1_GRIPPER = "steps/observation/gripper_closed"
BRIDGE = "steps/observation/state"
SCENE = "episode_metadata/scene"


@dataclass(frozen=True)
class TruthReader:
    """Reads the true motion of a record; `convention` is "tabletop", "rt1" or "bridge"."""

    convention: str

    @classmethod
    def for_schema(cls, schema: dict[str, Feature], name: str) -> "TruthReader | None":
        """The reader for a data set, or None. A field named `state` is read only in BridgeData."""
        if TABLETOP in schema:
            return cls("tabletop")
        if RT1 in schema and schema[RT1].shape == (7,) and schema[RT1].encoding == "none":
            return cls("rt1")
        if name.startswith("bridge") and BRIDGE in schema and schema[BRIDGE].shape == (7,):
            return cls("bridge")
        return None

    def read(self, record: bytes) -> Truth:
        """The true motion of one tf.train.Example."""
        from scipy.spatial.transform import Rotation

        spans = feature_spans(record, 0, len(record))

        def column(key: str, width: int) -> np.ndarray:
            return floats(record, spans[key]).astype(np.float64).reshape(-1, width)

        position: np.ndarray
        gripper: np.ndarray | None
        scene = int(ints(record, spans[SCENE])[0]) if SCENE in spans else None
        image = None
        if self.convention == "tabletop":
            position, rotation = column(TABLETOP, 3), column("steps/truth/ee_rotation", 3)
            image, gripper = column("steps/truth/ee_image", 2), column("steps/truth/gripper", 1)[:, 0]
        elif self.convention == "rt1":
            pose = column(RT1, 7)
            turns = pose[:, 3:]
            is_measured = np.linalg.norm(turns, axis=-1, keepdims=True) > 1e-6  # else it reads as no rotation
            rotation = Rotation.from_quat(np.where(is_measured, turns, [0.0, 0.0, 0.0, 1.0])).as_rotvec()
            position = pose[:, :3]
            gripper = column(RT1_GRIPPER, 1)[:, 0] if RT1_GRIPPER in spans else None
        else:  # x, y, z, roll, pitch, yaw, and how far the gripper is open
            state = column(BRIDGE, 7)
            position, gripper = state[:, :3], 1.0 - state[:, 6]
            rotation = Rotation.from_euler("xyz", state[:, 3:6]).as_rotvec()
        known = [position, rotation] + ([] if gripper is None else [gripper[:, None]])
        return Truth(position, image, rotation, gripper, scene, np.concatenate(known, axis=1))
