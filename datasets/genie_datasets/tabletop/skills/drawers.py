"""Skills for the drawers of the desk: pull one open by its handle, or push one shut."""

import numpy as np

from genie_datasets.tabletop.furniture import DRAWER_NAMES, handle_position
from genie_datasets.tabletop.skills.primitives import (
    CLOSE,
    OPEN,
    TRAVEL_HEIGHT,
    Skill,
    Steps,
    Workspace,
    action,
    go,
    turn_back,
    turn_by,
)

REACHABLE = (0, 1)  # the bottom drawer is too low for the arm
PULL = 0.16  # m
OPENED, CLOSED = 0.10, 0.025  # m of opening at which the skills are achieved
OPEN_AT_START = 0.06  # m from which a drawer counts as open before a skill
PUSH_DISTANCE = 0.045  # m in front of a handle before a push
CLEARANCE = 0.10  # m in front of the handles, where the hand passes the upper drawers
TILT = 0.45  # rad by which the hand leans back below an upper handle


def _opening(workspace: Workspace, drawer: int) -> float:
    return float(workspace.sim.drawer_openings()[drawer])


def _handle(workspace: Workspace, drawer: int) -> np.ndarray:
    """Current position (3,) of a handle in m."""
    return handle_position(workspace.scene.furniture, drawer) - np.array([_opening(workspace, drawer), 0.0, 0.0])


def _approach(workspace: Workspace, target: np.ndarray, drawer: int) -> Steps:
    """Go over the edge of the desk, down in front of it, and to `target` (3,)."""
    edge = workspace.scene.furniture.x[0]
    if workspace.tool[2] < TRAVEL_HEIGHT - 0.03 and workspace.tool[0] > edge:
        yield from go(workspace, np.array([*workspace.tool[:2], TRAVEL_HEIGHT]), tolerance=0.03)
    clearance = np.array([CLEARANCE if drawer else 0.0, 0.0, 0.0])
    yield from go(workspace, np.array([target[0], target[1], TRAVEL_HEIGHT - 0.05]) - clearance)
    if drawer:
        yield from turn_by(np.array([0.0, -TILT, 0.0]), move=(0.0, 0.0, -0.08))
    yield from go(workspace, target - clearance, tolerance=0.005)
    yield from go(workspace, target, tolerance=0.005)


def _leave(workspace: Workspace, drawer: int) -> Steps:
    """Go back above the desk."""
    yield from go(workspace, workspace.tool + np.array([-0.03, 0.0, 0.03]), tolerance=0.02)
    if drawer:
        yield from go(workspace, workspace.tool - np.array([CLEARANCE - 0.03, 0.0, 0.0]), tolerance=0.02)
    yield from go(workspace, np.array([*workspace.tool[:2], TRAVEL_HEIGHT]), tolerance=0.03)
    yield from turn_back(workspace)
    yield from go(workspace, np.array([workspace.work_area.low[0] + 0.04, 0.0, TRAVEL_HEIGHT]), tolerance=0.03)


def _choose(workspace: Workspace, is_open: bool) -> int | None:
    """Draw a reachable drawer that is open or closed; None if there is none."""
    drawers = [
        drawer
        for drawer in REACHABLE
        if drawer < workspace.sim.num_drawers and (_opening(workspace, drawer) > OPEN_AT_START) == is_open
    ]
    # An open upper drawer blocks the drawers below it.
    drawers = [d for d in drawers if all(_opening(workspace, upper) < CLOSED for upper in range(d))]
    return int(workspace.rng.choice(drawers)) if drawers else None


def open_drawer(workspace: Workspace) -> Skill | None:
    """Pull a closed drawer open."""
    if (drawer := _choose(workspace, is_open=False)) is None:
        return None

    def steps() -> Steps:
        if workspace.grip > 0.5:
            yield action(grip=OPEN)
        yield from _approach(workspace, _handle(workspace, drawer), drawer)
        yield action(grip=CLOSE)
        yield action()
        yield from go(workspace, workspace.tool - np.array([PULL, 0.0, 0.0]))
        yield action(grip=OPEN)
        yield from _leave(workspace, drawer)

    return Skill(
        "open drawer",
        f"open {DRAWER_NAMES[drawer]} drawer",
        steps(),
        lambda: _opening(workspace, drawer) > OPENED,
    )


def close_drawer(workspace: Workspace) -> Skill | None:
    """Push an open drawer shut."""
    if (drawer := _choose(workspace, is_open=True)) is None:
        return None

    def steps() -> Steps:
        if workspace.grip < 0.5:
            yield action(grip=CLOSE)
        yield from _approach(workspace, _handle(workspace, drawer) - np.array([PUSH_DISTANCE, 0.0, 0.0]), drawer)
        closed = handle_position(workspace.scene.furniture, drawer)
        yield from go(workspace, np.array([closed[0] - 0.012, *workspace.tool[1:]]))
        yield from _leave(workspace, drawer)

    return Skill(
        "close drawer",
        f"close {DRAWER_NAMES[drawer]} drawer",
        steps(),
        lambda: _opening(workspace, drawer) < CLOSED,
    )
