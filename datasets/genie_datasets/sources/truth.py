"""The true motion of an episode, with which the evaluation compares latent actions. No model reads it."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Truth:
    """Measured states (not commanded actions) of one episode of L frames."""

    position: np.ndarray  # (L, 3) float64, end effector, meters in the base frame of the robot
    image_position: np.ndarray | None = None  # (L, 2) fractions of the image, x to the right, y downward
    rotation: np.ndarray | None = None  # (L, 3) rotation vector, radians
    gripper: np.ndarray | None = None  # (L,) 0 (open) to 1 (closed)
    scene: int | None = None
    state: np.ndarray | None = None  # (L, S) absolute state, for measures of its leakage into codes

    def motion(self, ids: np.ndarray) -> dict[str, np.ndarray]:
        """The known changes over each transition ids[t] -> ids[t+1], for ids (n,): {name: (n-1, D)}.

        "base": meters in the base frame. "image": fractions of the image. "rotation": rotation vector in the base
        frame, radians. "gripper": change of closedness.
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
