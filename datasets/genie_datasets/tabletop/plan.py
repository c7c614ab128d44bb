"""The plan of a data set: splits, scenes and seeds of all episodes, before anything is simulated."""

import numpy as np

from genie_datasets.tabletop.factors import FAMILY_FACTORS, Factors
from genie_datasets.tabletop.worker import SCENES_KEPT, Job

SEED_STRIDE = 1_000_000  # data sets with different seeds share no scene or episode
EASY_SCENES = (5, SCENES_KEPT["easy"])  # smallest and largest number of scenes in `easy`
EPISODES_PER_EASY_SCENE = 12
EPISODES_PER_SCENE = 2  # in the other families


def apportion(total: int, fractions: list[float]) -> list[int]:
    """Divide `total` >= len(fractions) into integers of at least 1 in proportion to them (largest remainders)."""
    exact = np.array(fractions) / sum(fractions) * total
    counts = np.maximum(np.floor(exact).astype(int), 1)
    while counts.sum() < total:
        counts[int(np.argmax(exact - counts))] += 1
    while counts.sum() > total:
        counts[int(np.argmax(np.where(counts > 1, counts - exact, -np.inf)))] -= 1
    return counts.tolist()


def count_scenes(family: str, episodes: int, splits: int) -> int:
    """The default number of scenes: a few in `easy`, one per two episodes in the others, at least one per split."""
    if family == "easy":
        scenes = int(np.clip(episodes // EPISODES_PER_EASY_SCENE, *EASY_SCENES))
    else:
        scenes = episodes // EPISODES_PER_SCENE
    return int(np.clip(scenes, splits, episodes))


def plan(
    episodes: int,
    seed: int,
    size: tuple[int, int],
    splits: dict[str, float],
    family: str,
    factors: Factors | None = None,
    scenes: int | None = None,
) -> list[Job]:
    """List every episode of a data set, split by split. No scene is in two splits.

    Args:
        size: (height, width) of the frames.
        splits: name -> share of the episodes and of the scenes.
        factors: the default is the family's.
        scenes: number of scenes in all splits together; the default is `count_scenes`.
    """
    factors = FAMILY_FACTORS[family] if factors is None else factors
    fractions = list(splits.values())
    counts = apportion(episodes, fractions)
    scene_counts = apportion(scenes or count_scenes(family, episodes, len(splits)), fractions)
    jobs: list[Job] = []
    first_scene = 0
    for name, count, num_scenes in zip(splits, counts, scene_counts, strict=True):
        for k in range(count):
            # A few scenes take turns, so that every part of a file has all of them. Many scenes come one after another,
            # because a worker keeps only the latest ones compiled.
            take_turns = family == "easy" and num_scenes <= SCENES_KEPT["easy"]
            scene = first_scene + (k % num_scenes if take_turns else k * num_scenes // count)
            index = len(jobs)
            first_seed = seed * SEED_STRIDE
            jobs.append(Job(index, name, family, first_seed + scene, first_seed + index, size, factors))
        first_scene += num_scenes
    return jobs
