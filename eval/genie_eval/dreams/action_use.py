"""`delta_psnr_t4` and `action_attributable_fraction`: does the world model use its latent actions?

Both compare dreams with inferred codes and dreams with uniform random codes at the 4th frame. The difference in dB
depends on the quality of the tokenizer; the fraction counts only the error above the tokenizer's own.
"""

import numpy as np
from jaxtyping import Float

from genie_eval.dreams.generation import DELTA_AT, DreamSet
from genie_eval.dreams.pixels import BACKBONE, decibel, squared_error
from genie_eval.dreams.ssim import ssim
from genie_eval.metric import Metric, not_run
from genie_eval.resampling import DRAWS, bootstrap_weights, interval, sign_flip_p
from genie_eval.verdicts import judge


def action_use(dreams: DreamSet, draws: int = DRAWS, seed: int = 0) -> dict[str, Metric]:
    """Both metrics, with bootstrap intervals over trajectories."""
    if dreams.horizon < DELTA_AT:
        short = f"the trajectories are too short: a clip needs {DELTA_AT + 1} frames"
        return {name: not_run(short) for name in ("delta_psnr_t4", "action_attributable_fraction")}
    truth = dreams.truth[:, DELTA_AT]
    errors = (
        squared_error(dreams.inferred[:, DELTA_AT - 1], truth),
        squared_error(dreams.random[:, DELTA_AT - 1], truth),
        squared_error(dreams.reconstructed[:, DELTA_AT], truth),
    )
    weights = bootstrap_weights(len(np.unique(dreams.trajectory)), draws, seed)
    return {
        "delta_psnr_t4": delta_psnr(*errors, dreams, weights),
        "action_attributable_fraction": attributable_fraction(*errors, dreams, weights),
    }


def delta_psnr(
    inferred: np.ndarray, random: np.ndarray, floor: np.ndarray, dreams: DreamSet, weights: Float[np.ndarray, "R I"]
) -> Metric:
    """dB that inferred codes gain over random ones.

    inferred, random, floor: (C,) mean squared errors of both dreams and of the tokenizer. null: the codes are ignored,
    0 dB. oracle: the gain of a dream as good as the tokenizer's reconstruction.
    """
    gain = dreams.by_trajectory(decibel(inferred) - decibel(random))
    ci = interval(weights @ gain / len(gain))
    metric = Metric(
        value=float(gain.mean()), null=0.0,
        oracle=float(dreams.by_trajectory(decibel(floor) - decibel(random)).mean()),
        ci95=ci, p=sign_flip_p(gain), n_trajectories=len(gain),
        more={
            "n_clips": len(inferred), "t": DELTA_AT, "prompt_frames": 1, "random_codes": "uniform",
            "psnr_inferred": float(dreams.by_trajectory(decibel(inferred)).mean()),
            "psnr_random": float(dreams.by_trajectory(decibel(random)).mean()),
            "resolution": list(dreams.truth.shape[2:4]), "backbone": BACKBONE, **_ssim(dreams),
        },
    )  # fmt: skip
    return judge("delta_psnr_t4", metric, float(gain.mean()), (ci[0], ci[1]), " dB")


def _ssim(dreams: DreamSet) -> dict[str, float]:
    """Mean SSIM of both dreams at t = 4 over trajectories."""
    truth = dreams.truth[:, DELTA_AT]
    return {
        f"ssim_{name}": float(dreams.by_trajectory(ssim(frames[:, DELTA_AT - 1], truth)).mean())
        for name, frames in (("inferred", dreams.inferred), ("random", dreams.random))
    }


def attributable_fraction(
    inferred: np.ndarray, random: np.ndarray, floor: np.ndarray, dreams: DreamSet, weights: Float[np.ndarray, "R I"]
) -> Metric:
    """1 - (MSE_inferred - floor) / (MSE_random - floor), each a mean over clips; arguments as for `delta_psnr`.

    null: 0. oracle: 1.
    """
    mse_inferred, mse_random, mse_floor = (dreams.by_trajectory(mse) for mse in (inferred, random, floor))
    count = len(mse_inferred)
    harm = weights @ (mse_random - mse_floor) / count
    if interval(harm)[0] <= 0:
        return not_run(
            "random codes cost no more than the tokenizer's own error (mean squared error "
            f"{mse_random.mean():.1f} against {mse_floor.mean():.1f} gray levels): there is nothing to attribute"
        )
    value = 1 - (mse_inferred - mse_floor).mean() / (mse_random - mse_floor).mean()
    ci = interval(1 - (weights @ (mse_inferred - mse_floor) / count) / harm)
    metric = Metric(
        value=float(value), null=0.0, oracle=1.0, ci95=ci, p=sign_flip_p(mse_random - mse_inferred),
        n_trajectories=count,
        more={
            "n_clips": len(inferred), "mse_inferred": mse_inferred.mean(), "mse_random": mse_random.mean(),
            "mse_floor": mse_floor.mean(), "t": DELTA_AT, "resolution": list(dreams.truth.shape[2:4]),
            "backbone": BACKBONE,
        },
    )  # fmt: skip
    return judge("action_attributable_fraction", metric, float(value), (ci[0], ci[1]))
