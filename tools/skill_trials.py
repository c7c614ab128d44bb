"""Measure how often each scripted skill achieves its goal: `python -m tools.skill_trials [COUNT]`."""

import sys

from genie_datasets.tabletop.episode import SKILL_SHARES, Episode, rollout
from genie_datasets.tabletop.factors import sample_scene
from genie_datasets.tabletop.simulator import Simulator

FIRST_SCENE = 40_000  # the skills were not tuned on scenes from here on
MAX_SCENES_PER_TRIAL = 20  # some scenes do not allow a skill


def trials(family: str, skill: str, count: int) -> list[Episode]:
    """Simulate `count` episodes that start with `skill`, one per scene, without frames.

    Raises RuntimeError if too few scenes allow the skill.
    """
    episodes: list[Episode] = []
    for seed in range(FIRST_SCENE, FIRST_SCENE + MAX_SCENES_PER_TRIAL * count):
        sim = Simulator(sample_scene(family, seed), None)
        if "drawer" in skill and not sim.num_drawers:
            continue
        episode = rollout(sim, seed, skill=skill)
        if episode.skill.startswith(skill):  # otherwise the scene did not allow it, and the robot played
            episodes.append(episode)
        if len(episodes) == count:
            return episodes
    scenes = MAX_SCENES_PER_TRIAL * count
    raise RuntimeError(f"only {len(episodes)} of {scenes} scenes of {family} allow the skill {skill!r}, need {count}")


def main(count: int) -> None:
    print(f"| family | skill | achieved, of {count} |\n|---|---|---|")
    for family, shares in SKILL_SHARES.items():
        for skill in shares:
            if skill != "play":
                achieved = sum(episode.success for episode in trials(family, skill, count))
                print(f"| {family} | {skill} | {achieved} ({achieved / count:.0%}) |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
