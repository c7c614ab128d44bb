"""Skills that grasp an object: pick, place, move near, place upright."""

from collections.abc import Callable

import numpy as np

from genie_datasets.tabletop.objects import GRASP_HEIGHT, HALF_HEIGHT, LONG_KINDS
from genie_datasets.tabletop.scene import TABLE_TOP
from genie_datasets.tabletop.skills.primitives import (
    CLOSE,
    OPEN,
    UP,
    Skill,
    Steps,
    Workspace,
    action,
    go,
    travel,
    turn_back,
    turn_by,
)

LIFT = 0.12  # m
CLEARANCE = 0.05  # m above an object's top, so that the open fingers do not knock it over
PLACE_TOLERANCE = 0.05  # m from the goal at which "place" is achieved
NEAR = 0.16  # m between two objects at which "move near" is achieved
NEAR_GOAL = 0.115  # m between two objects that "move near" aims at
FREE_GAP, FREE_TRIES = 0.115, 40  # m around a free place; number of places to try
LYING_GRASP = 0.008  # m above the axis of a lying object


def grasp_turn(workspace: Workspace, index: int) -> float:
    """Angle in rad to turn about the vertical axis, so that the fingers close on an object's narrow side."""
    if workspace.scene.family == "easy" or not (workspace.kind(index) in LONG_KINDS or workspace.lies(index)):
        return 0.0  # in `easy` the hand does not turn, and long objects are aligned with it
    x, z = workspace.axes(index)[:, 0], workspace.axes(index)[:, 2]
    long_side = z if workspace.lies(index) else x
    opening = workspace.sim.control.rotation[:, 1]
    angle = np.arctan2(long_side[1], long_side[0]) + np.pi / 2 - np.arctan2(opening[1], opening[0])
    return float(np.clip((angle + np.pi / 2) % np.pi - np.pi / 2, -1.2, 1.2))


def grasp(workspace: Workspace, index: int) -> Steps:
    """Open the gripper, go above an object and down, and close it."""
    if workspace.grip > 0.5:
        yield action(grip=OPEN)
    center, lies, kind = workspace.position(index), workspace.lies(index), workspace.kind(index)
    height = center[2] + LYING_GRASP if lies else TABLE_TOP + GRASP_HEIGHT[kind]
    top = center[2] + (0.0 if lies else HALF_HEIGHT[kind])
    above = np.array([center[0], center[1], max(height + 0.09, top + CLEARANCE)])
    yield from travel(workspace, above, turn=grasp_turn(workspace, index))
    center = workspace.position(index)
    yield from go(workspace, np.array([center[0], center[1], height]), tolerance=0.004)
    yield action(grip=CLOSE)
    yield action()


def pick_steps(workspace: Workspace, index: int) -> Steps:
    """Grasp and lift an object."""
    yield from grasp(workspace, index)
    yield from go(workspace, workspace.tool + LIFT * UP)


def pick(workspace: Workspace) -> Skill | None:
    """Lift an object by 12 cm; achieved at 5 cm."""
    if (index := workspace.choose(lambda i: not workspace.lies(i))) is None:
        return None
    start = workspace.position(index)[2]
    return Skill(
        "pick",
        f"pick {workspace.name(index)}",
        pick_steps(workspace, index),
        lambda: bool(workspace.position(index)[2] - start > 0.05),
    )


def carry_steps(workspace: Workspace, index: int, place: np.ndarray) -> Steps:
    """Pick an object up and put it down at `place` (2,)."""
    yield from pick_steps(workspace, index)
    offset = workspace.tool - workspace.position(index)  # the object's center goes to the place, not the tool
    above = np.array([place[0] + offset[0], place[1] + offset[1], workspace.tool[2]])
    yield from go(workspace, above)
    bottom = TABLE_TOP + HALF_HEIGHT[workspace.kind(index)] + offset[2]
    yield from go(workspace, np.array([above[0], above[1], bottom + 0.004]), tolerance=0.004)
    yield action(grip=OPEN)
    yield from go(workspace, workspace.tool + 0.10 * UP)
    yield from turn_back(workspace)


def free_place(workspace: Workspace, index: int, gap: float, draw: Callable[[], np.ndarray]) -> np.ndarray | None:
    """The first drawn place (2,) in the work area with `gap` m to objects other than `index`; None if none is found."""
    places = (draw() for _ in range(FREE_TRIES))
    return next((p for p in places if workspace.is_inside(p) and workspace.is_free(p, index, gap)), None)


def is_released(workspace: Workspace, index: int) -> bool:
    """True if an object is back on the table and the gripper is open."""
    height = workspace.position(index)[2] - TABLE_TOP
    return bool(workspace.grip < 0.5 and height < HALF_HEIGHT[workspace.kind(index)] + 0.03)


def place(workspace: Workspace) -> Skill | None:
    """Put an object down in one of the nine cells of the work area."""
    if (index := workspace.choose(lambda i: not workspace.lies(i))) is None:
        return None
    cell = workspace.rng.integers(3, size=2)
    low, high = np.array(workspace.work_area.low[:2]), np.array(workspace.work_area.high[:2])
    size = (high - low) / 3
    target = free_place(
        workspace, index, FREE_GAP, lambda: workspace.rng.uniform(low + cell * size, low + (cell + 1) * size)
    )
    if target is None or np.linalg.norm(workspace.position(index)[:2] - target) < 0.08:
        return None
    row, column = ("near", "middle", "far")[cell[0]], ("right", "middle", "left")[cell[1]]
    where = "middle" if row == column else f"{row} {column}"

    def achieved() -> bool:
        distance = np.linalg.norm(workspace.position(index)[:2] - target)
        return bool(distance < PLACE_TOLERANCE) and is_released(workspace, index)

    return Skill(
        "place",
        f"place {workspace.name(index)} at the {where}",
        carry_steps(workspace, index, target),
        achieved,
    )


def move_near(workspace: Workspace) -> Skill | None:
    """Put an object down next to another."""
    first = workspace.choose(lambda i: not workspace.lies(i))
    second = workspace.choose(lambda i: i != first and (first is None or _distance(workspace, first, i) > NEAR + 0.03))
    if first is None or second is None:
        return None

    def draw() -> np.ndarray:
        angle = workspace.rng.uniform(-np.pi, np.pi)
        return workspace.position(second)[:2] + NEAR_GOAL * np.array([np.cos(angle), np.sin(angle)])

    if (goal := free_place(workspace, first, 0.10, draw)) is None:
        return None
    return Skill(
        "move near",
        f"move {workspace.name(first)} near {workspace.name(second)}",
        carry_steps(workspace, first, goal),
        lambda: _distance(workspace, first, second) < NEAR and is_released(workspace, first),
    )


def _distance(workspace: Workspace, first: int, second: int) -> float:
    return float(np.linalg.norm((workspace.position(first) - workspace.position(second))[:2]))


def upright_steps(workspace: Workspace, index: int) -> Steps:
    """Grasp a lying object across its axis, lift it, turn the hand until it stands, and put it down."""
    yield from grasp(workspace, index)
    yield from go(workspace, workspace.tool + 0.09 * UP)
    axis = workspace.axes(index)[:, 2]
    if axis[0] < 0:
        axis = -axis  # the arm cannot point its hand at the camera: such an object is put upside down
    rotvec = np.cross(axis, UP)
    rotvec *= np.arccos(np.clip(axis[2], -1, 1)) / max(float(np.linalg.norm(rotvec)), 1e-9)
    yield from turn_by(rotvec)
    bottom = TABLE_TOP + HALF_HEIGHT[workspace.kind(index)] + (workspace.tool - workspace.position(index))[2]
    yield from go(workspace, np.array([*workspace.tool[:2], bottom + 0.004]), tolerance=0.004)
    yield action(grip=OPEN)
    back = -workspace.sim.control.rotation[:, 2]
    yield from go(workspace, workspace.tool + 0.09 * back)
    yield from go(workspace, np.array([*workspace.tool[:2], TABLE_TOP + 0.18]))
    yield from turn_back(workspace)


def upright(workspace: Workspace) -> Skill | None:
    """Put a lying object upright."""
    if (index := workspace.choose(workspace.lies)) is None:
        return None
    return Skill(
        "place upright",
        f"place {workspace.name(index)} upright",
        upright_steps(workspace, index),
        lambda: workspace.grip < 0.5 and workspace.stands(index),
    )
