"""The marks, frozen before any trained model was looked at, and the one place where a verdict is given."""

from dataclasses import dataclass

from genie_eval.metric import Metric

FEW = 200  # trajectories; with fewer the result is called exploratory
FEW_STARTS = 64  # of dreams that are played on purpose, each from a trajectory of its own


@dataclass(frozen=True)
class Mark:
    """At `good` a metric passes, beyond `bad` it fails, between them it warns. Less is better where good < bad.

    low: asked of the worse end of the interval. few: units below which a result is exploratory.
    """

    good: float
    bad: float
    low: float | None = None
    few: int = FEW
    units: str = "trajectories"

    @property
    def less_is_better(self) -> bool:
        return self.good < self.bad


MARKS = {
    "codebook_perplexity": Mark(good=5.0, bad=3.0),
    "grounding_r2": Mark(good=0.60, bad=0.30, low=0.50),  # of the skill, not of R2
    "ctc": Mark(good=0.80, bad=0.40, low=0.70),
    "delta_psnr_t4": Mark(good=1.0, bad=0.5),  # dB
    "action_attributable_fraction": Mark(good=0.40, bad=0.20),
    "sequence_consistency": Mark(good=0.70, bad=0.35, few=FEW_STARTS, units="starts"),
    "sequence_consistency_flow": Mark(good=0.70, bad=0.35, few=FEW_STARTS, units="starts"),
    "command_bits": Mark(good=1.4, bad=0.7, few=FEW_STARTS, units="starts"),
    "command_bits_physical": Mark(good=1.0, bad=0.5, few=FEW_STARTS, units="starts"),
    "counterfactual_id": Mark(good=0.60, bad=0.30, low=0.50, few=FEW_STARTS, units="starts"),
    "state_leak": Mark(good=0.15, bad=0.30),
    "nuisance_flip_rate": Mark(good=0.10, bad=0.20, few=60),
}
DEAD_CODE = 0.01  # share of transitions below which a code is dead
MAX_SHARE = 0.40  # of one code
MIN_CODE_CTC = 0.60
P_GROUNDING = 0.01
CROSS_FITTED = ("grounding_r2", "ctc")  # their intervals were checked down to so many trajectories, and no further
CALIBRATED_FROM = 40


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
    mark, missing = MARKS[name], list(also or [])
    few, sign = (metric.n_trajectories or 0) < mark.few, -1 if mark.less_is_better else 1
    good = sign * score >= sign * mark.good
    verdict = "pass" if good else "fail" if sign * score < sign * mark.bad else "warn"
    reached = ("is within" if good else "is above") if mark.less_is_better else ("reaches" if good else "is below")
    reasons = [f"{what}{score:.2f}{unit} {reached} the mark of {mark.good:.2f}{unit}"]
    if few:
        reasons.insert(0, f"exploratory: {metric.n_trajectories} {mark.units}, fewer than {mark.few}")
    if verdict == "pass":
        low = mark.good if few and mark.low is None else mark.low
        worse = None if score_ci is None else score_ci[1 if mark.less_is_better else 0]
        if worse is not None and low is not None and sign * worse < sign * low:
            ends, beyond = ("ends", "above") if mark.less_is_better else ("begins", "below")
            missing.append(f"its interval {ends} at {worse:.2f}{unit}, {beyond} {low:.2f}{unit}")
        if name in CROSS_FITTED and (metric.n_trajectories or 0) < CALIBRATED_FROM:
            missing.append("with so few trajectories at most a warning")
        verdict = "warn" if missing else "pass"
    metric.verdict, metric.reason = verdict, "; ".join(reasons + missing)
    return metric
