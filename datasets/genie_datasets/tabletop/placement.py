"""Initial poses of the objects: a pure function of the scene and a random generator."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from genie_datasets.tabletop.objects import HALF_HEIGHT, LONG_KINDS, RADIUS
from genie_datasets.tabletop.scene import TABLE_TOP, SceneConfig

OBJECT_GAP = 0.13  # m wanted between objects
MAX_DRAWS = 30  # of a position; then the position with the largest gap is used


class Pose(NamedTuple):
    position: Float[np.ndarray, "3"]
    """In m, in the base frame."""
    quaternion: Float[np.ndarray, "4"]
    """In the order w, x, y, z."""


def object_poses(
    scene: SceneConfig, hand_heading: float, rng: np.random.Generator, lying: frozenset[int] = frozenset()
) -> list[Pose]:
    """Draw poses of the scene's objects, apart from each other and mostly within reach.

    Args:
        hand_heading: angle about the vertical axis of the line along which the fingers open, in rad.
        lying: indices of the objects that lie on their side, with their tops away from the robot.
    """
    import mujoco

    low = np.add(scene.work.low[:2], (0.01, -0.05))
    high = np.add(scene.work.high[:2], (0.06, 0.05))
    placed: list[np.ndarray] = []
    poses = []
    for index, item in enumerate(scene.objects):
        margin = 0.07 if index in lying else 0.0  # the robot must be able to reach and raise a lying object
        place = _free_place(low + margin, high - margin, placed, rng)
        placed.append(place)
        # The hand of `easy` never turns, so long objects are aligned with it.
        aligned = scene.family == "easy" and item.kind in LONG_KINDS
        spread = 0.3 if aligned else 0.4 if index in lying else np.pi / 2
        angle = rng.uniform(-spread, spread) + (hand_heading - np.pi / 2 if aligned else 0.0)
        quaternion = np.array([np.cos(angle / 2), 0, 0, np.sin(angle / 2)])
        height = HALF_HEIGHT[item.kind]
        if index in lying:
            tilt = np.array([np.cos(np.pi / 4), 0, np.sin(np.pi / 4), 0])  # turns the z axis to x
            mujoco.mju_mulQuat(quaternion, quaternion.copy(), tilt)
            height = RADIUS[item.kind]
        poses.append(Pose(np.array([*place.round(4), TABLE_TOP + height + 0.001]), quaternion))
    return poses


def _free_place(low: np.ndarray, high: np.ndarray, placed: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Draw a position (2,) that is OBJECT_GAP from those in `placed`, or the best of MAX_DRAWS."""
    best, best_gap = low, -1.0
    for _ in range(MAX_DRAWS):
        position = rng.uniform(low, high)
        gap = min((float(np.linalg.norm(position - other)) for other in placed), default=np.inf)
        if gap > best_gap:
            best, best_gap = position, gap
        if gap > OBJECT_GAP:
            break
    return best
