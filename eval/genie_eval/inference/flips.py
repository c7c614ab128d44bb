"""`nuisance_flip_rate`: share of codes that change when a trajectory is seen in other light, color, or from aside.

Beside it the harder case (level H): a change that is not an action (camera jerk, exposure step, something that moves at
the border) on the later frame only.
"""

from typing import Any

import numpy as np
from jaxtyping import Int

from genie_eval.codes.motion_statistics import MotionStatistics
from genie_eval.inference.nuisances import CONSISTENT, SECOND_FRAME
from genie_eval.inference.sample import Sample, pairs, share_of
from genie_eval.metrics import Metric, judge, plain

SECOND_FRAME_MARK = 0.20  # largest flip rate under changes of the later frame
MIN_NULL = 0.4  # twice the mark of failing; codes that vary less can hardly flip, which then proves nothing
CTC_DRAWS = 200  # bootstrap draws of the consistency under each nuisance


def nuisance_flip_rate(sample: Sample, every: int, draws: int) -> Metric:
    """The metric with its verdict. Codes that hardly vary do not pass: they can hardly flip.

    every: one in this many transitions has a nuisance on the later frame only; 0: none.

    value: mean over the consistent nuisances of the share of codes that change. null: 1 - sum p_k^2, of codes that are
    unrelated to the picture. oracle: 0. more: `by_nuisance` {name: flip_rate, ci95, ami with the unaltered codes, and
    ctc and r2 of the altered codes where motion is known}, `reference` (ctc and r2 of the unaltered codes of the same
    trajectories), `ami_with_nuisance` (AMI of codes and nuisance; 0: the codes do not reveal it), `second_frame`.
    """
    altered, codes = altered_codes(sample), sample.codes
    flips = np.stack([new != codes for new in altered.values()])
    overall = share_of(flips.mean(axis=0), sample.table.trajectory, len(sample), sample.seed, draws)
    shares = np.bincount(codes, minlength=sample.num_codes) / len(codes)
    null = float(1 - (shares**2).sum())
    more = _details(sample, altered, draws) | ({"second_frame": second_frame(sample, every)} if every else {})
    metric = Metric(overall.value, null, 0.0, overall.ci95, n_trajectories=len(sample), more=plain(more))
    missing = []
    if null < MIN_NULL:
        missing.append(f"the codes hardly vary: unrelated ones would change in only {null:.2f} of the cases")
    judge("nuisance_flip_rate", metric, missing=missing)
    worst, row = max(metric.more["by_nuisance"].items(), key=lambda item: item[1]["flip_rate"])
    metric.reason += f"; most under '{worst}' ({row['flip_rate']:.2f})"
    return metric


def altered_codes(sample: Sample) -> dict[str, Int[np.ndarray, " M"]]:
    """nuisance -> codes of the same transitions, inferred from altered frames."""
    parts = []
    for i in sample.each("nuisances"):
        frames = sample.frames(i)
        changed = [change(frames, sample.rng(i, 1, n)) for n, change in enumerate(CONSISTENT.values())]
        parts.append(sample.infer(np.stack(changed)))
    return dict(zip(CONSISTENT, np.concatenate(parts, axis=1), strict=True))


def _details(sample: Sample, altered: dict[str, np.ndarray], draws: int) -> dict[str, Any]:
    from sklearn.metrics import adjusted_mutual_info_score

    table, codes = sample.table, sample.codes
    usable = table.why_unusable("base") is None
    statistics = MotionStatistics(table, "base", sample.num_codes, CTC_DRAWS, sample.seed) if usable else None
    rows = {}
    for name, new in altered.items():
        flips = share_of(new != codes, table.trajectory, len(sample), sample.seed, draws)
        ami = adjusted_mutual_info_score(codes, new)
        rows[name] = {"flip_rate": flips.value, "ci95": flips.ci95, "ami": ami, **_meaning(statistics, new)}
    which = np.repeat(np.arange(len(altered)), len(codes))
    return {
        "by_nuisance": rows,
        "reference": _meaning(statistics, codes),
        "ami_with_nuisance": adjusted_mutual_info_score(which, np.concatenate(list(altered.values()))),
    }


def _meaning(statistics: MotionStatistics | None, codes: Int[np.ndarray, " M"]) -> dict[str, Any]:
    """ctc (None where undefined), its interval, and r2 of codes; empty where no motion is known."""
    if statistics is None:
        return {}
    reading = statistics.ctc(codes)
    return {"ctc": reading.value, "ctc_ci95": reading.ci95, "r2": statistics.r2(codes)}


def second_frame(sample: Sample, every: int) -> dict[str, Any]:
    """Effect of changes to the later frame on the codes of two-frame clips: name -> two shares with intervals.

    flip_rate: share of real steps whose code changes. leaves_null: share of still steps (the frame twice) whose code
    changes. The mark of both is 0.20.
    """
    hits, owner = [], []
    for i in sample.each("nuisances on one frame"):
        frames, at = sample.frames(i), sample.some(i, every)
        real, still = pairs(frames, at, at + 1), pairs(frames, at, at)
        clips = [real, still]
        for n, change in enumerate(SECOND_FRAME.values()):
            for clip in (real, still):
                rng = sample.rng(i, 2, n)  # the same draw on both
                clips.append(np.stack([change(pair, rng) for pair in clip]))
        unchanged, *changed = sample.infer(np.concatenate(clips))[:, 0].reshape(-1, 2, len(at))  # (real or still, n)
        hits.append(np.stack(changed) != unchanged)
        owner.append(np.full(len(at), i))
    trajectory, rows = np.concatenate(owner), {}
    for name, both in zip(SECOND_FRAME, np.concatenate(hits, axis=2), strict=True):
        flip, leave = (share_of(one, trajectory, len(sample), sample.seed) for one in both)
        rows[name] = {
            "flip_rate": flip.value, "ci95": flip.ci95,
            "leaves_null": leave.value, "leaves_null_ci95": leave.ci95,
            "pass": flip.value <= SECOND_FRAME_MARK,
        }  # fmt: skip
    return rows
