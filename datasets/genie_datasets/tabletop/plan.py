"""Which episodes a data set consists of: splits, scenes and seeds, decided before anything is simulated."""

import numpy as np

from genie_datasets.tabletop.factors import FAMILY_FACTORS, Factors
from genie_datasets.tabletop.worker import SCENES_KEPT, Job

SEED_STRIDE = 1_000_000  # scenes and episodes of data sets with different seeds never coincide
EASY_SCENES = (5, SCENES_KEPT["easy"])  # fewest and most scenes of an `easy` data set
EPISODES_PER_EASY_SCENE = 12
EPISODES_PER_RT1_SCENE = 2


def share(total: int, fractions: list[float]) -> list[int]:
    """Whole numbers of at least 1 that add up to `total` and follow `fractions`: the largest remainders are rounded up.

    Needs total >= len(fractions).
    """
    exact = np.array(fractions) / sum(fractions) * total
    counts = np.maximum(np.floor(exact).astype(int), 1)
    while counts.sum() < total:
        counts[int(np.argmax(exact - counts))] += 1
    while counts.sum() > total:
        counts[int(np.argmax(np.where(counts > 1, counts - exact, -np.inf)))] -= 1
    return counts.tolist()


def count_scenes(family: str, episodes: int, splits: int) -> int:
    """How many scenes a data set has: a few in `easy`, one for every two episodes in `rt1`, at least one a split."""
    if family == "easy":
        wanted = int(np.clip(episodes // EPISODES_PER_EASY_SCENE, *EASY_SCENES))
    else:
        wanted = episodes // EPISODES_PER_RT1_SCENE
    return int(np.clip(wanted, splits, episodes))


def plan(
    episodes: int,
    seed: int,
    size: tuple[int, int],
    splits: dict[str, float],
    family: str,
    factors: Factors | None = None,
    scenes: int | None = None,
) -> list[Job]:
    """Every episode of a data set, split by split; no scene is in two splits.

    factors: the family's own unless given. scenes: how many in all splits together, instead of the family's way.
    """
    factors = FAMILY_FACTORS[family] if factors is None else factors
    fractions = list(splits.values())
    counts = share(episodes, fractions)
    scene_counts = share(scenes or count_scenes(family, episodes, len(splits)), fractions)
    jobs: list[Job] = []
    first_scene = 0
    for name, count, num_scenes in zip(splits, counts, scene_counts, strict=True):
        for k in range(count):
            # Few scenes take turns, so that every part of a file shows them all; many come one after another, because a
            # worker keeps only the last ones compiled.
            few = family == "easy" and num_scenes <= SCENES_KEPT["easy"]
            scene = first_scene + (k % num_scenes if few else k * num_scenes // count)
            number = len(jobs)
            base = seed * SEED_STRIDE
            jobs.append(Job(number, name, family, base + scene, base + number, size, factors))
        first_scene += num_scenes
    return jobs
