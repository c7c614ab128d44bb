"""The true motion of an episode: what the evaluation compares latent actions with, and what no model ever sees."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Truth:
    """Measured states of one episode of L frames (not the commanded actions)."""

    position: np.ndarray  # (L,3) float64, end effector, metres in the robot's base frame
    image_position: np.ndarray | None = None  # (L,2) in fractions of the image: x to the right, y downwards
    rotation: np.ndarray | None = None  # (L,3) rotation vector, radians
    gripper: np.ndarray | None = None  # (L,) 0 open .. 1 closed
    scene: int | None = None
    state: np.ndarray | None = None  # (L,S) the absolute state, for measures of what leaks of it

    def motion(self, ids: np.ndarray) -> dict[str, np.ndarray]:
        """True change over each transition ids[t] -> ids[t+1]; ids (n,) int; arrays (n-1, D), known ones only.

        "base" metres in the base frame, "image" fractions of the image, "rotation" rotation vector in radians of the
        turn as seen in the base frame, "gripper" change of closedness.
        """
        ids = np.asarray(ids)
        motion = {"base": np.diff(self.position[ids], axis=0)}
        if self.image_position is not None:
            motion["image"] = np.diff(self.image_position[ids], axis=0)
        if self.rotation is not None:
            from scipy.spatial.transform import Rotation

            turns = Rotation.from_rotvec(self.rotation[ids])
            motion["rotation"] = (turns[1:] * turns[:-1].inv()).as_rotvec()
        if self.gripper is not None:
            motion["gripper"] = np.diff(self.gripper[ids])[:, None]
        return motion


def rotvec_from_quaternion(xyzw: np.ndarray) -> np.ndarray:
    """(L,4) -> (L,3); a zero quaternion (a step without a measurement) reads as no rotation."""
    from scipy.spatial.transform import Rotation

    xyzw = np.where(np.linalg.norm(xyzw, axis=-1, keepdims=True) > 1e-6, xyzw, [0.0, 0.0, 0.0, 1.0])
    return Rotation.from_quat(xyzw).as_rotvec()


def rotvec_from_euler(rpy: np.ndarray) -> np.ndarray:
    """(L,3) roll, pitch, yaw in radians about fixed axes -> (L,3)."""
    from scipy.spatial.transform import Rotation

    return Rotation.from_euler("xyz", rpy).as_rotvec()
