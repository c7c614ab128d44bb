"""The state that a skill observes, and the motion primitives that all skills are made of."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from genie_datasets.tabletop.control import matrix_to_rotvec
from genie_datasets.tabletop.objects import HALF_HEIGHT, UPRIGHT_KINDS
from genie_datasets.tabletop.scene import TABLE_TOP, Box, SceneConfig
from genie_datasets.tabletop.simulator import MAX_STEP, MAX_TURN, Simulator

OPEN, KEEP, CLOSE = -1.0, 0.0, 1.0
TRAVEL_HEIGHT = TABLE_TOP + 0.17  # m; at this height the closed hand passes over every object
UP = np.array([0.0, 0.0, 1.0])

Steps = Iterator[np.ndarray]


@dataclass
class Workspace:
    """The objects and the tool as a skill observes them, and the random numbers of the episode."""

    sim: Simulator
    rng: np.random.Generator

    @property
    def scene(self) -> SceneConfig:
        return self.sim.scene

    @property
    def work_area(self) -> Box:
        return self.sim.scene.work

    @property
    def tool(self) -> np.ndarray:
        """Target position (3,) of the tool in m. Skills plan from targets, as a teleoperator does."""
        return self.sim.control.position

    @property
    def grip(self) -> float:
        """The gripper command in force: 0 (open) or 1 (closed)."""
        return self.sim.control.grip

    def kind(self, index: int) -> str:
        return self.scene.objects[index].kind

    def name(self, index: int) -> str:
        return self.scene.objects[index].name

    def position(self, index: int) -> np.ndarray:
        """Center (3,) of an object in m."""
        return self.sim.object_poses()[index, :3]

    def axes(self, index: int) -> np.ndarray:
        """Rotation (3,3) of an object; its columns are the object's x, y and z axes in the base frame."""
        import mujoco

        matrix = np.empty(9)
        mujoco.mju_quat2Mat(matrix, self.sim.object_poses()[index, 3:])
        return matrix.reshape(3, 3)

    def lies(self, index: int) -> bool:
        """True if an object of an upright kind lies on its side."""
        return self.kind(index) in UPRIGHT_KINDS and abs(self.axes(index)[2, 2]) < 0.5

    def stands(self, index: int) -> bool:
        """True if an object stands upright on the table."""
        on_table = self.position(index)[2] - TABLE_TOP < HALF_HEIGHT[self.kind(index)] + 0.02
        return bool(self.axes(index)[2, 2] > 0.9 and on_table)

    def within_reach(self, index: int) -> bool:
        """True if an object is on the table and the tool can go above it."""
        position = self.position(index)
        return bool(self.is_inside(position[:2]) and position[2] > TABLE_TOP)

    def is_inside(self, place: np.ndarray) -> bool:
        """True if a place (2,) is in the work area."""
        return bool(np.all(place > self.work_area.low[:2]) and np.all(place < self.work_area.high[:2]))

    def choose(self, is_suitable: Callable[[int], bool] = lambda index: True) -> int | None:
        """Draw a suitable object within reach; None if there is none."""
        suitable = [i for i in range(len(self.scene.objects)) if self.within_reach(i) and is_suitable(i)]
        return int(self.rng.choice(suitable)) if suitable else None

    def is_free(self, place: np.ndarray, ignored: int, gap: float) -> bool:
        """True if no object except `ignored` is within `gap` m of a place (2,)."""
        others = [i for i in range(len(self.scene.objects)) if i != ignored]
        return all(np.linalg.norm(self.position(i)[:2] - place) > gap for i in others)


@dataclass
class Skill:
    """A skill that is being carried out."""

    name: str
    instruction: str
    steps: Steps
    achieved: Callable[[], bool]  # called after every step; the skill succeeds if it ever returns True


def action(move=(0.0, 0.0, 0.0), turn=(0.0, 0.0, 0.0), grip: float = KEEP) -> np.ndarray:
    """An action (7,): translation (3,) in m, rotation vector (3,) in rad, and gripper command."""
    return np.array([*move, *turn, grip], float)


def go(workspace: Workspace, target: np.ndarray, turn: float = 0.0, tolerance: float = 0.012, limit: int = 16) -> Steps:
    """Move straight to `target` (3,) at up to MAX_STEP per step, while turning by `turn` rad about the z axis."""
    target = np.clip(target, workspace.scene.limits.low, workspace.scene.limits.high)
    for _ in range(limit):
        move = target - workspace.tool
        distance = float(np.linalg.norm(move))
        if distance < tolerance and abs(turn) < 0.02:
            return
        turn_now = float(np.clip(turn, -MAX_TURN, MAX_TURN))
        turn -= turn_now
        yield action(move * min(1.0, 0.9 * MAX_STEP / max(distance, 1e-9)), turn_now * UP)


def travel(workspace: Workspace, target: np.ndarray, turn: float = 0.0) -> Steps:
    """Go above `target` (3,) without touching objects: a tool that is low and far from it goes up first."""
    if np.linalg.norm((target - workspace.tool)[:2]) > 0.06 and workspace.tool[2] < TRAVEL_HEIGHT - 0.03:
        yield from go(workspace, np.array([*workspace.tool[:2], TRAVEL_HEIGHT]), tolerance=0.03)
    yield from go(workspace, target, turn)


def turn_by(rotvec: np.ndarray, move=(0.0, 0.0, 0.0)) -> Steps:
    """Turn by a rotation vector (3,) at up to MAX_TURN per step, while moving by `move` (3,) m."""
    steps = int(np.ceil(np.linalg.norm(rotvec) / MAX_TURN))
    for _ in range(steps):
        yield action(np.asarray(move) / steps, np.asarray(rotvec) / steps)


def turn_back(workspace: Workspace) -> Steps:
    """Turn to the default orientation."""
    control = workspace.sim.control
    yield from turn_by(matrix_to_rotvec(control.default_rotation @ control.rotation.T))
