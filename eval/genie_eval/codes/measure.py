"""All metrics that need codes and motion alone: of a model's codes, or of anyone's (`score`)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

from genie_eval.codes.baselines import Baseline, baseline_rows
from genie_eval.codes.codebook import codebook_perplexity
from genie_eval.codes.leakage import state_leak
from genie_eval.codes.motion_metrics import by_motion, ctc_metric, grounding_metric
from genie_eval.codes.motion_statistics import CtcReading, MotionStatistics
from genie_eval.codes.naming import name_codes
from genie_eval.codes.quantize import quantize
from genie_eval.codes.transitions import Transitions
from genie_eval.metrics import Metric, not_run
from genie_eval.resampling import DRAWS, SWAPS

LEARNING_FREE = ("flow_kmeans", "pca_kmeans")
OTHER_MOTIONS = ("image", "rotation", "gripper")  # under `grounding_r2.by_motion`
MOTION_WORDS = {
    "base": "3-D end-effector displacement in the base frame, measured, z-scored",
    "flow": "mean optical flow of the moving pixels (Farneback), z-scored; not true motion",
}
Codes = Int[np.ndarray, " M"]


@dataclass(frozen=True)
class StatisticsConfig:
    """Amount of resampling."""

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


def code_metrics(
    table: Transitions, codes: Codes, found: dict[str, Baseline], num_codes: int, config: StatisticsConfig
) -> tuple[dict[str, Metric], list[dict[str, Any]], list[dict[str, Any]]]:
    """(metrics of the codes alone, rows of the baselines, one object per code).

    found: `baselines` of these codes.
    """
    seed, draws = config.seed, config.draws
    oracle = found["oracle_motion"].codes
    metrics = {"codebook_perplexity": codebook_perplexity(codes, table.trajectory, num_codes, oracle, seed)}
    one_code = f"one code for everything: all {len(codes)} transitions have code {codes[0]}"
    statistics: dict[str, MotionStatistics] = {}
    readings: dict[str, CtcReading] = {}
    null, best_r2 = {}, {}
    for motion, suffix in (("base", ""), ("flow", "_flow")):
        grounding, ctc = names = (f"grounding{suffix}_r2", f"ctc{suffix}")
        problem = table.why_unusable(motion)
        if problem:
            metrics |= {name: not_run(problem) for name in names}
            continue
        own = statistics[suffix] = MotionStatistics(table, motion, num_codes, draws, seed)
        best = oracle
        if best is None or suffix:
            best = quantize(own.values, table.trajectory, num_codes, seed=seed)
        null[suffix], best_r2[suffix] = 0.0, own.r2(best)
        if codes.min() == codes.max():
            metrics |= {name: not_run(one_code) for name in names}
            continue
        metrics[grounding] = grounding_metric(own, codes, best, _rivals(found, suffix), config.swaps, grounding)
        metrics[ctc], readings[suffix] = ctc_metric(own, codes, best, config.swaps, ctc)
        null[suffix] = metrics[grounding].null or 0.0
        for name in names:
            metrics[name].more["motion"] = MOTION_WORDS[motion]
    if "" in readings:
        others = by_motion(table, OTHER_MOTIONS, codes, num_codes, draws, seed)
        metrics["grounding_r2"].more["by_motion"] = others
    metrics["state_leak"] = state_leak(table, codes, num_codes, draws, seed, oracle)
    rows = baseline_rows(found, statistics, null, best_r2, table.trajectory, num_codes, config.progress)
    cards = name_codes(table, codes, num_codes, draws, seed)
    for card in cards:
        k = card["code"]
        card["ctc"] = readings[""].code_values[k] if "" in readings else None
        card["ctc_ci95"] = readings[""].code_ci95[k] if "" in readings else None
        card["ctc_flow"] = readings["_flow"].code_values[k] if "_flow" in readings else None
    return metrics, rows, cards


def _rivals(found: dict[str, Baseline], suffix: str) -> dict[str, Codes]:
    """The learning-free baselines; k-means of flow is left out on flow, where it is nearly the oracle."""
    names = [name for name in LEARNING_FREE if not (suffix and name == "flow_kmeans")]
    return {name: rival for name in names if (rival := found[name].codes) is not None}
