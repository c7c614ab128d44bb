"""`delta_psnr_t4` and `action_attributable_fraction`: does the world model use its latent actions?

Both compare dreams with inferred codes and dreams with uniform random codes at the 4th frame. The difference in dB
depends on the quality of the tokenizer; the fraction counts only the error above the tokenizer's own.
"""

import numpy as np
from jaxtyping import Float, UInt8

from genie_eval.dreams.generation import DELTA_AT, DreamSet
from genie_eval.dreams.pixels import BACKBONE, decibel, squared_error
from genie_eval.dreams.ssim import ssim
from genie_eval.metrics import Metric, judge, not_run
from genie_eval.resampling import DRAWS, bootstrap_weights, interval, sign_flip_p


def action_use(dreams: DreamSet, draws: int = DRAWS, seed: int = 0) -> dict[str, Metric]:
    """Both metrics, with bootstrap intervals over trajectories."""
    if dreams.horizon < DELTA_AT:
        short = f"the trajectories are too short: a clip needs {DELTA_AT + 1} frames"
        return {name: not_run(short) for name in ("delta_psnr_t4", "action_attributable_fraction")}
    weights = bootstrap_weights(len(np.unique(dreams.trajectory)), draws, seed)
    return {
        "delta_psnr_t4": delta_psnr(dreams, weights),
        "action_attributable_fraction": attributable_fraction(dreams, weights),
    }


def _errors(dreams: DreamSet) -> tuple[np.ndarray, ...]:
    """(C,) mean squared errors at t = 4: of dreams with inferred codes, with random codes, and of the tokenizer."""
    shown = dreams.inferred[:, DELTA_AT - 1], dreams.random[:, DELTA_AT - 1], dreams.reconstructed[:, DELTA_AT]
    return tuple(squared_error(frames, dreams.truth[:, DELTA_AT]) for frames in shown)


def delta_psnr(dreams: DreamSet, weights: Float[np.ndarray, "R I"]) -> Metric:
    """dB that inferred codes gain over random ones.

    null: the codes are ignored, 0 dB. oracle: the gain of a dream as good as the tokenizer's reconstruction.
    """
    inferred, random, floor = (decibel(mse) for mse in _errors(dreams))
    gain = dreams.by_trajectory(inferred - random)
    metric = Metric(
        value=float(gain.mean()), null=0.0, oracle=float(dreams.by_trajectory(floor - random).mean()),
        ci95=interval(weights @ gain / len(gain)), p=sign_flip_p(gain), n_trajectories=len(gain),
        more={
            "n_clips": len(inferred), "t": DELTA_AT, "prompt_frames": 1, "random_codes": "uniform",
            "psnr_inferred": float(dreams.by_trajectory(inferred).mean()),
            "psnr_random": float(dreams.by_trajectory(random).mean()),
            "resolution": list(dreams.truth.shape[2:4]), "backbone": BACKBONE,
            "ssim_inferred": _mean_ssim(dreams, dreams.inferred), "ssim_random": _mean_ssim(dreams, dreams.random),
        },
    )  # fmt: skip
    return judge("delta_psnr_t4", metric)


def _mean_ssim(dreams: DreamSet, frames: UInt8[np.ndarray, "C n H W 3"]) -> float:
    """Mean SSIM at t = 4 over trajectories."""
    return float(dreams.by_trajectory(ssim(frames[:, DELTA_AT - 1], dreams.truth[:, DELTA_AT])).mean())


def attributable_fraction(dreams: DreamSet, weights: Float[np.ndarray, "R I"]) -> Metric:
    """1 - (MSE_inferred - floor) / (MSE_random - floor), each a mean over clips, floor = the tokenizer's own error.

    null: 0. oracle: 1.
    """
    inferred, random, floor = (dreams.by_trajectory(mse) for mse in _errors(dreams))
    count = len(inferred)
    harm = weights @ (random - floor) / count
    if interval(harm)[0] <= 0:
        return not_run(
            "random codes cost no more than the tokenizer's own error (mean squared error "
            f"{random.mean():.1f} against {floor.mean():.1f} gray levels): there is nothing to attribute"
        )
    value = 1 - (inferred - floor).mean() / (random - floor).mean()
    ci = interval(1 - (weights @ (inferred - floor) / count) / harm)
    metric = Metric(
        value=float(value), null=0.0, oracle=1.0, ci95=ci, p=sign_flip_p(random - inferred), n_trajectories=count,
        more={
            "n_clips": len(dreams.truth), "mse_inferred": inferred.mean(), "mse_random": random.mean(),
            "mse_floor": floor.mean(), "t": DELTA_AT, "resolution": list(dreams.truth.shape[2:4]),
            "backbone": BACKBONE,
        },
    )  # fmt: skip
    return judge("action_attributable_fraction", metric)
