"""Skills for the desk's drawers: the fingers close on the handle and pull, or push it home."""

import numpy as np

from genie_datasets.tabletop.furniture import DRAWER_NAMES, handle_position
from genie_datasets.tabletop.skills.world import (
    CLOSE,
    OPEN,
    TRAVEL_HEIGHT,
    Skill,
    Steps,
    World,
    action,
    go,
    turn_back,
    turn_by,
)

REACHED = (0, 1)  # the drawers that the arm reaches: the bottom one is too low
PULL = 0.16  # m
OPENED, CLOSED, AJAR = 0.10, 0.025, 0.06  # m: achieved opening and closing; what counts as open to begin with
IN_FRONT = 0.045  # m before a handle that is to be pushed
CLEAR = 0.10  # m before the handles, where the hand goes down past the upper ones
TILT = 0.45  # rad that the hand leans back below an upper handle


def _opening(world: World, drawer: int) -> float:
    return float(world.sim.drawer_openings()[drawer])


def _handle(world: World, drawer: int) -> np.ndarray:
    """Where a handle is now (3,) m."""
    return handle_position(world.scene.furniture, drawer) - np.array([_opening(world, drawer), 0.0, 0.0])


def _approach(world: World, target: np.ndarray, drawer: int) -> Steps:
    """Over the edge of the desk, down in front of it, and to `target` (3,)."""
    edge = world.scene.furniture.x[0]
    if world.tool[2] < TRAVEL_HEIGHT - 0.03 and world.tool[0] > edge:
        yield from go(world, np.array([*world.tool[:2], TRAVEL_HEIGHT]), tolerance=0.03)
    clear = np.array([CLEAR if drawer else 0.0, 0.0, 0.0])
    yield from go(world, np.array([target[0], target[1], TRAVEL_HEIGHT - 0.05]) - clear)
    if drawer:
        yield from turn_by(world, np.array([0.0, -TILT, 0.0]), move=(0.0, 0.0, -0.08))
    yield from go(world, target - clear, tolerance=0.005)
    yield from go(world, target, tolerance=0.005)


def _leave(world: World, drawer: int) -> Steps:
    """Back above the desk, where play goes on."""
    yield from go(world, world.tool + np.array([-0.03, 0.0, 0.03]), tolerance=0.02)
    if drawer:
        yield from go(world, world.tool - np.array([CLEAR - 0.03, 0.0, 0.0]), tolerance=0.02)
    yield from go(world, np.array([*world.tool[:2], TRAVEL_HEIGHT]), tolerance=0.03)
    yield from turn_back(world)
    yield from go(world, np.array([world.work.low[0] + 0.04, 0.0, TRAVEL_HEIGHT]), tolerance=0.03)


def _choose(world: World, is_open: bool) -> int | None:
    able = [d for d in REACHED if d < world.sim.num_drawers and (_opening(world, d) > AJAR) == is_open]
    # An upper drawer that stands open is in the way of those below it.
    able = [d for d in able if all(_opening(world, upper) < CLOSED for upper in range(d))]
    return int(world.rng.choice(able)) if able else None


def open_drawer(world: World) -> Skill | None:
    """Pulls a closed drawer open."""
    if (drawer := _choose(world, is_open=False)) is None:
        return None

    def steps() -> Steps:
        if world.grip > 0.5:
            yield action(grip=OPEN)
        yield from _approach(world, _handle(world, drawer), drawer)
        yield action(grip=CLOSE)
        yield action()
        yield from go(world, world.tool - np.array([PULL, 0.0, 0.0]))
        yield action(grip=OPEN)
        yield from _leave(world, drawer)

    return Skill(
        "open drawer",
        f"open {DRAWER_NAMES[drawer]} drawer",
        steps(),
        lambda: _opening(world, drawer) > OPENED,
    )


def close_drawer(world: World) -> Skill | None:
    """Pushes an open drawer shut."""
    if (drawer := _choose(world, is_open=True)) is None:
        return None

    def steps() -> Steps:
        if world.grip < 0.5:
            yield action(grip=CLOSE)
        yield from _approach(world, _handle(world, drawer) - np.array([IN_FRONT, 0.0, 0.0]), drawer)
        home = handle_position(world.scene.furniture, drawer)
        yield from go(world, np.array([home[0] - 0.012, *world.tool[1:]]))
        yield from _leave(world, drawer)

    return Skill(
        "close drawer",
        f"close {DRAWER_NAMES[drawer]} drawer",
        steps(),
        lambda: _opening(world, drawer) < CLOSED,
    )
