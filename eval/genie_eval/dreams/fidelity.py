"""`tokenizer_psnr` and `dream_psnr`: picture quality next to a baseline that costs nothing (repeating a frame)."""

import numpy as np
from jaxtyping import Float

from genie_eval.dreams.generation import DreamSet
from genie_eval.dreams.pixels import BACKBONE, decibel, moving_pixels, psnr
from genie_eval.dreams.ssim import ssim
from genie_eval.metrics import FEW, Metric
from genie_eval.resampling import DRAWS, bootstrap_weights, interval, one_sided_p


def fidelity(dreams: DreamSet, draws: int = DRAWS, seed: int = 0) -> dict[str, Metric]:
    """Both metrics, with bootstrap intervals over trajectories."""
    weights = bootstrap_weights(len(np.unique(dreams.trajectory)), draws, seed)
    return {"tokenizer_psnr": tokenizer_psnr(dreams, weights), "dream_psnr": dream_psnr(dreams, weights)}


def tokenizer_psnr(dreams: DreamSet, weights: Float[np.ndarray, "R I"]) -> Metric:
    """Reconstruction of held-out clips, without their first frame, which a tokenizer with a reference is given.

    null: the previous frame is shown instead. A tokenizer below its null blurs more than one step of motion changes.
    It has no oracle, because the PSNR of a lossless reconstruction is infinite.
    """
    previous, following = dreams.truth[:, :-1], dreams.truth[:, 1:]
    reconstructed = dreams.reconstructed[:, 1:]
    own = dreams.by_trajectory(psnr(reconstructed, following).mean(axis=1))
    late = dreams.by_trajectory(psnr(previous, following).mean(axis=1))
    moved = moving_pixels(following, previous)
    moving_own, moving_late = (_masked_psnr(moved, frames, following) for frames in (reconstructed, previous))
    metric = Metric(
        value=float(own.mean()), null=float(late.mean()), ci95=interval(weights @ own / len(own)),
        n_trajectories=len(own),
        more={
            "n_clips": len(following), "resolution": list(following.shape[2:4]), "backbone": BACKBONE,
            "ssim": {
                "value": dreams.by_trajectory(ssim(reconstructed, following).mean(axis=1)).mean(),
                "null": dreams.by_trajectory(ssim(previous, following).mean(axis=1)).mean(),
            },
            "moving_pixels": {"share": moved.mean(), "value": moving_own, "null": moving_late},
        },
    )  # fmt: skip
    return _judge_gain(metric, own - late, weights, "repeating the previous frame", moving_own, moving_late)


def dream_psnr(dreams: DreamSet, weights: Float[np.ndarray, "R I"]) -> Metric:
    """Dreams from one prompt frame with inferred codes, mean over t.

    null: the prompt is repeated. oracle: the tokenizer's reconstruction.
    """
    truth = dreams.truth[:, 1:]
    prompt = np.broadcast_to(dreams.truth[:, :1], truth.shape)
    shown = {"dream": dreams.inferred, "copy_last": prompt, "tokenizer": dreams.reconstructed[:, 1:]}
    by_frame = {name: psnr(frames, truth) for name, frames in shown.items()}
    similarity = {name: ssim(frames, truth) for name, frames in shown.items()}
    own, copy, best = (dreams.by_trajectory(value.mean(axis=1)) for value in by_frame.values())
    moved = moving_pixels(truth, prompt)
    moving_own, moving_copy = _masked_psnr(moved, dreams.inferred, truth), _masked_psnr(moved, prompt, truth)
    metric = Metric(
        value=float(own.mean()), null=float(copy.mean()), oracle=float(best.mean()),
        ci95=interval(weights @ own / len(own)), n_trajectories=len(own),
        more={
            "n_clips": len(truth), "horizon": dreams.horizon, "resolution": list(truth.shape[2:4]),
            "backbone": BACKBONE,
            "by_t": {name: value.mean(axis=0) for name, value in by_frame.items()},
            "ssim": {
                **{name: dreams.by_trajectory(value.mean(axis=1)).mean() for name, value in similarity.items()},
                "by_t": {name: value.mean(axis=0) for name, value in similarity.items()},
            },
            "moving_pixels": {"share": moved.mean(), "value": moving_own, "null": moving_copy},
        },
    )  # fmt: skip
    return _judge_gain(metric, own - copy, weights, "repeating the prompt", moving_own, moving_copy)


def _masked_psnr(mask: np.ndarray, a: np.ndarray, b: np.ndarray) -> float | None:
    """PSNR over the masked pixels of all frames together; None where the mask is empty."""
    if not mask.any():
        return None
    return float(decibel(((a[mask].astype(np.float64) - b[mask]) ** 2).mean()))


def _judge_gain(
    metric: Metric, gain: np.ndarray, weights: np.ndarray, rival: str, moving: float | None, moving_null: float | None
) -> Metric:
    """Judges the gain over a rival, in dB per trajectory.

    pass: the interval is above 0. warn: it contains 0, or the metric wins on moving pixels only. fail: it is worse.
    """
    drawn = weights @ gain / len(gain)
    low, high = interval(drawn)
    metric.p = one_sided_p(drawn)
    metric.more["gain"] = {"value": gain.mean(), "ci95": np.array([low, high])}
    against = f"{gain.mean():+.1f} dB against {rival}"
    if low > 0:
        metric.verdict, metric.reason = "pass", against
    elif high > 0:
        metric.verdict, metric.reason = "warn", f"{against}: the difference is not significant"
    elif moving is not None and moving_null is not None and moving > moving_null:
        metric.verdict = "warn"
        metric.reason = f"{against}; better only where something moves ({moving - moving_null:+.1f} dB)"
    else:
        metric.verdict, metric.reason = "fail", f"{gain.mean():+.1f} dB: worse than {rival}"
    if len(gain) < FEW:
        metric.reason = f"exploratory: {len(gain)} trajectories, fewer than {FEW}; {metric.reason}"
    return metric
