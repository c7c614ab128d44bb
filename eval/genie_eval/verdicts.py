"""The marks, frozen before any trained model was looked at, and the one place where a verdict is given."""

from dataclasses import dataclass

from genie_eval.metric import Metric

FEW = 200  # trajectories; with fewer the result is called exploratory


@dataclass(frozen=True)
class Mark:
    """At `good` a metric passes, below `bad` it fails, between them it warns. `low` is asked of the interval's end."""

    good: float
    bad: float
    low: float | None = None


MARKS = {
    "codebook_perplexity": Mark(good=5.0, bad=3.0),
    "grounding_r2": Mark(good=0.60, bad=0.30, low=0.50),  # of the skill, not of R2
    "ctc": Mark(good=0.80, bad=0.40, low=0.70),
    "delta_psnr_t4": Mark(good=1.0, bad=0.5),  # dB
    "action_attributable_fraction": Mark(good=0.40, bad=0.20),
}
DEAD_CODE = 0.01  # share of transitions below which a code is dead
MAX_SHARE = 0.40  # of one code
MIN_CODE_CTC = 0.60
P_GROUNDING = 0.01
CROSS_FITTED = ("grounding_r2", "ctc")  # their intervals are too narrow with few trajectories


def judge(
    name: str,
    metric: Metric,
    score: float,
    score_ci: tuple[float, float] | None,
    unit: str = "",
    what: str = "",
    also: list[str] | None = None,
) -> Metric:
    """Sets verdict and reason of `metric` from `score` (its value or its skill) and the marks.

    what: names the score where it is not the value.
    also: what else the protocol asks for a pass and did not find; any of it turns a pass into a warning.
    """
    mark, few, missing = MARKS[name], (metric.n_trajectories or 0) < FEW, list(also or [])
    verdict = "pass" if score >= mark.good else "fail" if score < mark.bad else "warn"
    reached = "reaches" if verdict == "pass" else "is below"
    reasons = [f"{what}{score:.2f}{unit} {reached} the mark of {mark.good:.2f}{unit}"]
    if few:
        reasons.insert(0, f"exploratory: {metric.n_trajectories} trajectories, fewer than {FEW}")
    if verdict == "pass":
        low = mark.good if few and mark.low is None else mark.low
        if score_ci is not None and low is not None and score_ci[0] < low:
            missing.append(f"its interval begins at {score_ci[0]:.2f}{unit}, below {low:.2f}{unit}")
        if few and name in CROSS_FITTED:
            missing.append("with so few trajectories at most a warning")
        verdict = "warn" if missing else "pass"
    metric.verdict, metric.reason = verdict, "; ".join(reasons + missing)
    return metric
