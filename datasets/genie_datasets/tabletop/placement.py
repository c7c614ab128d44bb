"""Where the objects of a scene stand or lie: a pure function of the scene and a random generator."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from genie_datasets.tabletop.objects import HALF_HEIGHT, LONG_KINDS, RADIUS
from genie_datasets.tabletop.scene import TABLE_TOP, SceneConfig

OBJECT_GAP, PLACING_TRIES = 0.13, 30  # m between objects, if that many tries find it


class Pose(NamedTuple):
    position: Float[np.ndarray, "3"]
    """m, in the base frame."""
    quaternion: Float[np.ndarray, "4"]
    """w x y z."""


def object_poses(
    scene: SceneConfig, hand_heading: float, rng: np.random.Generator, lying: frozenset[int] = frozenset()
) -> list[Pose]:
    """Poses of the scene's objects, apart from each other and mostly within reach.

    hand_heading: angle about the vertical of the line along which the fingers open, rad.
    lying: indices of the objects that lie, with their tops away from the robot.
    """
    low = np.add(scene.work.low[:2], (0.01, -0.05))
    high = np.add(scene.work.high[:2], (0.06, 0.05))
    placed: list[np.ndarray] = []
    poses = []
    for index, thing in enumerate(scene.objects):
        best, best_gap = low, -1.0
        inside = 0.07 if index in lying else 0.0  # what is to be put upright must be within reach
        for _ in range(PLACING_TRIES):
            at = rng.uniform(low + inside, high - inside)
            gap = min((float(np.linalg.norm(at - other)) for other in placed), default=np.inf)
            if gap > best_gap:
                best, best_gap = at, gap
            if gap > OBJECT_GAP:
                break
        placed.append(best)
        # In `easy` the hand never turns: long objects lie so that it can grasp them.
        suited = scene.family == "easy" and thing.kind in LONG_KINDS
        spread = 0.3 if suited else 0.4 if index in lying else np.pi / 2
        angle = rng.uniform(-spread, spread) + (hand_heading - np.pi / 2 if suited else 0.0)
        turn = np.array([np.cos(angle / 2), 0, 0, np.sin(angle / 2)])
        height = HALF_HEIGHT[thing.kind]
        if index in lying:
            turn = _multiply(turn, np.array([np.cos(np.pi / 4), 0, np.sin(np.pi / 4), 0]))  # its z becomes its x
            height = RADIUS[thing.kind]
        poses.append(Pose(np.array([*best.round(4), TABLE_TOP + height + 0.001]), turn))
    return poses


def _multiply(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    import mujoco

    out = np.empty(4)
    mujoco.mju_mulQuat(out, a, b)
    return out
