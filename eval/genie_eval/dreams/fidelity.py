"""`tokenizer_psnr` and `dream_psnr`: how good the pictures are, beside what costs nothing (repeat a frame)."""

import numpy as np
from jaxtyping import Float

from genie_eval.dreams.action_use import by_trajectory
from genie_eval.dreams.generation import DreamSet
from genie_eval.dreams.pixels import BACKBONE, decibel, psnr
from genie_eval.dreams.ssim import ssim
from genie_eval.features import MOVING
from genie_eval.metrics import FEW, Metric
from genie_eval.resampling import DRAWS, bootstrap_weights, interval, one_sided_p


def fidelity(dreams: DreamSet, draws: int = DRAWS, seed: int = 0) -> dict[str, Metric]:
    weights = bootstrap_weights(len(np.unique(dreams.owner)), draws, seed)
    return {"tokenizer_psnr": tokenizer_psnr(dreams, weights), "dream_psnr": dream_psnr(dreams, weights)}


def tokenizer_psnr(dreams: DreamSet, weights: Float[np.ndarray, "R I"]) -> Metric:
    """Reconstruction of held-out clips. null: the previous frame shown instead (an error of one step's motion).

    A tokenizer below its null blurs more than the motion changes. There is no oracle: lossless has no PSNR.
    """
    truth, rebuilt = dreams.truth, dreams.rebuilt
    own = by_trajectory(psnr(rebuilt, truth).mean(axis=1), dreams)
    late = by_trajectory(psnr(truth[:, :-1], truth[:, 1:]).mean(axis=1), dreams)
    moved = np.abs(np.diff(truth.astype(np.int16), axis=1)).max(axis=-1) > MOVING
    moving_own, moving_late = (_on(moved, frames, truth[:, 1:]) for frames in (rebuilt[:, 1:], truth[:, :-1]))
    metric = Metric(
        value=float(own.mean()), null=float(late.mean()), ci95=interval(weights @ own / len(own)),
        n_trajectories=len(own),
        more={
            "n_clips": len(truth), "resolution": list(truth.shape[2:4]), "backbone": BACKBONE,
            "ssim": {
                "value": by_trajectory(ssim(rebuilt, truth).mean(axis=1), dreams).mean(),
                "null": by_trajectory(ssim(truth[:, :-1], truth[:, 1:]).mean(axis=1), dreams).mean(),
            },
            "moving_pixels": {"share": moved.mean(), "value": moving_own, "null": moving_late},
        },
    )  # fmt: skip
    return _beats(metric, own - late, weights, "repeating the previous frame", moving_own, moving_late)


def dream_psnr(dreams: DreamSet, weights: Float[np.ndarray, "R I"]) -> Metric:
    """One prompt frame, inferred codes, mean over t. null: copy-last. oracle: the tokenizer's reconstruction."""
    truth = dreams.truth[:, 1:]
    prompt = np.broadcast_to(dreams.truth[:, :1], truth.shape)
    shown = {"dream": dreams.inferred, "copy_last": prompt, "tokenizer": dreams.rebuilt[:, 1:]}
    per_frame = {name: psnr(frames, truth) for name, frames in shown.items()}
    alike = {name: ssim(frames, truth) for name, frames in shown.items()}
    own, copy, best = (by_trajectory(value.mean(axis=1), dreams) for value in per_frame.values())
    moved = np.abs(truth.astype(np.int16) - prompt.astype(np.int16)).max(axis=-1) > MOVING
    moving_own, moving_copy = _on(moved, dreams.inferred, truth), _on(moved, prompt, truth)
    metric = Metric(
        value=float(own.mean()), null=float(copy.mean()), oracle=float(best.mean()),
        ci95=interval(weights @ own / len(own)), n_trajectories=len(own),
        more={
            "n_clips": len(truth), "horizon": dreams.horizon, "resolution": list(truth.shape[2:4]),
            "backbone": BACKBONE,
            "by_t": {name: value.mean(axis=0) for name, value in per_frame.items()},
            "ssim": {
                **{name: by_trajectory(value.mean(axis=1), dreams).mean() for name, value in alike.items()},
                "by_t": {name: value.mean(axis=0) for name, value in alike.items()},
            },
            "moving_pixels": {"share": moved.mean(), "value": moving_own, "null": moving_copy},
        },
    )  # fmt: skip
    return _beats(metric, own - copy, weights, "repeating the prompt", moving_own, moving_copy)


def _on(mask: np.ndarray, a: np.ndarray, b: np.ndarray) -> float | None:
    """PSNR on the masked pixels of all frames together; None where nothing moves."""
    if not mask.any():
        return None
    return float(decibel(((a[mask].astype(np.float64) - b[mask]) ** 2).mean()))


def _beats(
    metric: Metric, gain: np.ndarray, weights: np.ndarray, rival: str, moving: float | None, moving_null: float | None
) -> Metric:
    """pass: surely better than the rival; warn: no sure difference, or better on moving pixels only; fail: worse."""
    drawn = weights @ gain / len(gain)
    metric.p = one_sided_p(drawn)
    metric.more["gain"] = {"value": gain.mean(), "ci95": interval(drawn)}
    if interval(drawn)[0] > 0:
        metric.verdict, metric.reason = "pass", f"{gain.mean():+.1f} dB against {rival}"
    elif interval(drawn)[1] > 0:
        metric.verdict, metric.reason = (
            "warn",
            f"{gain.mean():+.1f} dB against {rival}: no sure difference",
        )
    elif moving is not None and moving_null is not None and moving > moving_null:
        metric.verdict = "warn"
        metric.reason = (
            f"{gain.mean():+.1f} dB against {rival}; better only where something moves ({moving - moving_null:+.1f} dB)"
        )
    else:
        metric.verdict, metric.reason = "fail", f"{gain.mean():+.1f} dB: worse than {rival}"
    if len(gain) < FEW:
        metric.reason = f"exploratory: {len(gain)} trajectories, fewer than {FEW}; {metric.reason}"
    return metric
