"""`grounding_r2` and `ctc` as the report has them: beside null and oracle, judged, with what stands beside them."""

from typing import Any

import numpy as np
from jaxtyping import Int

from genie_eval.codes.motion_statistics import CtcReading, MotionAssay
from genie_eval.codes.nulls import permuted_per_trajectory
from genie_eval.codes.quantize import quantise
from genie_eval.codes.transitions import Transitions
from genie_eval.metric import Metric, plain, skill
from genie_eval.resampling import SWAPS, corrected_interval, one_sided_p, permutation_p
from genie_eval.verdicts import MIN_CODE_CTC, P_GROUNDING, judge

Codes = Int[np.ndarray, " M"]
MOST_UNJUDGED = 0.5  # share of transitions whose code has no motion of its own to judge
FEW_SWAPS = 99  # where a swap is only needed for its mean
REPEATS = 5  # private dictionaries drawn for the null of CTC


def grounding_metric(
    assay: MotionAssay, codes: Codes, oracle: Codes, baselines: dict[str, Codes], swaps: int = SWAPS
) -> Metric:
    """R2 of held-out code means, its oracle skill, and the paired comparison with learning-free baselines."""
    value, drawn, left_out = assay.r2(codes), assay.r2_draws(codes), assay.r2_left_out(codes)
    best, best_drawn, best_left_out = assay.r2(oracle), assay.r2_draws(oracle), assay.r2_left_out(oracle)
    swapped = {by: assay.r2_swap_null(codes, swaps, by) for by in assay.alignments}
    null = float(swapped["phase"].mean())
    metric = Metric(
        value=value, null=null, oracle=best, ci95=corrected_interval(value, drawn, left_out),
        p=max(permutation_p(value, drawn) for drawn in swapped.values()), n_trajectories=assay.table.num_trajectories,
    )  # fmt: skip
    scale, scale_left_out = np.maximum(best_drawn - null, 1e-9), np.maximum(best_left_out - null, 1e-9)
    own_skill = (value - null) / max(best - null, 1e-9)
    skill_ci = corrected_interval(own_skill, (drawn - null) / scale, (left_out - null) / scale_left_out)
    metric.more["skill_ci95"] = skill_ci
    against: dict[str, dict[str, Any]] = {}
    for other, other_codes in baselines.items():
        other_skill = skill(assay.r2(other_codes), null, best)
        differences = (drawn - assay.r2_draws(other_codes)) / scale
        differences_left_out = (left_out - assay.r2_left_out(other_codes)) / scale_left_out
        if other_skill is not None and metric.skill is not None:
            difference = metric.skill - other_skill
            against[other] = {
                "skill": other_skill, "difference": difference,
                "ci95": corrected_interval(difference, differences, differences_left_out),
                "p": one_sided_p(differences),
            }  # fmt: skip
    metric.more["against"] = against
    metric.more["glitches"] = glitches = assay.table.drawn_in.get(assay.motion, 0)
    if metric.skill is None:
        metric.verdict, metric.reason = (
            "warn",
            "even k-means of the motion itself tells nothing of it in other trajectories",
        )
        return metric
    also = [
        f"not above {other} (skill difference {row['difference']:+.2f}, p = {row['p']:.3g})"
        for other, row in against.items()
        if row["p"] > P_GROUNDING
    ]
    if metric.p is not None and metric.p > P_GROUNDING:
        also.append(f"swapping trajectories reads as much (p = {metric.p:.3g})")
    judge("grounding_r2", metric, metric.skill, (skill_ci[0], skill_ci[1]), what="skill ", also=also)
    if glitches:
        metric.reason += f"; {glitches} transitions with a motion far beyond all others were drawn in"
    return metric


def by_motion(
    table: Transitions, names: list[str], codes: Codes, num_codes: int, draws: int, seed: int
) -> dict[str, Any]:
    """R2 and CTC of the same codes on other motions, each beside its own swap null and its own k-means oracle."""
    rows: dict[str, Any] = {}
    for name in names:
        problem = table.why_unusable(name)
        if problem:
            if name in table.motions:
                rows[name] = {"value": None, "reason": problem}
            continue
        assay = MotionAssay(table, name, num_codes, draws, seed)
        oracle = quantise(assay.values, table.trajectory, num_codes, seed=seed)
        value, best = assay.r2(codes), assay.r2(oracle)
        null = float(assay.r2_swap_null(codes, FEW_SWAPS).mean())
        reading = assay.ctc(codes)
        rows[name] = {
            "value": value, "null": null, "oracle": best, "skill": skill(value, null, best),
            "ci95": assay.r2_interval(codes), "ctc": reading.value, "ctc_ci95": reading.ci95,
        }  # fmt: skip
    return plain(rows)


def ctc_metric(assay: MotionAssay, codes: Codes, oracle: Codes, swaps: int = SWAPS) -> tuple[Metric, CtcReading]:
    """CTC of the model's codes; null: the same codes through a private dictionary for every trajectory."""
    reading, best = assay.ctc(codes), assay.ctc(oracle)
    metric = Metric(
        value=reading.value, null=_private_dictionaries(assay, codes, oracle), oracle=best.value, ci95=reading.ci95,
        p=max(
            permutation_p(assay.across(codes), assay.across_swap_null(codes, swaps, by)) for by in assay.alignments
        ),
        n_trajectories=assay.table.num_trajectories,
        more={
            "across": reading.across, "within": reading.within, "within_ci95": reading.within_ci95,
            "lag": reading.lag, "worst_code": None,
        },
    )  # fmt: skip
    if reading.value is None or reading.ci95 is None:
        never_asked = reading.lag is None or not np.isfinite(reading.within)
        metric.verdict = "not run" if never_asked else "fail"
        metric.reason = f"undefined: {reading.reason}"
        return metric, reading
    also = []
    known = {k: v for k, v in enumerate(reading.code_values) if v is not None}
    if known:
        worst = min(known, key=known.__getitem__)
        metric.more["worst_code"] = {"code": worst, "value": known[worst], "ci95": reading.code_ci95[worst]}
        if known[worst] < MIN_CODE_CTC:
            also.append(f"code {worst} alone reads {known[worst]:.2f}, below {MIN_CODE_CTC:g}")
    if metric.p is not None and metric.p > P_GROUNDING:
        also.append(f"swapping trajectories reads as much (p = {metric.p:.3g})")
    unknown = [k for k, value in enumerate(reading.code_values) if value is None]
    unjudged = np.isin(codes, unknown).mean()
    if unjudged > MOST_UNJUDGED:
        also.append(f"{unjudged:.0%} of transitions have a code that cannot be judged")
    judge("ctc", metric, reading.value, (reading.ci95[0], reading.ci95[1]), also=also)
    if unknown:
        names = ", ".join(map(str, unknown))
        metric.reason += f"; no motion of their own to judge: code {names} ({unjudged:.0%} of transitions)"
    return metric, reading


def _private_dictionaries(assay: MotionAssay, codes: Codes, oracle: Codes) -> float | None:
    """Mean CTC when every trajectory has a dictionary of its own; of the oracle's codes where the model's have none."""
    for source in (codes, oracle):
        values = []
        for repeat in range(REPEATS):
            shuffled = permuted_per_trajectory(source, assay.table, assay.num_codes, assay.seed + repeat)
            values.append(assay.ctc_value(shuffled))
        found = [v for v in values if v is not None]
        if found:
            return float(np.mean(found))
    return None
