"""Play: moves along one axis at a time, at speeds that a camera sees."""

import numpy as np

from genie_datasets.tabletop.scene import TABLE_TOP
from genie_datasets.tabletop.simulator import MAX_STEP
from genie_datasets.tabletop.skills.world import CLOSE, OPEN, Skill, Steps, World, action

HOLD_SHARES = (0.55, 0.25, 0.12, 0.08)  # of play moves held for 1, 2, 3, 4 steps: longer ones would be foreseen
PLAY_FLOOR = TABLE_TOP + 0.065  # m; lower, the palm would press tall objects into the table and the arm would stall
STAY_SHARE, GRIP_SHARE = 0.08, 0.10  # of play's choices; the rest are moves along an axis


def play_steps(world: World) -> Steps:
    """Moves along one axis at a time, held 1 to 4 steps, at 2.5 to 5 cm a step; now and then the gripper, or nothing.

    The next direction is drawn afresh, so that the past does not give the next move away; directions that would run
    into the edge of the reach are not drawn. It never ends.
    """
    rng = world.rng
    low, high = np.array([*world.work.low[:2], PLAY_FLOOR]), np.array(world.work.high)
    while True:
        choice = rng.random()
        if choice < STAY_SHARE:
            for _ in range(int(rng.integers(1, 3))):
                yield action()
            continue
        if choice < STAY_SHARE + GRIP_SHARE:
            yield action(grip=OPEN if world.grip > 0.5 else CLOSE)
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


def play(world: World) -> Skill:
    """Has no aim, so it is never achieved."""
    return Skill("play", "move around", play_steps(world), lambda: False)
