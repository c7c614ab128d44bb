"""Skills that touch without holding: reach, push, knock over."""

import numpy as np

from genie_datasets.tabletop.objects import HALF_HEIGHT, UPRIGHT_KINDS
from genie_datasets.tabletop.scene import TABLE_TOP
from genie_datasets.tabletop.skills.world import CLOSE, UP, Skill, Steps, World, action, go, travel

DIRECTIONS = {
    "forward": np.array([1.0, 0.0, 0.0]),
    "back": np.array([-1.0, 0.0, 0.0]),
    "left": np.array([0.0, 1.0, 0.0]),
    "right": np.array([0.0, -1.0, 0.0]),
}
BESIDE = 0.085  # m between the tool and the object's centre before a push
PUSH, KNOCK = 0.18, 0.17  # m that the tool goes
TALL = 0.035  # m; half the height of what can be knocked over


def reach(world: World) -> Skill | None:
    """Brings the tool above an object."""
    if (index := world.choose()) is None:
        return None

    def steps() -> Steps:
        yield from go(world, world.position(index) + UP * (HALF_HEIGHT[world.kind(index)] + 0.05))

    return Skill(
        "reach",
        f"reach {world.name(index)}",
        steps(),
        lambda: bool(np.linalg.norm((world.position(index) - world.tool)[:2]) < 0.03),
    )


def _sweep(world: World, index: int, direction: np.ndarray, height: float, length: float) -> Steps:
    """Closes the gripper, goes down beside an object, sweeps across where it stands, leaves upwards."""
    if world.grip < 0.5:
        yield action(grip=CLOSE)
    beside = world.position(index) - BESIDE * direction
    beside[2] = TABLE_TOP + 0.17
    yield from travel(world, beside)
    beside[2] = height
    yield from go(world, beside)
    yield from go(world, beside + length * direction)
    yield from go(world, world.tool + 0.10 * UP)


def _direction(world: World, index: int) -> tuple[str, np.ndarray] | None:
    """One of the four directions in which the tool has room before the object and the object has room behind it."""
    at, low, high = world.position(index)[:2], np.array(world.work.low[:2]), np.array(world.work.high[:2])
    able = []
    for name, way in DIRECTIONS.items():
        begin, end = at - (BESIDE - 0.01) * way[:2], at + 0.05 * way[:2]
        if np.all((begin > low) & (begin < high) & (end > low - 0.02) & (end < high + 0.02)):
            able.append(name)
    if not able:
        return None
    name = str(world.rng.choice(able))
    return name, DIRECTIONS[name]


def push(world: World) -> Skill | None:
    """Pushes an object forward, back, left or right."""
    index = world.choose()
    if index is None or (chosen := _direction(world, index)) is None:
        return None
    name, way = chosen
    start = world.position(index)
    where = name if name in ("forward", "back") else f"to the {name}"
    return Skill(
        f"push {name}",
        f"push {world.name(index)} {where}",
        _sweep(world, index, way, TABLE_TOP + 0.03, PUSH),
        lambda: bool((world.position(index) - start) @ way > 0.05),
    )


def knock(world: World) -> Skill | None:
    """Knocks over something tall, by a push near its top."""
    index = world.choose(lambda i: world.kind(i) in UPRIGHT_KINDS and world.stands(i))
    if index is None or (chosen := _direction(world, index)) is None:
        return None
    height = TABLE_TOP + 1.75 * HALF_HEIGHT[world.kind(index)]
    return Skill(
        "knock over",
        f"knock {world.name(index)} over",
        _sweep(world, index, chosen[1], height, KNOCK),
        lambda: world.lies(index),
    )
