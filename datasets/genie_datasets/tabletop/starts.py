"""How an episode begins: where the objects stand or lie, which drawer is open, where the arm waits."""

import numpy as np

from genie_datasets.tabletop.objects import UPRIGHT_KINDS
from genie_datasets.tabletop.simulator import Simulator

LYING_SHARE = 0.15  # of the things that can stand, in `rt1`
DRAWER_SHARE, DRAWER_OPEN = 0.25, (0.09, 0.14)  # of desks with one drawer open; how far, m
START_HEIGHT = 0.08  # m above the lowest point of the reach
SETTLING_SUBSTEPS = 40


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
    sim.place_objects(rng, frozenset(lying))
    ajar = rng.random() < DRAWER_SHARE
    if skill == "close drawer" or (ajar and skill != "open drawer"):
        drawer, metres = int(rng.integers(2)), rng.uniform(*DRAWER_OPEN)
        if sim.num_drawers:
            sim.open_drawer(drawer, metres)
    tool = rng.uniform([*work.low[:2], work.low[2] + START_HEIGHT], work.high)
    sim.control.reset(tool, grip=float(rng.random() < 0.3))
    sim.settle(SETTLING_SUBSTEPS)
