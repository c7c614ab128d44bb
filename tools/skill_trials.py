"""How often each scripted skill reaches its aim: `python -m tools.skill_trials [COUNT]`.

Skills act by physics alone, so they fail now and then; scenes are ones that nothing was tuned on.
"""

import sys

from genie_datasets.tabletop.episode import SKILL_SHARES, Episode, rollout
from genie_datasets.tabletop.factors import sample_scene
from genie_datasets.tabletop.simulator import Simulator

FIRST_SCENE = 40_000
LEAST_USABLE = 20  # at least one scene of so many must have what a skill needs


def trials(family: str, skill: str, count: int) -> list[Episode]:
    """`count` episodes that begin with `skill`, one a scene, without pictures. RuntimeError where scenes run out."""
    episodes: list[Episode] = []
    for seed in range(FIRST_SCENE, FIRST_SCENE + LEAST_USABLE * count):
        sim = Simulator(sample_scene(family, seed), None)
        if "drawer" in skill and not sim.num_drawers:
            continue
        episode = rollout(sim, seed, skill=skill)
        if episode.skill.startswith(skill):  # else nothing suited it, and the robot played
            episodes.append(episode)
        if len(episodes) == count:
            return episodes
    raise RuntimeError(f"{len(episodes)} episodes of {skill!r} in {LEAST_USABLE * count} scenes of {family}")


def main(count: int) -> None:
    print(f"| family | skill | reached its aim, of {count} |\n|---|---|---|")
    for family, shares in SKILL_SHARES.items():
        for skill in shares:
            if skill != "play":
                reached = sum(episode.success for episode in trials(family, skill, count))
                print(f"| {family} | {skill} | {reached} ({reached / count:.0%}) |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
