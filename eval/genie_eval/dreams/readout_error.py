"""How far the read-out can be trusted: its error on the tokenizer's reconstructions of held-out trajectories.

Also the probe matrix: does a read-out of real transitions fail on dreams, or do dreams say something of their own?
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from genie_eval.collect import Trajectory
from genie_eval.dreams.generation import DreamSet
from genie_eval.dreams.readout import Readout

if TYPE_CHECKING:
    from genie_datasets import Split

JUDGED_AT = 5  # steps: what reliability, and verdicts, refer to
GAPS = (1, 2, 3, 5, 8)
RELIABLE = 0.90  # R2 below which metrics that use the read-out at most warn
PRESENT = 0.01  # quantile of the logit of presence on reconstructions; below it and below 0: dissolved
DEAD_BAND = 0.5  # SD of displacement; sign accuracy is asked of larger ones


@dataclass
class ReadoutError:
    """by_gap[g]: numbers for displacement over g steps. noise[g]: (D_base,) variance of its error, metres squared."""

    reliability: float
    gap: int
    by_gap: dict[int, dict[str, Any]]
    noise: dict[int, Float[np.ndarray, " 3"]]
    errors_mm: Float[np.ndarray, " n"]  # lengths of the error over `gap` steps, for the figure
    moved_mm: Float[np.ndarray, " n"]

    def as_json(self) -> dict[str, Any]:
        return {
            "reliability": self.reliability, "judged_at_steps": self.gap, "reliable_from": RELIABLE,
            "by_gap": {str(gap): row for gap, row in self.by_gap.items()},
        }  # fmt: skip

    @property
    def reliable(self) -> bool:
        return self.reliability >= RELIABLE


def clip_truth(
    split: "Split", trajectories: list[Trajectory], dreams: DreamSet, columns: dict[str, slice]
) -> Float[np.ndarray, "C n+1 D"]:
    """The true values that the read-out reads, for every frame of every clip."""
    rows = []
    for owner, start in zip(dreams.owner, dreams.start, strict=True):
        trajectory = trajectories[owner]
        truth = split.truth(trajectory.episode)
        ids = trajectory.ids[start : start + dreams.truth.shape[1]]
        parts = {"base": truth.position, "image": truth.image_position, "gripper": truth.gripper}
        rows.append(np.concatenate([parts[name][ids].reshape(len(ids), -1) for name in columns], axis=1))
    return np.stack(rows)


def readout_error(readout: Readout, dreams: DreamSet, truth: Float[np.ndarray, "C n+1 D"]) -> ReadoutError:
    """Measures the read-out on reconstructions, and sets the disagreement beyond which it abstains."""
    clips, length = dreams.rebuilt.shape[:2]
    looks = [readout.look(dreams.rebuilt[:, t]) for t in range(length)]
    members = np.stack([seen for seen, _ in looks], axis=2)  # (m, C, n+1, D)
    if "image" in readout.columns:  # else it never saw a picture without a gripper
        usual = float(np.quantile(np.concatenate([logit for _, logit in looks]), PRESENT))
        readout.least_presence = min(usual, 0.0)  # and likelier gone than not
    base, by_gap, noise = readout.columns["base"], {}, {}
    gaps = [gap for gap in GAPS if gap < length]
    lengths = np.zeros(0), np.zeros(0)
    judged = max((gap for gap in gaps if gap <= JUDGED_AT), default=gaps[0])
    for gap in gaps:
        moved = members[:, :, gap:] - members[:, :, :-gap]
        seen, real = moved.mean(axis=0), truth[:, gap:] - truth[:, :-gap]
        disagreement = readout.disagreement(moved.reshape(len(moved), -1, moved.shape[-1]))
        readout.limit[gap] = float(np.quantile(disagreement, 0.99))
        error = seen - real
        row: dict[str, Any] = {
            "n": int(np.prod(error.shape[:2])), "n_trajectories": len(np.unique(dreams.owner)),
            "r2": {
                name: _r2(error[..., where], real[..., where]).tolist() for name, where in readout.columns.items()
            },
            "r2_base": float(np.nanmean(_r2(error[..., base], real[..., base]))),
            "rms_error_mm": float(1000 * np.sqrt((error[..., base] ** 2).sum(axis=-1).mean())),
            "rms_motion_mm": float(1000 * np.sqrt((real[..., base] ** 2).sum(axis=-1).mean())),
        }  # fmt: skip
        spread = real[..., base].std(axis=(0, 1))
        large = np.abs(real[..., base]) > np.maximum(DEAD_BAND * spread, 1e-9)
        row["sign_accuracy"] = float((np.sign(seen[..., base]) == np.sign(real[..., base]))[large].mean())
        if "image" in readout.columns:
            size = np.array(dreams.truth.shape[2:4])[::-1]
            row["rms_error_px"] = float(np.sqrt(((error[..., readout.columns["image"]] * size) ** 2).sum(-1).mean()))
        by_gap[gap], noise[gap] = row, error[..., base].reshape(-1, 3).var(axis=0)
        if gap == judged:
            lengths = tuple(1000 * np.linalg.norm(x[..., base], axis=-1).reshape(-1) for x in (error, real))
    return ReadoutError(by_gap[judged]["r2_base"], judged, by_gap, noise, *lengths)


def _r2(error: np.ndarray, real: np.ndarray) -> np.ndarray:
    """By dimension; NaN for one that never moves."""
    axes = tuple(range(error.ndim - 1))
    spread = ((real - real.mean(axis=axes)) ** 2).sum(axis=axes)
    moves = spread > 1e-18
    return np.where(moves, 1 - (error**2).sum(axis=axes) / np.where(moves, spread, 1), np.nan)


def dream_motion(readout: Readout, dreams: DreamSet, truth: Float[np.ndarray, "C n+1 D"]) -> dict[str, Any]:
    """Do dreams with inferred codes move as the robot did? R2 of the displacement since the prompt, by t."""
    start = readout.positions(dreams.rebuilt[:, 0])
    base = readout.columns["base"]
    rows: dict[str, list[float]] = {"dream": [], "tokenizer": [], "random_codes": []}
    for t in range(1, dreams.horizon + 1):
        real = (truth[:, t] - truth[:, 0])[:, base]
        shown = {"dream": dreams.inferred[:, t - 1], "tokenizer": dreams.rebuilt[:, t]}
        if t <= dreams.random.shape[1]:
            shown["random_codes"] = dreams.random[:, t - 1]
        for name, frames in shown.items():
            seen = (readout.positions(frames) - start).mean(axis=0)[:, base]
            rows[name].append(float(np.nanmean(_r2(seen - real, real))))
    return {"r2_by_t": rows, "n_clips": len(dreams.truth)}
