"""How an episode begins: where the objects stand or lie, which drawer is open, where the arm waits."""

import numpy as np

from genie_datasets.tabletop.objects import HALF_HEIGHT, LONG_KINDS, RADIUS, UPRIGHT_KINDS
from genie_datasets.tabletop.scene import TABLE_TOP
from genie_datasets.tabletop.simulator import Simulator

OBJECT_GAP, PLACING_TRIES = 0.13, 30  # m between objects, if that many tries find it
LYING_SHARE = 0.15  # of the things that can stand, in `rt1`
DRAWER_SHARE, DRAWER_OPEN = 0.25, (0.09, 0.14)  # of desks with one drawer open; how far, m
START_HEIGHT = 0.08  # m above the lowest point of the reach
SETTLING_SUBSTEPS = 40


def place_objects(sim: Simulator, rng: np.random.Generator, lying: frozenset[int] = frozenset()) -> None:
    """Sets the objects down apart from each other, mostly within reach; those in `lying` lie, tops away from us."""
    low = np.add(sim.scene.work.low[:2], (0.01, -0.05))
    high = np.add(sim.scene.work.high[:2], (0.06, 0.05))
    placed: list[np.ndarray] = []
    for index, thing in enumerate(sim.scene.objects):
        best, best_gap = low, -1.0
        inside = 0.07 if index in lying else 0.0  # what is to be put upright must be within reach
        for _ in range(PLACING_TRIES):
            at = rng.uniform(low + inside, high - inside)
            gap = min((float(np.linalg.norm(at - other)) for other in placed), default=np.inf)
            if gap > best_gap:
                best, best_gap = at, gap
            if gap > OBJECT_GAP:
                break
        placed.append(best)
        # In `easy` the hand never turns: long objects lie so that it can grasp them.
        suited = sim.scene.family == "easy" and thing.kind in LONG_KINDS
        spread = 0.3 if suited else 0.4 if index in lying else np.pi / 2
        angle = rng.uniform(-spread, spread) + (hand_heading(sim) - np.pi / 2 if suited else 0.0)
        turn = np.array([np.cos(angle / 2), 0, 0, np.sin(angle / 2)])
        height = HALF_HEIGHT[thing.kind]
        if index in lying:
            turn = _multiply(turn, np.array([np.cos(np.pi / 4), 0, np.sin(np.pi / 4), 0]))  # its z becomes its x
            height = RADIUS[thing.kind]
        sim.place_object(index, np.array([*best.round(4), TABLE_TOP + height + 0.001]), turn)


def hand_heading(sim: Simulator) -> float:
    """Angle about the vertical of the line along which the fingers open, rad."""
    opening = sim.control.usual_rotation[:, 1]
    return float(np.arctan2(opening[1], opening[0]))


def _multiply(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    import mujoco

    out = np.empty(4)
    mujoco.mju_mulQuat(out, a, b)
    return out


def begin(sim: Simulator, rng: np.random.Generator, skill: str) -> None:
    """Puts everything where an episode begins that is to show `skill`, and lets the objects come to rest."""
    work, rt1 = sim.scene.work, sim.scene.family == "rt1"
    sim.reset()
    tall = [i for i, thing in enumerate(sim.scene.objects) if thing.kind in UPRIGHT_KINDS]
    lying = {i for i in tall if rt1 and rng.random() < LYING_SHARE}
    if skill == "place upright" and tall and not lying:
        lying = {int(rng.choice(tall))}
    if skill == "knock over" and lying == set(tall):
        lying = set()
    place_objects(sim, rng, frozenset(lying))
    ajar = rng.random() < DRAWER_SHARE
    if skill == "close drawer" or (ajar and skill != "open drawer"):
        drawer, metres = int(rng.integers(2)), rng.uniform(*DRAWER_OPEN)
        if sim.num_drawers:
            sim.open_drawer(drawer, metres)
    tool = rng.uniform([*work.low[:2], work.low[2] + START_HEIGHT], work.high)
    sim.control.reset(tool, grip=float(rng.random() < 0.3))
    sim.settle(SETTLING_SUBSTEPS)
