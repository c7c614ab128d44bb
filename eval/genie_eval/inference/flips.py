"""`nuisance_flip_rate`: of the transitions seen again in other light, another colour, from beside ..., how many codes
change?

And the harder question beside it: what does a change that is no action (camera jerk, exposure step, a thing that
moves at the border) do to the code when only the later frame has it? (specification, level H)
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int

from genie_eval.codes.motion_statistics import MotionAssay
from genie_eval.codes.transitions import Transitions
from genie_eval.collect import Trajectory
from genie_eval.inference.nuisances import CONSISTENT, SECOND_FRAME
from genie_eval.inference.sample import Sample, choose_sample, pairs, share_of
from genie_eval.metric import Metric, plain
from genie_eval.verdicts import judge

if TYPE_CHECKING:
    from genie_datasets import Split

JITTER_PASS = 0.20  # of changes to the second frame
LEAST_NULL = 0.4  # twice the mark of failing: codes that vary less can hardly flip, which then proves nothing
ASSAY_DRAWS = 200  # of the consistency under each nuisance


@dataclass(frozen=True)
class FlipConfig:
    trajectories: int = 60
    """Trajectories that are seen again under every nuisance; the cost is linear in them. Fewer are "exploratory"."""
    every: int = 10
    """Of their transitions, one in so many is seen with a nuisance on the second frame only; 0: none."""


def nuisance_flip_rate(
    genie: Any,
    split: "Split",
    trajectories: list[Trajectory],
    table: Transitions,
    codes: Int[np.ndarray, " M"],
    config: FlipConfig | None = None,
    draws: int = 2000,
    seed: int = 0,
    progress: bool = True,
) -> Metric:
    """The metric on some of the evaluated trajectories. `codes`: `genie.infer_actions` of each whole trajectory.

    value: mean over the consistent nuisances of the share of codes that change; null: of codes that know nothing of
    the picture, 1 - sum p_k^2; oracle 0. more: `by_nuisance` {name: flip_rate, ci95, ami with the unaltered codes, and
    ctc and r2 of the altered codes where motion is known}, `reference` (ctc and r2 of the unaltered codes of the same
    trajectories), `ami_with_nuisance` (do the codes tell which nuisance it was? 0: no), `second_frame`.
    """
    config = config or FlipConfig()
    sample = choose_sample(genie, split, trajectories, table, codes, config.trajectories, seed, progress)
    altered = altered_codes(sample)
    return flip_metric(sample, altered, second_frame(sample, config.every) if config.every else {}, draws)


def altered_codes(sample: Sample) -> dict[str, Int[np.ndarray, " M"]]:
    """nuisance -> codes of the same transitions, inferred by the same windows from altered frames."""
    parts = []
    for i in sample.each("nuisances"):
        frames = sample.frames(i)
        changed = [change(frames, sample.rng(i, 1, n)) for n, change in enumerate(CONSISTENT.values())]
        parts.append(sample.infer(np.stack(changed)))
    return dict(zip(CONSISTENT, np.concatenate(parts, axis=1), strict=True))


def flip_metric(
    sample: Sample, altered: dict[str, Int[np.ndarray, " M"]], second: dict[str, Any], draws: int
) -> Metric:
    """Value, interval over trajectories, null and verdict of the altered codes."""
    table, codes, trajectories = sample.table, sample.codes, len(sample)
    flips = np.stack([new != codes for new in altered.values()])
    overall = share_of(flips.mean(axis=0), table.trajectory, trajectories, sample.seed, draws)
    shares = np.bincount(codes, minlength=sample.num_codes) / len(codes)
    metric = Metric(
        value=overall.value,
        null=float(1 - (shares**2).sum()),
        oracle=0.0,
        ci95=overall.ci95,
        n_trajectories=trajectories,
        lower_is_better=True,
        more=plain(_details(sample, altered, draws) | ({"second_frame": second} if second else {})),
    )
    return judge_flips(metric)


def _details(sample: Sample, altered: dict[str, np.ndarray], draws: int) -> dict[str, Any]:
    from sklearn.metrics import adjusted_mutual_info_score

    table, codes = sample.table, sample.codes
    usable = table.why_unusable("base") is None
    assay = MotionAssay(table, "base", sample.num_codes, ASSAY_DRAWS, sample.seed) if usable else None
    rows = {}
    for name, new in altered.items():
        flips = share_of(new != codes, table.trajectory, len(sample), sample.seed, draws)
        rows[name] = {
            "flip_rate": flips.value,
            "ci95": flips.ci95,
            "ami": adjusted_mutual_info_score(codes, new),
            **meaning(assay, new),
        }
    which = np.repeat(np.arange(len(altered)), len(codes))
    return {
        "by_nuisance": rows,
        "reference": meaning(assay, codes),
        "ami_with_nuisance": adjusted_mutual_info_score(which, np.concatenate(list(altered.values()))),
    }


def meaning(assay: MotionAssay | None, codes: Int[np.ndarray, " M"]) -> dict[str, Any]:
    """ctc (None where undefined), its interval, and r2 of codes; nothing where no motion is known."""
    if assay is None:
        return {}
    reading = assay.ctc(codes)
    return {"ctc": reading.value, "ctc_ci95": reading.ci95, "r2": assay.r2(codes)}


def second_frame(sample: Sample, every: int) -> dict[str, Any]:
    """What changes on the second frame alone do to codes of two-frame clips: name -> two shares with intervals.

    flip_rate: of real steps, codes that change. leaves_null: of steps on which nothing moves (the frame twice), codes
    that change; the specification's mark for both is .20.
    """
    flips: dict[str, list[np.ndarray]] = {name: [] for name in SECOND_FRAME}
    leaves: dict[str, list[np.ndarray]] = {name: [] for name in SECOND_FRAME}
    owner = []
    for i in sample.each("nuisances on one frame"):
        frames, at = sample.frames(i), sample.some(i, every)
        real, still = pairs(frames, at, at + 1), pairs(frames, at, at)
        clips = [real, still]
        for n, change in enumerate(SECOND_FRAME.values()):
            for clip in (real, still):
                rng = sample.rng(i, 2, n)  # the same draw on both
                clips.append(np.stack([change(pair, rng) for pair in clip]))
        before, at_rest, *after = sample.infer(np.concatenate(clips))[:, 0].reshape(len(clips), len(at))
        for name, moving, resting in zip(SECOND_FRAME, after[::2], after[1::2], strict=True):
            flips[name].append(moving != before)
            leaves[name].append(resting != at_rest)
        owner.append(np.full(len(at), i))
    trajectory = np.concatenate(owner)

    def reading(hits: list[np.ndarray]) -> Any:
        return share_of(np.concatenate(hits), trajectory, len(sample), sample.seed)

    rows = {}
    for name in SECOND_FRAME:
        flip, leave = reading(flips[name]), reading(leaves[name])
        rows[name] = {
            "flip_rate": flip.value, "ci95": flip.ci95,
            "leaves_null": leave.value, "leaves_null_ci95": leave.ci95,
            "pass": flip.value <= JITTER_PASS,
        }  # fmt: skip
    return rows


def judge_flips(metric: Metric) -> Metric:
    """Verdict and reason, with the nuisance that changes most. Codes that hardly vary are not praised for it."""
    also = []
    if metric.null is not None and metric.null < LEAST_NULL:
        also.append(f"the codes hardly vary: unrelated ones would change in only {metric.null:.2f} of the cases")
    judge("nuisance_flip_rate", metric, float(metric.value or 0.0), metric.ci95, also=also)  # type: ignore[arg-type]
    worst, row = max(metric.more["by_nuisance"].items(), key=lambda item: item[1]["flip_rate"])
    metric.reason += f"; most under '{worst}' ({row['flip_rate']:.2f})"
    return metric
