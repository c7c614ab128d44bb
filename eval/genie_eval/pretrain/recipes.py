"""How the worlds that come with the package are made: data, steps, seeds, evaluation. `pretrain` follows them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from genie_datasets.base.errors import UserError
from genie_eval.dreams.control import ControlConfig
from genie_eval.dreams.horizon import HorizonConfig
from genie_eval.inference.level import InferenceConfig
from genie_eval.results import EvaluationConfig


@dataclass(frozen=True)
class TabletopSet:
    """A data set of `genie-robotics data tabletop`."""

    seed: int
    """Data sets of different seeds share no scene and no episode."""
    episodes: Mapping[str, int]
    """Of each split; no scene is in two of them."""
    family: str = "easy"
    scenes: int | None = None
    """How many there are in all; None: the family's own."""


@dataclass(frozen=True)
class Recipe:
    name: str
    preset: str
    data: TabletopSet
    """Its `train` split trains world and judge."""
    test: TabletopSet
    """Its `test` split is looked at once, for the report: scenes of a seed of their own."""
    steps: Mapping[str, int]
    """Optimizer steps of each stage; a stage that the preset's mode does not have is not trained."""
    judge_steps: int
    """Of the judge's latent action model."""
    set: Mapping[str, Any] = field(default_factory=dict)
    """Dotted fields of the model that differ from the preset's."""
    seed: int = 0
    judge_seed: int = 1
    clip_length: int | None = None
    """None: the preset's."""
    clips: int = 64
    """Training clips on which the effect of 16-bit weights is measured."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    smoke: bool = False
    """The figures mean nothing; the card says so."""


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="nano-tabletop",
            preset="nano",
            data=TabletopSet(seed=5000, episodes={"train": 3000}, scenes=500),
            test=TabletopSet(seed=3000, episodes={"test": 240}, scenes=60),  # 2000: what we looked at on the way
            steps={"tokenizer": 5000, "latent_action": 3000, "dynamics": 5500},
            judge_steps=3000,
            set={"dynamics.past": "whole"},
        ),
    )
}


def recipe(name: str) -> Recipe:
    """Raises UserError that lists the names."""
    if name not in RECIPES:
        raise UserError(f"no recipe for a world '{name}'; there are: {', '.join(RECIPES)}")
    return RECIPES[name]


def smoke(full: Recipe) -> Recipe:
    """The same in a minute: everything is gone through, nothing is learnt."""
    return replace(
        full,
        data=replace(full.data, episodes={"train": 4}, scenes=None),
        test=replace(full.test, episodes={"test": 3}, scenes=None),
        steps=dict.fromkeys(full.steps, 6),
        judge_steps=6,
        clip_length=4,
        clips=4,
        evaluation=EvaluationConfig(
            trajectories=3, clips=3, starts=2, size="quick", draws=50, swaps=19, train_trajectories=4,
            control=ControlConfig(starts=3, steps=2, pairs=0, triples=0, sampled_starts=1),
            horizon=HorizonConfig(clips=0), inference=InferenceConfig.quick(),
        ),
        smoke=True,
    )  # fmt: skip
