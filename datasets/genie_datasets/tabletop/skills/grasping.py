"""Skills that hold an object: pick, place, move near, put upright."""

import numpy as np

from genie_datasets.tabletop.objects import GRASP_HEIGHT, HALF_HEIGHT, LONG_KINDS
from genie_datasets.tabletop.scene import TABLE_TOP
from genie_datasets.tabletop.skills.world import (
    CLOSE,
    OPEN,
    UP,
    Skill,
    Steps,
    World,
    action,
    go,
    travel,
    turn_back,
    turn_by,
)

LIFT = 0.12  # m
OVER = 0.05  # m above an object's top, so that open fingers do not knock it over on their way
PLACED, NEAR, BESIDE = 0.05, 0.16, 0.115  # m: from where it should be; between neighbours; aimed at between neighbours
FREE_GAP, FREE_TRIES = 0.115, 40  # m around a place to put something; how many places are looked at
LYING_GRASP = 0.008  # m above the axis of an object that lies


def grasp_turn(world: World, index: int) -> float:
    """How far to turn about the vertical, so that the fingers close on a long object's narrow side."""
    if world.scene.family == "easy" or not (world.kind(index) in LONG_KINDS or world.lies(index)):
        return 0.0  # easy keeps the hand's orientation, and lays long objects down to suit it
    x, z = world.axes(index)[:, 0], world.axes(index)[:, 2]
    long_side = z if world.lies(index) else x
    opening = world.sim.control.rotation[:, 1]
    wanted = np.arctan2(long_side[1], long_side[0]) + np.pi / 2 - np.arctan2(opening[1], opening[0])
    return float(np.clip((wanted + np.pi / 2) % np.pi - np.pi / 2, -1.2, 1.2))


def grasp(world: World, index: int) -> Steps:
    """Opens, goes above an object, down, and closes."""
    if world.grip > 0.5:
        yield action(grip=OPEN)
    at = world.position(index)
    height = at[2] + LYING_GRASP if world.lies(index) else TABLE_TOP + GRASP_HEIGHT[world.kind(index)]
    top = at[2] + (0.0 if world.lies(index) else HALF_HEIGHT[world.kind(index)])
    above = np.array([at[0], at[1], max(height + 0.09, top + OVER)])
    yield from travel(world, above, turn=grasp_turn(world, index))
    at = world.position(index)
    yield from go(world, np.array([at[0], at[1], height]), tolerance=0.004)
    yield action(grip=CLOSE)
    yield action()


def put_down(world: World, index: int, place: np.ndarray) -> Steps:
    """Carries what is held to `place` (2,), lowers it, lets go and leaves upwards."""
    held = world.tool - world.position(index)  # the object's centre goes to the place, not the tool
    over = np.array([place[0] + held[0], place[1] + held[1], world.tool[2]])
    yield from go(world, over)
    bottom = TABLE_TOP + HALF_HEIGHT[world.kind(index)] + held[2]
    yield from go(world, np.array([over[0], over[1], bottom + 0.004]), tolerance=0.004)
    yield action(grip=OPEN)
    yield from go(world, world.tool + 0.10 * UP)


def pick_steps(world: World, index: int) -> Steps:
    yield from grasp(world, index)
    yield from go(world, world.tool + LIFT * UP)


def pick(world: World) -> Skill | None:
    """Lifts an object by 12 cm; achieved at 5 cm."""
    if (index := world.choose(lambda i: not world.lies(i))) is None:
        return None
    start = world.position(index)[2]
    return Skill(
        "pick",
        f"pick {world.name(index)}",
        pick_steps(world, index),
        lambda: bool(world.position(index)[2] - start > 0.05),
    )


def carry_steps(world: World, index: int, place: np.ndarray) -> Steps:
    yield from pick_steps(world, index)
    yield from put_down(world, index, place)
    yield from turn_back(world)


def free_place(world: World, index: int, low: np.ndarray, high: np.ndarray) -> np.ndarray | None:
    """A place (2,) in a rectangle where nothing but the object `index` itself stands, or None."""
    for _ in range(FREE_TRIES):
        at = world.rng.uniform(low, high)
        if world.free_of_objects(at, index, FREE_GAP):
            return at
    return None


def at_rest(world: World, index: int) -> bool:
    """Whether an object is back on the table and let go of."""
    return bool(world.grip < 0.5 and world.position(index)[2] - TABLE_TOP < HALF_HEIGHT[world.kind(index)] + 0.03)


def place(world: World) -> Skill | None:
    """Puts an object down in another part of the table, of three by three."""
    if (index := world.choose(lambda i: not world.lies(i))) is None:
        return None
    cell = world.rng.integers(3, size=2)
    low, high = np.array(world.work.low[:2]), np.array(world.work.high[:2])
    size = (high - low) / 3
    target = free_place(world, index, low + cell * size, low + (cell + 1) * size)
    if target is None or np.linalg.norm(world.position(index)[:2] - target) < 0.08:
        return None
    row, column = ("near", "middle", "far")[cell[0]], ("right", "middle", "left")[cell[1]]
    where = "middle" if row == column else f"{row} {column}"
    return Skill(
        "place",
        f"place {world.name(index)} at the {where}",
        carry_steps(world, index, target),
        lambda: bool(np.linalg.norm(world.position(index)[:2] - target) < PLACED) and at_rest(world, index),
    )


def move_near(world: World) -> Skill | None:
    """Puts an object down beside another."""
    first = world.choose(lambda i: not world.lies(i))
    second = world.choose(lambda i: i != first and (first is None or _apart(world, first, i) > NEAR + 0.03))
    if first is None or second is None:
        return None
    beside = None
    for _ in range(FREE_TRIES):
        angle = world.rng.uniform(-np.pi, np.pi)
        at = world.position(second)[:2] + BESIDE * np.array([np.cos(angle), np.sin(angle)])
        inside = np.all(at > world.work.low[:2]) and np.all(at < world.work.high[:2])
        if inside and world.free_of_objects(at, first, 0.10):
            beside = at
            break
    if beside is None:
        return None
    return Skill(
        "move near",
        f"move {world.name(first)} near {world.name(second)}",
        carry_steps(world, first, beside),
        lambda: _apart(world, first, second) < NEAR and at_rest(world, first),
    )


def _apart(world: World, first: int, second: int) -> float:
    return float(np.linalg.norm((world.position(first) - world.position(second))[:2]))


def upright_steps(world: World, index: int) -> Steps:
    """Grasps what lies across its axis, lifts it, turns the hand until it stands, sets it down."""
    yield from grasp(world, index)
    yield from go(world, world.tool + 0.09 * UP)
    axis = world.axes(index)[:, 2]
    if axis[0] < 0:
        axis = -axis  # a hand that pointed at the camera would be out of the arm's reach: what lies so ends on its head
    way = np.cross(axis, UP)
    way *= np.arccos(np.clip(axis[2], -1, 1)) / max(float(np.linalg.norm(way)), 1e-9)
    yield from turn_by(world, way)
    bottom = TABLE_TOP + HALF_HEIGHT[world.kind(index)] + (world.tool - world.position(index))[2]
    yield from go(world, np.array([*world.tool[:2], bottom + 0.004]), tolerance=0.004)
    yield action(grip=OPEN)
    back = -world.sim.control.rotation[:, 2]
    yield from go(world, world.tool + 0.09 * back)
    yield from go(world, np.array([*world.tool[:2], TABLE_TOP + 0.18]))
    yield from turn_back(world)


def upright(world: World) -> Skill | None:
    """Stands something up that lies."""
    if (index := world.choose(world.lies)) is None:
        return None
    return Skill(
        "place upright",
        f"place {world.name(index)} upright",
        upright_steps(world, index),
        lambda: world.grip < 0.5 and world.stands(index),
    )
