"""`delta_psnr_t4` and `action_attributable_fraction`: does the world model USE its latent actions?

Both compare the dream with inferred codes to the dream with uniform random codes at the 4th frame. dB depends on how
good the tokenizer is; the fraction does not: it counts error above the tokenizer's own.
"""

import numpy as np
from jaxtyping import Float

from genie_eval.dreams.generation import DELTA_AT, DreamSet
from genie_eval.dreams.pixels import BACKBONE, decibel, squared_error
from genie_eval.dreams.ssim import ssim
from genie_eval.metrics import Metric, judge, not_run
from genie_eval.resampling import DRAWS, bootstrap_weights, interval, sign_flip_p


def action_use(dreams: DreamSet, draws: int = DRAWS, seed: int = 0) -> dict[str, Metric]:
    names = ("delta_psnr_t4", "action_attributable_fraction")
    if dreams.horizon < DELTA_AT:
        short = f"the trajectories are too short: a clip needs {DELTA_AT + 1} frames"
        return {name: not_run(short) for name in names}
    truth = dreams.truth[:, DELTA_AT]
    inferred = squared_error(dreams.inferred[:, DELTA_AT - 1], truth)
    random = squared_error(dreams.random[:, DELTA_AT - 1], truth)
    floor = squared_error(dreams.rebuilt[:, DELTA_AT], truth)
    weights = bootstrap_weights(len(np.unique(dreams.owner)), draws, seed)
    readings = (delta, fraction)
    return {
        name: reading(inferred, random, floor, dreams, weights) for name, reading in zip(names, readings, strict=True)
    }


def by_trajectory(values: Float[np.ndarray, " C"], dreams: DreamSet) -> Float[np.ndarray, " I"]:
    """Mean over the clips of each trajectory."""
    owner = np.unique(dreams.owner, return_inverse=True)[1]
    return np.bincount(owner, weights=values) / np.bincount(owner)


def delta(
    inferred: np.ndarray, random: np.ndarray, floor: np.ndarray, dreams: DreamSet, weights: Float[np.ndarray, "R I"]
) -> Metric:
    """null: codes ignored, 0 dB. oracle: what a dream as good as the tokenizer's reconstruction would gain."""
    gain = by_trajectory(decibel(inferred) - decibel(random), dreams)
    ci = interval(weights @ gain / len(gain))
    metric = Metric(
        value=float(gain.mean()), null=0.0,
        oracle=float(by_trajectory(decibel(floor) - decibel(random), dreams).mean()),
        ci95=ci, p=sign_flip_p(gain), n_trajectories=len(gain),
        more={
            "n_clips": len(inferred), "t": DELTA_AT, "prompt_frames": 1, "random_codes": "uniform",
            "psnr_inferred": float(by_trajectory(decibel(inferred), dreams).mean()),
            "psnr_random": float(by_trajectory(decibel(random), dreams).mean()),
            "resolution": list(dreams.truth.shape[2:4]), "backbone": BACKBONE, **_ssim(dreams),
        },
    )  # fmt: skip
    return judge("delta_psnr_t4", metric, float(gain.mean()), (ci[0], ci[1]))


def _ssim(dreams: DreamSet) -> dict[str, float]:
    """Of both dreams at t = 4, means of trajectories."""
    truth = dreams.truth[:, DELTA_AT]
    shown = {"inferred": dreams.inferred, "random": dreams.random}
    return {
        f"ssim_{name}": float(by_trajectory(ssim(frames[:, DELTA_AT - 1], truth), dreams).mean())
        for name, frames in shown.items()
    }


def fraction(
    inferred: np.ndarray, random: np.ndarray, floor: np.ndarray, dreams: DreamSet, weights: Float[np.ndarray, "R I"]
) -> Metric:
    """1 - (MSE_inferred - floor) / (MSE_random - floor), each MSE a mean over clips. null 0, oracle 1."""
    a, b, c = (by_trajectory(mse, dreams) for mse in (inferred, random, floor))
    count = len(a)
    harm = weights @ (b - c) / count
    if interval(harm)[0] <= 0:
        return not_run(
            "random codes cost no more than the tokenizer's own error "
            f"(mean squared error {b.mean():.1f} against {c.mean():.1f} grey levels): nothing to attribute"
        )
    value = 1 - (a - c).mean() / (b - c).mean()
    ci = interval(1 - (weights @ (a - c) / count) / harm)
    metric = Metric(
        value=float(value), null=0.0, oracle=1.0, ci95=ci, p=sign_flip_p(b - a), n_trajectories=count,
        more={
            "n_clips": len(inferred), "mse_inferred": a.mean(), "mse_random": b.mean(), "mse_floor": c.mean(),
            "t": DELTA_AT, "resolution": list(dreams.truth.shape[2:4]), "backbone": BACKBONE,
        },
    )  # fmt: skip
    return judge("action_attributable_fraction", metric, float(value), (ci[0], ci[1]))
