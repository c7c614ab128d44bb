"""Scripted behaviour: each skill is a generator of 7-D actions that watches the world as it goes."""

from collections.abc import Callable

from genie_datasets.tabletop.skills.drawers import close_drawer, open_drawer
from genie_datasets.tabletop.skills.grasping import move_near, pick, place, upright
from genie_datasets.tabletop.skills.play import play
from genie_datasets.tabletop.skills.pushing import knock, push, reach
from genie_datasets.tabletop.skills.world import Skill, World

SKILLS: dict[str, Callable[[World], Skill | None]] = {
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
"""Each starts one skill, or returns None where nothing on the table suits it."""

__all__ = ["SKILLS", "Skill", "World", "play"]
