"""Scripted behaviour: each skill is a generator of 7-D actions that watches the world as it goes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from genie_datasets.tabletop.control import Controller
from genie_datasets.tabletop.objects import GRASP_HEIGHT, HALF_HEIGHT, LONG_KINDS
from genie_datasets.tabletop.scene import TABLE_TOP, SceneConfig

OPEN, KEEP, CLOSE = -1.0, 0.0, 1.0
MAX_STEP = 0.05  # m of world_vector in one step
MAX_TURN = 0.28  # rad of rotation_delta in one step
HOLD_SHARES = (0.55, 0.25, 0.12, 0.08)  # of play moves held for 1, 2, 3, 4 steps: longer ones would be foreseen
PLAY_FLOOR = TABLE_TOP + 0.065  # m; lower, the palm would press tall objects into the table and the arm would stall
STAY_SHARE, GRIP_SHARE = 0.08, 0.10  # of play's choices; the rest are moves along an axis

UP = np.array([0.0, 0.0, 1.0])

Steps = Iterator[np.ndarray]


@dataclass
class World:
    """What a skill may look at."""

    scene: SceneConfig
    control: Controller
    object_qpos: list[int]  # address of each object's free joint in qpos
    rng: np.random.Generator

    @property
    def tool(self) -> np.ndarray:
        """Where the tool is meant to be (3,): skills plan on commands, as a teleoperator does."""
        return self.control.position

    def object_position(self, index: int) -> np.ndarray:
        """Centre of an object (3,) m."""
        at = self.object_qpos[index]
        return self.control.data.qpos[at : at + 3].copy()

    def object_heading(self, index: int) -> float:
        """Angle of an object's long side about the vertical, rad."""
        w, x, y, z = self.control.data.qpos[self.object_qpos[index] + 3 : self.object_qpos[index] + 7]
        return float(np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z)))

    def within_reach(self, index: int) -> bool:
        """Whether the tool can stand above an object that is still on the table."""
        at, c = self.object_position(index), self.control.config
        return bool(np.all(at[:2] > c.low[:2]) and np.all(at[:2] < c.high[:2]) and at[2] > TABLE_TOP - 0.02)


@dataclass
class Skill:
    """A behaviour under way."""

    name: str
    instruction: str
    steps: Steps
    achieved: Callable[[], bool]  # asked after every step; the episode succeeds if it ever says yes


def action(move=(0.0, 0.0, 0.0), turn: float = 0.0, grip: float = KEEP) -> np.ndarray:
    """The action (7,) of a translation (3,) in metres, a turn about the vertical in radians, and a gripper command."""
    out = np.zeros(7)
    out[:3], out[5], out[6] = move, turn, grip
    return out


def play(world: World) -> Steps:
    """Moves along one axis at a time, held 1 to 4 steps, at 2.5 to 5 cm a step; now and then the gripper, or nothing.

    The next direction is drawn afresh, so that the past does not give the next move away; directions that would run
    into the edge of the reach are not drawn.
    """
    rng, c = world.rng, world.control.config
    low, high = np.array([*c.low[:2], PLAY_FLOOR]), np.array(c.high)
    while True:
        choice = rng.random()
        if choice < STAY_SHARE:
            for _ in range(int(rng.integers(1, 3))):
                yield action()
            continue
        if choice < STAY_SHARE + GRIP_SHARE:
            yield action(grip=OPEN if world.control.grip > 0.5 else CLOSE)
            continue
        speed = rng.uniform(0.025, MAX_STEP)
        room = np.concatenate([high - world.tool, world.tool - low])  # along +x +y +z -x -y -z
        way = int(rng.choice(np.flatnonzero(room > 0.9 * speed)))
        move = np.zeros(3)
        move[way % 3] = speed if way < 3 else -speed
        for _ in range(int(rng.choice(len(HOLD_SHARES), p=HOLD_SHARES)) + 1):
            room = np.concatenate([high - world.tool, world.tool - low])
            if room[way] < 0.6 * speed:
                break
            yield action(move)


def go(world: World, target: np.ndarray, turn: float = 0.0, tolerance: float = 0.012, limit: int = 16) -> Steps:
    """Moves straight to `target` (3,), at most MAX_STEP a step, turning by `turn` on the way."""
    c = world.control.config
    target = np.clip(target, c.low, c.high)
    for _ in range(limit):
        move = target - world.tool
        distance = float(np.linalg.norm(move))
        if distance < tolerance and abs(turn) < 0.02:
            return
        part = float(np.clip(turn, -MAX_TURN, MAX_TURN))
        turn -= part
        yield action(move * min(1.0, 0.9 * MAX_STEP / max(distance, 1e-9)), part)


def reach(world: World, index: int) -> Steps:
    """Brings the tool above an object."""
    kind = world.scene.objects[index].kind
    yield from go(world, world.object_position(index) + UP * (HALF_HEIGHT[kind] + 0.05))


def push(world: World, index: int) -> Steps:
    """Closes the gripper, goes down beside an object and pushes it along x or y, towards the middle."""
    at, c = world.object_position(index), world.control.config
    middle = (np.array(c.low) + c.high) / 2
    axis = int(world.rng.integers(2))
    direction = np.zeros(3)
    direction[axis] = 1.0 if at[axis] < middle[axis] else -1.0
    if world.control.grip < 0.5:
        yield action(grip=CLOSE)
    beside = at - 0.085 * direction
    beside[2] = TABLE_TOP + 0.15
    yield from go(world, beside)
    beside[2] = TABLE_TOP + 0.03
    yield from go(world, beside)
    yield from go(world, beside + 0.18 * direction)
    yield from go(world, world.tool + 0.10 * UP)


def _grasp_turn(world: World, index: int) -> float:
    """How far to turn about the vertical, so that the fingers close on a long object's narrow side."""
    if world.scene.family == "easy" or world.scene.objects[index].kind not in LONG_KINDS:
        return 0.0  # easy keeps the hand's orientation, and lays long objects down to suit it
    opening = world.control.rotation[:, 1]
    wanted = world.object_heading(index) + np.pi / 2 - np.arctan2(opening[1], opening[0])
    return float(np.clip((wanted + np.pi / 2) % np.pi - np.pi / 2, -1.0, 1.0))


def pick(world: World, index: int) -> Steps:
    """Opens, goes above an object, down, closes, and lifts it by 12 cm."""
    kind = world.scene.objects[index].kind
    if world.control.grip > 0.5:
        yield action(grip=OPEN)
    at = world.object_position(index)
    grasp = np.array([at[0], at[1], TABLE_TOP + GRASP_HEIGHT[kind]])
    yield from go(world, grasp + 0.09 * UP, turn=_grasp_turn(world, index))
    yield from go(world, grasp, tolerance=0.004)
    yield action(grip=CLOSE)
    yield action()
    yield from go(world, world.tool + 0.12 * UP)


def start_skill(name: str, world: World) -> Skill:
    """A running skill on an object within reach; play where there is none."""
    inside = [i for i in range(len(world.scene.objects)) if world.within_reach(i)]
    if name == "play" or not inside:
        return Skill("play", "move around", play(world), lambda: False)
    index = int(world.rng.choice(inside))
    start = world.object_position(index)

    def reached() -> bool:
        return bool(np.linalg.norm((world.object_position(index) - world.tool)[:2]) < 0.03)

    def pushed() -> bool:
        return bool(np.linalg.norm((world.object_position(index) - start)[:2]) > 0.05)

    def picked() -> bool:
        return bool(world.object_position(index)[2] - start[2] > 0.05)

    steps, achieved = {"reach": (reach, reached), "push": (push, pushed), "pick": (pick, picked)}[name]
    return Skill(name, f"{name} {world.scene.objects[index].name}", steps(world, index), achieved)
