"""Scripted skills: each is a generator of 7-D actions that observes the simulation as it runs."""

from collections.abc import Callable

from genie_datasets.tabletop.skills.drawers import close_drawer, open_drawer
from genie_datasets.tabletop.skills.grasping import move_near, pick, place, upright
from genie_datasets.tabletop.skills.play import play
from genie_datasets.tabletop.skills.primitives import Skill, Workspace
from genie_datasets.tabletop.skills.pushing import knock, push, reach

SKILLS: dict[str, Callable[[Workspace], Skill | None]] = {
    "play": play,
    "reach": reach,
    "pick": pick,
    "place": place,
    "push": push,
    "move near": move_near,
    "open drawer": open_drawer,
    "close drawer": close_drawer,
    "place upright": upright,
    "knock over": knock,
}
"""Name -> function that starts the skill, or returns None if the scene does not allow it."""

__all__ = ["SKILLS", "Skill", "Workspace", "play"]
