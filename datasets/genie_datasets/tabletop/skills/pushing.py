"""Skills without grasping: reach, push, knock over."""

import numpy as np

from genie_datasets.tabletop.objects import HALF_HEIGHT, UPRIGHT_KINDS
from genie_datasets.tabletop.scene import TABLE_TOP
from genie_datasets.tabletop.skills.primitives import CLOSE, UP, Skill, Steps, Workspace, action, go, travel

DIRECTIONS = {
    "forward": np.array([1.0, 0.0, 0.0]),
    "back": np.array([-1.0, 0.0, 0.0]),
    "left": np.array([0.0, 1.0, 0.0]),
    "right": np.array([0.0, -1.0, 0.0]),
}
START_DISTANCE = 0.085  # m between the tool and the object's center before a push
PUSH_LENGTH, KNOCK_LENGTH = 0.18, 0.17  # m


def reach(workspace: Workspace) -> Skill | None:
    """Move the tool above an object."""
    if (index := workspace.choose()) is None:
        return None

    def steps() -> Steps:
        height = HALF_HEIGHT[workspace.kind(index)] + 0.05
        yield from go(workspace, workspace.position(index) + UP * height)

    return Skill(
        "reach",
        f"reach {workspace.name(index)}",
        steps(),
        lambda: bool(np.linalg.norm((workspace.position(index) - workspace.tool)[:2]) < 0.03),
    )


def _sweep(workspace: Workspace, index: int, direction: np.ndarray, height: float, length: float) -> Steps:
    """Close the gripper, go down next to an object, sweep through its position, and go up."""
    if workspace.grip < 0.5:
        yield action(grip=CLOSE)
    start = workspace.position(index) - START_DISTANCE * direction
    start[2] = TABLE_TOP + 0.17
    yield from travel(workspace, start)
    start[2] = height
    yield from go(workspace, start)
    yield from go(workspace, start + length * direction)
    yield from go(workspace, workspace.tool + 0.10 * UP)


def _choose_direction(workspace: Workspace, index: int) -> tuple[str, np.ndarray] | None:
    """Draw a direction with room for the tool in front of the object and for the object behind it."""
    low, high = np.array(workspace.work_area.low[:2]), np.array(workspace.work_area.high[:2])
    position = workspace.position(index)[:2]
    possible = []
    for name, direction in DIRECTIONS.items():
        begin, end = position - (START_DISTANCE - 0.01) * direction[:2], position + 0.05 * direction[:2]
        if np.all((begin > low) & (begin < high) & (end > low - 0.02) & (end < high + 0.02)):
            possible.append(name)
    if not possible:
        return None
    name = str(workspace.rng.choice(possible))
    return name, DIRECTIONS[name]


def push(workspace: Workspace) -> Skill | None:
    """Push an object forward, back, left or right; achieved if it moves by 5 cm."""
    index = workspace.choose()
    if index is None or (chosen := _choose_direction(workspace, index)) is None:
        return None
    name, direction = chosen
    start = workspace.position(index)
    where = name if name in ("forward", "back") else f"to the {name}"
    return Skill(
        f"push {name}",
        f"push {workspace.name(index)} {where}",
        _sweep(workspace, index, direction, TABLE_TOP + 0.03, PUSH_LENGTH),
        lambda: bool((workspace.position(index) - start) @ direction > 0.05),
    )


def knock(workspace: Workspace) -> Skill | None:
    """Knock over an upright object by pushing near its top."""
    index = workspace.choose(lambda i: workspace.kind(i) in UPRIGHT_KINDS and workspace.stands(i))
    if index is None or (chosen := _choose_direction(workspace, index)) is None:
        return None
    height = TABLE_TOP + 1.75 * HALF_HEIGHT[workspace.kind(index)]
    return Skill(
        "knock over",
        f"knock {workspace.name(index)} over",
        _sweep(workspace, index, chosen[1], height, KNOCK_LENGTH),
        lambda: workspace.lies(index),
    )
