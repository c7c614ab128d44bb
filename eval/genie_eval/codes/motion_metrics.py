"""`grounding_r2` and `ctc` with null, oracle, interval and verdict."""

from typing import Any

import numpy as np
from jaxtyping import Int

from genie_eval.codes.motion_statistics import CtcReading, MotionStatistics
from genie_eval.codes.nulls import permuted_per_trajectory
from genie_eval.codes.quantize import quantize
from genie_eval.codes.transitions import Transitions
from genie_eval.metrics import MIN_CODE_CTC, P_GROUNDING, Metric, judge, plain, skill
from genie_eval.resampling import SWAPS, corrected_interval, one_sided_p, permutation_p

Codes = Int[np.ndarray, " M"]
MAX_UNJUDGED = 0.5  # share of the transitions that may have a code without a motion of its own
FEW_SWAPS = 99  # where only the mean over swaps is needed
REPEATS = 5  # random renamings for the null of CTC


def grounding_metric(
    statistics: MotionStatistics,
    codes: Codes,
    oracle: Codes,
    baselines: dict[str, Codes],
    swaps: int = SWAPS,
    name: str = "grounding_r2",
) -> Metric:
    """R2 of held-out code means, its skill, and paired comparisons with the learning-free baselines."""
    value, drawn, left_out = statistics.r2(codes), statistics.r2_draws(codes), statistics.r2_left_out(codes)
    best, best_drawn, best_left_out = statistics.r2(oracle), statistics.r2_draws(oracle), statistics.r2_left_out(oracle)
    swapped = {by: statistics.r2_swap_null(codes, swaps, by) for by in statistics.alignments}
    null = float(swapped["phase"].mean())
    metric = Metric(
        value=value, null=null, oracle=best, ci95=corrected_interval(value, drawn, left_out),
        p=max(permutation_p(value, shuffled) for shuffled in swapped.values()),
        n_trajectories=statistics.table.num_trajectories,
    )  # fmt: skip
    scale, scale_left_out = np.maximum(best_drawn - null, 1e-9), np.maximum(best_left_out - null, 1e-9)
    own_skill = (value - null) / max(best - null, 1e-9)
    skill_ci = corrected_interval(own_skill, (drawn - null) / scale, (left_out - null) / scale_left_out)
    against: dict[str, dict[str, Any]] = {}
    for other, other_codes in baselines.items():
        other_skill = skill(statistics.r2(other_codes), null, best)
        differences = (drawn - statistics.r2_draws(other_codes)) / scale
        differences_left_out = (left_out - statistics.r2_left_out(other_codes)) / scale_left_out
        if other_skill is not None and metric.skill is not None:
            difference = metric.skill - other_skill
            against[other] = {
                "skill": other_skill, "difference": difference,
                "ci95": corrected_interval(difference, differences, differences_left_out),
                "p": one_sided_p(differences),
            }  # fmt: skip
    glitches = statistics.table.glitches.get(statistics.motion, 0)
    metric.more |= {"skill_ci95": skill_ci, "against": against, "glitches": glitches}
    if metric.skill is None:
        metric.verdict = "warn"
        metric.reason = "not even k-means of the motion itself explains any of it in other trajectories"
        return metric
    missing = [
        f"not above {other} (skill difference {row['difference']:+.2f}, p = {row['p']:.3g})"
        for other, row in against.items()
        if row["p"] > P_GROUNDING
    ]
    missing += _not_above_swaps(metric)
    judge(name, metric, metric.skill, skill_ci, what="skill ", missing=missing)
    if glitches:
        metric.reason += f"; {glitches} transitions with a motion far beyond all others were clipped"
    return metric


def _not_above_swaps(metric: Metric) -> list[str]:
    if metric.p is None or metric.p <= P_GROUNDING:
        return []
    return [f"not significantly above codes swapped between trajectories (p = {metric.p:.3g})"]


def by_motion(
    table: Transitions, names: tuple[str, ...], codes: Codes, num_codes: int, draws: int, seed: int
) -> dict[str, Any]:
    """R2 and CTC of the same codes on other motions, each with its own swap null and its own k-means oracle."""
    rows: dict[str, Any] = {}
    for name in names:
        problem = table.why_unusable(name)
        if problem:
            if name in table.motions:
                rows[name] = {"value": None, "reason": problem}
            continue
        statistics = MotionStatistics(table, name, num_codes, draws, seed)
        oracle = quantize(statistics.values, table.trajectory, num_codes, seed=seed)
        value, best = statistics.r2(codes), statistics.r2(oracle)
        null = float(statistics.r2_swap_null(codes, FEW_SWAPS).mean())
        reading = statistics.ctc(codes)
        rows[name] = {
            "value": value, "null": null, "oracle": best, "skill": skill(value, null, best),
            "ci95": statistics.r2_interval(codes), "ctc": reading.value, "ctc_ci95": reading.ci95,
        }  # fmt: skip
    return plain(rows)


def ctc_metric(
    statistics: MotionStatistics, codes: Codes, oracle: Codes, swaps: int = SWAPS, name: str = "ctc"
) -> tuple[Metric, CtcReading]:
    """CTC of the codes; null: the same codes, renamed at random in every trajectory."""
    reading, best = statistics.ctc(codes), statistics.ctc(oracle)
    p = [
        permutation_p(statistics.across(codes), statistics.across_swap_null(codes, swaps, by))
        for by in statistics.alignments
    ]
    metric = Metric(
        value=reading.value, null=_ctc_null(statistics, codes, oracle), oracle=best.value, ci95=reading.ci95,
        p=max(p), n_trajectories=statistics.table.num_trajectories,
        more={
            "across": reading.across, "within": reading.within, "within_ci95": reading.within_ci95,
            "lag": reading.lag, "worst_code": None,
        },
    )  # fmt: skip
    if reading.value is None or reading.ci95 is None:
        not_measurable = reading.lag is None or not np.isfinite(reading.within)
        metric.verdict = "not run" if not_measurable else "fail"
        metric.reason = f"undefined: {reading.reason}"
        return metric, reading
    missing = []
    known = {k: v for k, v in enumerate(reading.code_values) if v is not None}
    if known:
        worst = min(known, key=known.__getitem__)
        metric.more["worst_code"] = {"code": worst, "value": known[worst], "ci95": reading.code_ci95[worst]}
        if known[worst] < MIN_CODE_CTC:
            missing.append(f"code {worst} alone reads {known[worst]:.2f}, below {MIN_CODE_CTC:.2f}")
    missing += _not_above_swaps(metric)
    unknown = [k for k, value in enumerate(reading.code_values) if value is None]
    unjudged = np.isin(codes, unknown).mean()
    if unjudged > MAX_UNJUDGED:
        missing.append(f"{unjudged:.0%} of the transitions have a code that cannot be judged")
    judge(name, metric, missing=missing)
    if unknown:
        names = ", ".join(map(str, unknown))
        metric.reason += f"; not judged, without a motion of their own: codes {names} ({unjudged:.0%} of transitions)"
    return metric, reading


def _ctc_null(statistics: MotionStatistics, codes: Codes, oracle: Codes) -> float | None:
    """Mean CTC of codes renamed at random in every trajectory; of the oracle's codes where the model's have none."""
    seeds = range(statistics.seed, statistics.seed + REPEATS)
    for source in (codes, oracle):
        renamed = (permuted_per_trajectory(source, statistics.table, statistics.num_codes, seed) for seed in seeds)
        found = [value for some in renamed if (value := statistics.ctc_value(some)) is not None]
        if found:
            return float(np.mean(found))
    return None
