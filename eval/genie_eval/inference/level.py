"""All measurements on altered input, in one call."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int

from genie_eval.codes.transitions import Transitions
from genie_eval.collect import Trajectory
from genie_eval.inference.algebra import algebra
from genie_eval.inference.embeddings import embeddings
from genie_eval.inference.flips import nuisance_flip_rate
from genie_eval.inference.rendered import rendered_flips
from genie_eval.inference.sample import choose_sample
from genie_eval.inference.shortcuts import causality, identity, scene_cut
from genie_eval.inference.stability import stability
from genie_eval.metrics import Metric, plain

if TYPE_CHECKING:
    from genie_datasets import Split
    from genie_eval.interfaces import WorldModel


@dataclass(frozen=True)
class InferenceConfig:
    """Number of trajectories that are inferred again; costs are linear in each number."""

    trajectories: int = 60
    """Trajectories under every nuisance."""
    checks: int = 40
    """Trajectories for identity, reversal, additivity and embeddings."""
    cuts: int = 48
    """Trajectories with one scene cut each; a cut costs two dreams of one frame."""
    round_trips: int = 30
    """Trajectories through JPEG and the tokenizer."""
    rendered_trajectories: int = 12
    """Trajectories that a simulator renders again under each factor, where records keep its states."""
    second_frame_every: int = 10
    """One in this many transitions has a nuisance on its later frame only."""
    draws: int = 2000
    """Bootstrap draws of the flip rate."""
    full: bool = True
    """False: flip rate, identity and the causal check only."""

    @classmethod
    def quick(cls) -> "InferenceConfig":
        """The size for a demo: the headline metric and the two cheap checks."""
        return cls(trajectories=24, checks=24, second_frame_every=0, full=False)


def inference_details(
    genie: "WorldModel",
    split: "Split",
    trajectories: list[Trajectory],
    table: Transitions,
    codes: Int[np.ndarray, " M"],
    config: InferenceConfig | None = None,
    seed: int = 0,
    progress: bool = True,
) -> tuple[dict[str, Metric], dict[str, Any]]:
    """({"nuisance_flip_rate": Metric}, details).

    details: `nuisance` (by_nuisance, second_frame, rendered, identity), `leakage` (causality, scene_cut, embeddings),
    `algebra` (reversal, additivity), `stability`, and `seconds` by part; what cannot be measured holds a "reason".
    codes: `genie.infer_actions` of every whole trajectory.
    """
    config = config or InferenceConfig()
    seconds: dict[str, float] = {}

    def timed(name: str, part: Callable[[], Any]) -> Any:
        begun = time.perf_counter()
        found = part()
        seconds[name] = round(time.perf_counter() - begun, 2)
        return found

    sample = choose_sample(genie, split, trajectories, table, codes, config.checks, seed, progress)
    flipped = choose_sample(genie, split, trajectories, table, codes, config.trajectories, seed, progress)
    metric = timed("nuisances", lambda: nuisance_flip_rate(flipped, config.second_frame_every, config.draws))
    nuisance = {**metric.more, "identity": timed("identity", lambda: identity(sample))}
    leakage = {"causality": timed("causality", lambda: causality(sample))}
    details: dict[str, Any] = {"nuisance": nuisance, "leakage": leakage}
    if config.full:
        null_code = nuisance["identity"]["code"]
        nuisance["rendered"] = timed("rendered", lambda: rendered_flips(sample, config.rendered_trajectories))
        leakage["scene_cut"] = timed("scene cut", lambda: scene_cut(sample, config.cuts))
        leakage["embeddings"] = timed("embeddings", lambda: embeddings(sample))
        details["algebra"] = timed("algebra", lambda: algebra(sample, null_code))
        few = choose_sample(genie, split, trajectories, table, codes, config.round_trips, seed, progress)
        details["stability"] = timed("stability", lambda: stability(few))
    return {"nuisance_flip_rate": metric}, plain(details | {"seconds": seconds})
