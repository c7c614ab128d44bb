"""What a skill sees and how it moves: the parts that all skills are made of."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from genie_datasets.tabletop.control import rotvec_matrix
from genie_datasets.tabletop.objects import HALF_HEIGHT, UPRIGHT_KINDS
from genie_datasets.tabletop.scene import TABLE_TOP, Box, SceneConfig
from genie_datasets.tabletop.simulator import MAX_STEP, MAX_TURN, Simulator

OPEN, KEEP, CLOSE = -1.0, 0.0, 1.0
TRAVEL_HEIGHT = TABLE_TOP + 0.17  # m; the closed hand passes over every object
UP = np.array([0.0, 0.0, 1.0])

Steps = Iterator[np.ndarray]


@dataclass
class World:
    """What a skill may look at: the simulation, and the episode's own random numbers."""

    sim: Simulator
    rng: np.random.Generator

    @property
    def scene(self) -> SceneConfig:
        return self.sim.scene

    @property
    def work(self) -> Box:
        return self.sim.scene.work

    @property
    def tool(self) -> np.ndarray:
        """Where the tool is meant to be (3,): skills plan on commands, as a teleoperator does."""
        return self.sim.control.position

    @property
    def grip(self) -> float:
        """The gripper command in force: 0 open, 1 closed."""
        return self.sim.control.grip

    def kind(self, index: int) -> str:
        return self.scene.objects[index].kind

    def name(self, index: int) -> str:
        return self.scene.objects[index].name

    def position(self, index: int) -> np.ndarray:
        """Centre of an object (3,) m."""
        return self.sim.object_poses()[index, :3]

    def axes(self, index: int) -> np.ndarray:
        """Rotation (3,3) of an object; its columns are its own x, y and z in the base frame."""
        import mujoco

        matrix = np.empty(9)
        mujoco.mju_quat2Mat(matrix, self.sim.object_poses()[index, 3:])
        return matrix.reshape(3, 3)

    def heading(self, index: int) -> float:
        """Angle of an object's x about the vertical, rad."""
        x = self.axes(index)[:, 0]
        return float(np.arctan2(x[1], x[0]))

    def lies(self, index: int) -> bool:
        """Whether a thing that can stand has fallen over."""
        return self.kind(index) in UPRIGHT_KINDS and abs(self.axes(index)[2, 2]) < 0.5

    def stands(self, index: int) -> bool:
        """Whether an object is upright on the table, let go of."""
        low = self.position(index)[2] - TABLE_TOP < HALF_HEIGHT[self.kind(index)] + 0.02
        return bool(self.axes(index)[2, 2] > 0.9 and low)

    def within_reach(self, index: int) -> bool:
        """Whether the tool can stand above an object that is still on the table."""
        at = self.position(index)
        inside = np.all(at[:2] > self.work.low[:2]) and np.all(at[:2] < self.work.high[:2])
        return bool(inside and at[2] > TABLE_TOP)

    def choose(self, suits: Callable[[int], bool] = lambda index: True) -> int | None:
        """An object within reach that suits, or None."""
        able = [i for i in range(len(self.scene.objects)) if self.within_reach(i) and suits(i)]
        return int(self.rng.choice(able)) if able else None

    def free_of_objects(self, at: np.ndarray, but: int, gap: float) -> bool:
        """Whether no object but `but` is within `gap` m of a place (2,)."""
        others = [i for i in range(len(self.scene.objects)) if i != but]
        return all(np.linalg.norm(self.position(i)[:2] - at) > gap for i in others)


@dataclass
class Skill:
    """A behaviour under way."""

    name: str
    instruction: str
    steps: Steps
    achieved: Callable[[], bool]  # asked after every step; the skill succeeds if it ever says yes


def action(move=(0.0, 0.0, 0.0), turn=(0.0, 0.0, 0.0), grip: float = KEEP) -> np.ndarray:
    """The action (7,) of a translation (3,) in metres, a rotation vector (3,) in radians, and a gripper command."""
    return np.array([*move, *turn, grip], float)


def go(world: World, target: np.ndarray, turn: float = 0.0, tolerance: float = 0.012, limit: int = 16) -> Steps:
    """Moves straight to `target` (3,), at most MAX_STEP a step, turning by `turn` about the vertical on the way."""
    target = np.clip(target, world.scene.limits.low, world.scene.limits.high)
    for _ in range(limit):
        move = target - world.tool
        distance = float(np.linalg.norm(move))
        if distance < tolerance and abs(turn) < 0.02:
            return
        part = float(np.clip(turn, -MAX_TURN, MAX_TURN))
        turn -= part
        yield action(move * min(1.0, 0.9 * MAX_STEP / max(distance, 1e-9)), part * UP)


def travel(world: World, target: np.ndarray, turn: float = 0.0) -> Steps:
    """Goes above `target` (3,) without sweeping the table: up first where the tool is low, and far from it."""
    if np.linalg.norm((target - world.tool)[:2]) > 0.06 and world.tool[2] < TRAVEL_HEIGHT - 0.03:
        yield from go(world, np.array([*world.tool[:2], TRAVEL_HEIGHT]), tolerance=0.03)
    yield from go(world, target, turn)


def turn_by(world: World, rotvec: np.ndarray, move=(0.0, 0.0, 0.0)) -> Steps:
    """Turns by a rotation vector (3,), at most MAX_TURN a step, moving by `move` (3,) m on the way."""
    steps = int(np.ceil(np.linalg.norm(rotvec) / MAX_TURN))
    for _ in range(steps):
        yield action(np.asarray(move) / steps, np.asarray(rotvec) / steps)


def turn_back(world: World) -> Steps:
    """Turns to the usual orientation."""
    from genie_datasets.tabletop.control import matrix_rotvec

    control = world.sim.control
    yield from turn_by(world, matrix_rotvec(control.usual_rotation @ control.rotation.T))


def turned(rotvec: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """`vector` (3,) after a rotation."""
    return rotvec_matrix(rotvec) @ vector
