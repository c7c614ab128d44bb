"""Error of the motion read-out on the tokenizer's reconstructions of held-out trajectories, and its calibration.

`dream_motion` compares displacements read from dreams of recorded clips with the truth.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from genie_eval.collect import Trajectory
from genie_eval.dreams.generation import DreamSet
from genie_eval.dreams.readout import Readout
from genie_eval.metrics import Metric

if TYPE_CHECKING:
    from genie_datasets import Split

JUDGED_STEPS = 5  # reliability and verdicts refer to displacements over so many steps
GAPS = (1, 2, 3, 5, 8)  # steps between the two frames of a displacement
RELIABLE = 0.90  # R2 below which a metric that uses the read-out gets at most a warning
MAX_ABSTAINED = 0.25  # share of dreams for a pass; the others may be the better ones
PRESENCE_QUANTILE = 0.01  # of the presence logit on reconstructions; a dream below it (and below 0) is dissolved
DEAD_BAND = 0.5  # SD of displacement; sign accuracy counts larger ones only


@dataclass(frozen=True)
class ReadoutError:
    """Error of displacements. by_gap[g]: readings over g steps; noise[g]: (3,) variance of the error, square meters."""

    reliability: float  # R2 over `gap` steps, mean over the axes of the base frame
    gap: int
    by_gap: dict[int, dict[str, Any]]
    noise: dict[int, Float[np.ndarray, " 3"]]
    errors_mm: Float[np.ndarray, " n"]  # length of the error of each displacement over `gap` steps
    moved_mm: Float[np.ndarray, " n"]  # length of the true displacement

    def as_json(self) -> dict[str, Any]:
        return {
            "reliability": self.reliability, "judged_at_steps": self.gap, "reliable_from": RELIABLE,
            "by_gap": {str(gap): row for gap, row in self.by_gap.items()},
        }  # fmt: skip

    @property
    def reliable(self) -> bool:
        return self.reliability >= RELIABLE

    @property
    def rms_error(self) -> float:
        """RMS length of the error over `gap` steps, meters."""
        return self.by_gap[self.gap]["rms_error_mm"] / 1000

    def limit_verdict(self, metric: Metric) -> Metric:
        """Turns a pass into a warning where the read-out is not reliable."""
        if not self.reliable:
            metric.reason += (
                f"; the read-out explains {self.reliability:.2f} of true displacement over {self.gap} steps, "
                f"below {RELIABLE:.2f}: at most a warning"
            )
            metric.verdict = "warn" if metric.verdict == "pass" else metric.verdict
        return metric


def clip_truth(
    split: "Split", trajectories: list[Trajectory], dreams: DreamSet, columns: dict[str, slice]
) -> Float[np.ndarray, "C n+1 D"]:
    """True values of the numbers that the read-out reads, for every frame of every clip."""
    rows = []
    for number, start in zip(dreams.trajectory, dreams.start, strict=True):
        trajectory = trajectories[number]
        truth = split.truth(trajectory.episode)
        ids = trajectory.ids[start : start + dreams.truth.shape[1]]
        parts = {"base": truth.position, "image": truth.image_position, "gripper": truth.gripper}
        rows.append(np.concatenate([parts[name][ids].reshape(len(ids), -1) for name in columns], axis=1))
    return np.stack(rows)


def calibrate(readout: Readout, dreams: DreamSet, truth: Float[np.ndarray, "C n+1 D"]) -> tuple[Readout, ReadoutError]:
    """Measures the read-out on reconstructions, and sets the limits beyond which it abstains."""
    length = dreams.reconstructed.shape[1]
    by_frame = [readout.read(dreams.reconstructed[:, t]) for t in range(length)]
    readings = np.stack([positions for positions, _ in by_frame], axis=2)  # (m, C, n+1, D)
    min_presence = readout.min_presence
    if "image" in readout.columns:  # otherwise the networks saw no frame without a gripper
        logits = np.concatenate([presence for _, presence in by_frame])
        min_presence = min(float(np.quantile(logits, PRESENCE_QUANTILE)), 0.0)
    base, limit, by_gap, noise = readout.columns["base"], dict(readout.limit), {}, {}
    gaps = [gap for gap in GAPS if gap < length]
    judged = max((gap for gap in gaps if gap <= JUDGED_STEPS), default=gaps[0])
    lengths = np.zeros(0), np.zeros(0)
    for gap in gaps:
        moved = readings[:, :, gap:] - readings[:, :, :-gap]
        read, true = moved.mean(axis=0), truth[:, gap:] - truth[:, :-gap]
        limit[gap] = float(np.quantile(readout.disagreement(moved), readout.abstain_beyond))
        error = read - true
        row: dict[str, Any] = {
            "n": int(np.prod(error.shape[:2])), "n_trajectories": len(np.unique(dreams.trajectory)),
            "r2": {name: _r2(error[..., part], true[..., part]).tolist() for name, part in readout.columns.items()},
            "r2_base": float(np.nanmean(_r2(error[..., base], true[..., base]))),
            "rms_error_mm": float(1000 * np.sqrt((error[..., base] ** 2).sum(axis=-1).mean())),
            "rms_motion_mm": float(1000 * np.sqrt((true[..., base] ** 2).sum(axis=-1).mean())),
        }  # fmt: skip
        spread = true[..., base].std(axis=(0, 1))
        large = np.abs(true[..., base]) > np.maximum(DEAD_BAND * spread, 1e-9)
        row["sign_accuracy"] = float((np.sign(read[..., base]) == np.sign(true[..., base]))[large].mean())
        if "image" in readout.columns:
            size = np.array(dreams.truth.shape[2:4])[::-1]
            row["rms_error_px"] = float(np.sqrt(((error[..., readout.columns["image"]] * size) ** 2).sum(-1).mean()))
        by_gap[gap], noise[gap] = row, error[..., base].reshape(-1, 3).var(axis=0)
        if gap == judged:
            lengths = tuple(1000 * np.linalg.norm(x[..., base], axis=-1).reshape(-1) for x in (error, true))
    found = ReadoutError(by_gap[judged]["r2_base"], judged, by_gap, noise, *lengths)
    return replace(readout, limit=limit, min_presence=min_presence), found


def _r2(error: np.ndarray, true: np.ndarray) -> np.ndarray:
    """R2 of each dimension; NaN for a dimension that never moves."""
    axes = tuple(range(error.ndim - 1))
    spread = ((true - true.mean(axis=axes)) ** 2).sum(axis=axes)
    moves = spread > 1e-18
    return np.where(moves, 1 - (error**2).sum(axis=axes) / np.where(moves, spread, 1), np.nan)


def dream_motion(readout: Readout, dreams: DreamSet, truth: Float[np.ndarray, "C n+1 D"]) -> dict[str, Any]:
    """R2 of the displacement since the prompt at every t: dreams with inferred codes, reconstructions, random codes."""
    start = readout.positions(dreams.reconstructed[:, 0])
    base = readout.columns["base"]
    rows: dict[str, list[float]] = {"dream": [], "tokenizer": [], "random_codes": []}
    for t in range(1, dreams.horizon + 1):
        true = (truth[:, t] - truth[:, 0])[:, base]
        shown = {"dream": dreams.inferred[:, t - 1], "tokenizer": dreams.reconstructed[:, t]}
        if t <= dreams.random.shape[1]:
            shown["random_codes"] = dreams.random[:, t - 1]
        for name, frames in shown.items():
            read = (readout.positions(frames) - start).mean(axis=0)[:, base]
            rows[name].append(float(np.nanmean(_r2(read - true, true))))
    return {"r2_by_t": rows, "n_clips": len(dreams.truth)}
