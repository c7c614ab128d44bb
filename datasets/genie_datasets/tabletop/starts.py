"""Initial states of episodes: poses of the objects, an open drawer, and the position of the arm."""

import numpy as np

from genie_datasets.tabletop.objects import UPRIGHT_KINDS
from genie_datasets.tabletop.simulator import Simulator

LYING_SHARE = 0.15  # of the upright objects of `rt1` that lie on their side
OPEN_DRAWER_SHARE = 0.25  # of the episodes that begin with an open drawer
DRAWER_OPENING = (0.09, 0.14)  # m; smallest and largest
MIN_HEIGHT = 0.08  # m of the tool above the work area's low corner
CLOSED_GRIPPER_SHARE = 0.3
SETTLING_SUBSTEPS = 40


def begin(sim: Simulator, rng: np.random.Generator, skill: str) -> None:
    """Draw the initial state of an episode that starts with `skill`, and let the objects come to rest."""
    import mujoco

    work, is_rt1 = sim.scene.work, sim.scene.family == "rt1"
    sim.reset()
    upright = [i for i, item in enumerate(sim.scene.objects) if item.kind in UPRIGHT_KINDS]
    lying = {i for i in upright if is_rt1 and rng.random() < LYING_SHARE}
    if skill == "place upright" and upright and not lying:
        lying = {int(rng.choice(upright))}
    if skill == "knock over" and lying == set(upright):
        lying = set()
    sim.place_objects(rng, frozenset(lying))
    has_open_drawer = rng.random() < OPEN_DRAWER_SHARE
    if skill == "close drawer" or (has_open_drawer and skill != "open drawer"):
        drawer, opening = int(rng.integers(2)), rng.uniform(*DRAWER_OPENING)
        if sim.num_drawers:
            sim.open_drawer(drawer, opening)
    tool = rng.uniform([*work.low[:2], work.low[2] + MIN_HEIGHT], work.high)
    sim.control.reset(tool, grip=float(rng.random() < CLOSED_GRIPPER_SHARE))
    mujoco.mj_step(sim.model, sim.data, SETTLING_SUBSTEPS)
