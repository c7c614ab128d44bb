"""Play: motion along one axis at a time, fast enough to be visible in the frames."""

import numpy as np

from genie_datasets.tabletop.scene import TABLE_TOP
from genie_datasets.tabletop.simulator import MAX_STEP
from genie_datasets.tabletop.skills.primitives import CLOSE, OPEN, Skill, Steps, Workspace, action

HOLD_SHARES = (0.55, 0.25, 0.12, 0.08)  # of moves held for 1, 2, 3, 4 steps; longer moves would be predictable
MIN_HEIGHT = TABLE_TOP + 0.065  # m; lower, the palm presses tall objects into the table and the arm stalls
STAY_SHARE, GRIP_SHARE = 0.08, 0.10  # of all choices; the rest are moves along an axis


def play_steps(workspace: Workspace) -> Steps:
    """Move along one axis for 1 to 4 steps at 2.5 to 5 cm per step; sometimes move the gripper or stay. Never ends.

    Each direction is drawn independently of the past, so that the next move cannot be predicted. Directions that would
    leave the work area are not drawn.
    """
    rng = workspace.rng
    low, high = np.array([*workspace.work_area.low[:2], MIN_HEIGHT]), np.array(workspace.work_area.high)
    while True:
        choice = rng.random()
        if choice < STAY_SHARE:
            for _ in range(int(rng.integers(1, 3))):
                yield action()
            continue
        if choice < STAY_SHARE + GRIP_SHARE:
            yield action(grip=OPEN if workspace.grip > 0.5 else CLOSE)
            continue
        speed = rng.uniform(0.025, MAX_STEP)
        room = np.concatenate([high - workspace.tool, workspace.tool - low])  # along +x +y +z -x -y -z
        direction = int(rng.choice(np.flatnonzero(room > 0.9 * speed)))
        move = np.zeros(3)
        move[direction % 3] = speed if direction < 3 else -speed
        for _ in range(int(rng.choice(len(HOLD_SHARES), p=HOLD_SHARES)) + 1):
            room = np.concatenate([high - workspace.tool, workspace.tool - low])
            if room[direction] < 0.6 * speed:
                break
            yield action(move)


def play(workspace: Workspace) -> Skill:
    """Move around. Play has no goal, so it is never achieved."""
    return Skill("play", "move around", play_steps(workspace), lambda: False)
