"""All metrics that need nothing but codes and motion: of a model's codes, or of anyone's (`score`)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

from genie_eval.codes.baselines import Rung, ladder
from genie_eval.codes.codebook import codebook_perplexity
from genie_eval.codes.leakage import state_leak
from genie_eval.codes.motion_metrics import by_motion, ctc_metric, grounding_metric
from genie_eval.codes.motion_statistics import CtcReading, MotionAssay
from genie_eval.codes.naming import name_codes
from genie_eval.codes.quantize import quantise
from genie_eval.codes.transitions import Transitions
from genie_eval.metric import Metric, not_run
from genie_eval.resampling import DRAWS, SWAPS

BASELINES = ("pca_kmeans", "flow_kmeans")
BESIDE = ("image", "rotation", "gripper")  # other motions under `by_motion`
Codes = Int[np.ndarray, " M"]


@dataclass(frozen=True)
class StatisticsConfig:
    """How much is resampled."""

    draws: int = DRAWS
    """Bootstrap draws."""
    swaps: int = SWAPS
    """Whole-trajectory swaps of the permutation tests."""
    seed: int = 0
    progress: bool = True

    @classmethod
    def of(cls, config: Any) -> "StatisticsConfig":
        """The fields of the same names of another configuration."""
        return cls(config.draws, config.swaps, config.seed, config.progress)


MOTION_WORDS = {
    "base": "3-D end-effector displacement in the base frame, measured, z-scored",
    "flow": "mean optical flow of the moving pixels (Farneback), z-scored; not true motion",
}


def code_metrics(
    table: Transitions, codes: Codes, found: list[Rung], num_codes: int, config: StatisticsConfig
) -> tuple[dict[str, Metric], list[dict[str, Any]], list[dict[str, Any]]]:
    """Metrics of the codes alone, the ladder, and the card of each code."""
    seed, draws = config.seed, config.draws
    by_name = {rung.name: rung.codes for rung in found}
    oracle = by_name["oracle_motion"]
    metrics = {"codebook_perplexity": codebook_perplexity(codes, table.trajectory, num_codes, oracle, seed)}
    baselines = {rung.name: rung.codes for rung in found if rung.name in BASELINES and rung.codes is not None}
    one_code = f"one code for everything: all {len(codes)} transitions have code {codes[0]}"
    assays: dict[str, MotionAssay] = {}
    readings: dict[str, CtcReading] = {}
    null, best_r2 = {}, {}
    for motion, suffix in (("base", ""), ("flow", "_flow")):
        grounding, consistent = names = (f"grounding{suffix}_r2", f"ctc{suffix}")
        problem = table.why_unusable(motion)
        if problem:
            metrics |= {name: not_run(problem) for name in names}
            continue
        assay = assays[suffix] = MotionAssay(table, motion, num_codes, draws, seed)
        best = oracle
        if best is None or suffix:
            best = quantise(assay.values, table.trajectory, num_codes, seed=seed)
        # against flow, k-means of flow is (nearly) the oracle and no rival
        rivals = {name: rival for name, rival in baselines.items() if not (suffix and name == "flow_kmeans")}
        null[suffix], best_r2[suffix] = 0.0, assay.r2(best)
        if codes.min() == codes.max():
            metrics |= {name: not_run(one_code) for name in names}
            continue
        metrics[grounding] = grounding_metric(assay, codes, best, rivals, config.swaps)
        metrics[consistent], readings[suffix] = ctc_metric(assay, codes, best, config.swaps)
        null[suffix] = metrics[grounding].null or 0.0
        for name in names:
            metrics[name].more["motion"] = MOTION_WORDS[motion]
    if "" in readings:
        beside = by_motion(table, list(BESIDE), codes, num_codes, draws, seed)
        metrics["grounding_r2"].more["by_motion"] = beside
    metrics["state_leak"] = state_leak(table, codes, num_codes, draws, seed, oracle)
    rows = ladder(found, assays, null, best_r2, table.trajectory, num_codes, config.progress)
    cards = name_codes(table, codes, num_codes, draws, seed)
    for card in cards:
        k = card["code"]
        card["ctc"] = readings[""].code_values[k] if "" in readings else None
        card["ctc_ci95"] = readings[""].code_ci95[k] if "" in readings else None
        card["ctc_flow"] = readings["_flow"].code_values[k] if "_flow" in readings else None
    return metrics, rows, cards
