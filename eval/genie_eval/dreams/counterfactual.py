"""`counterfactual_id`: is the dream of a code nearest to the simulator's own future of that code?

Distance is in pixels over all steps, with the simulated futures shown through the model's tokenizer, so no read-out is
needed; chance is 1 / K. With a read-out, direction, length and end of the motion are compared too: a dream that goes
too far is detected only there.
"""

from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from genie_eval.dreams.context import ControlContext, MeasuredMotion
from genie_eval.dreams.displacements import Displacements
from genie_eval.dreams.simulated import SimulatedFutures
from genie_eval.metrics import MAGNITUDE_RATIO, MIN_COSINE, Metric, judge, not_run, of_eight_codes
from genie_eval.resampling import SWAPS, interval, permutation_p

CLEAR_MOTION = 0.01  # meters; the direction of a smaller true displacement is not judged


def counterfactual_id(context: ControlContext) -> Metric:
    """Share of dreams that are nearest to the simulator's own future of their code.

    null: 1 / K. oracle: the same share for sampled futures (1 if none were simulated). more["motion"]: comparison of
    displacements.
    """
    futures, constant, num_codes = context.futures, context.commanded.constant, context.num_codes
    if isinstance(futures, str):
        return not_run(futures)
    chosen = nearest(pixel_distance(constant.dreams, futures.frames))
    own = np.diagonal(chosen, axis1=1, axis2=2)
    sampled = futures.sampled_frames
    best = np.diagonal(nearest(pixel_distance(sampled, futures.frames[: len(sampled)])), axis1=1, axis2=2)
    by_start = own.mean(axis=1)
    ci = interval(context.weights @ by_start / len(by_start))
    metric = Metric(
        value=float(by_start.mean()), null=1 / num_codes, oracle=float(best.mean()) if best.size else 1.0, ci95=ci,
        p=renamed_p(chosen, context.seed), n_trajectories=len(by_start),
        more={
            "by_code": own.mean(axis=0).tolist(), "confusion": chosen.sum(axis=0).tolist(),
            "n_futures": int(own.size), "steps": constant.steps,
            "oracle_is": "futures of sampled actions of the code, through the same tokenizer",
        },
    )  # fmt: skip
    missing: list[str] = []
    if isinstance(context.motion, MeasuredMotion) and context.motion.futures is not None:
        motion = compare_motion(
            context.motion.dreams, context.motion.futures, futures, context.motion.error.rms_error, context.weights
        )
        metric.more["motion"] = motion
        missing = _missing_for_pass(motion)
    chance = 1 / num_codes  # the marks are for 8 codes: the range from chance to 1 is mapped to that of 8 codes
    scores = 1 / 8 + (np.array([ci[0], by_start.mean(), ci[1]]) - chance) / (1 - chance) * 7 / 8
    low, score, high = scores.tolist()
    return judge("counterfactual_id", metric, score, (low, high), of_eight_codes(num_codes), missing)


def pixel_distance(
    dreams: UInt8[np.ndarray, "S K n H W 3"], futures: UInt8[np.ndarray, "S K n H W 3"]
) -> Float[np.ndarray, "S K K"]:
    """Mean squared pixel distance of each code's dream (axis 1) to each code's future (axis 2)."""
    distance = np.empty((len(dreams), dreams.shape[1], futures.shape[1]))
    for s in range(len(dreams)):
        a = dreams[s].reshape(len(dreams[s]), -1).astype(np.float32)
        b = futures[s].reshape(len(futures[s]), -1).astype(np.float32)
        distance[s] = ((a[:, None] - b[None]) ** 2).mean(axis=-1)
    return distance


def nearest(distance: Float[np.ndarray, "S K F"]) -> Float[np.ndarray, "S K F"]:
    """1 at the nearest future of each dream; n that tie get 1/n each, so that identical dreams read chance."""
    tied = distance <= distance.min(axis=-1, keepdims=True) + 1e-9
    return tied / tied.sum(axis=-1, keepdims=True)


def renamed_p(chosen: Float[np.ndarray, "S K K"], seed: int) -> float:
    """One-sided p that dreams are nearest to their own future; the null renames the codes at every start."""
    rng = np.random.default_rng(seed)
    starts, num_codes = chosen.shape[:2]
    rows, codes = np.arange(starts)[:, None], np.arange(num_codes)
    null = [chosen[rows, rng.permuted(np.tile(codes, (starts, 1)), axis=1), codes].mean() for _ in range(SWAPS)]
    return permutation_p(float(chosen[:, codes, codes].mean()), np.array(null))


def compare_motion(
    dreamed: Displacements, true: Displacements, futures: SimulatedFutures, error: float,
    weights: Float[np.ndarray, "R S"],
) -> dict[str, Any]:  # fmt: skip
    """Direction, length and end of the motion in dreams against the simulator's futures.

    Both are read through the same read-out, so that its attenuation cancels. error: its RMS error over these steps,
    meters.
    """
    dream, real = dreamed.confident("base"), true.confident("base")
    known = np.isfinite(dream).all(axis=-1) & np.isfinite(real).all(axis=-1)
    dream, real = np.where(known[..., None], dream, 0.0), np.where(known[..., None], real, 0.0)
    moved = np.linalg.norm(futures.moved[:, :, -1], axis=-1)
    clear = known & (moved > max(CLEAR_MOTION, error))
    lengths = np.linalg.norm(dream, axis=-1) * np.linalg.norm(real, axis=-1)
    dot, square = (dream * real).sum(axis=-1) * known, (real**2).sum(axis=-1) * known
    cosine = np.where(clear & (lengths > 0), dot / np.where(lengths > 0, lengths, 1), 0.0)
    per_start, counts = cosine.sum(axis=1), clear.sum(axis=1)
    if not counts.sum() or not square.sum():
        return {"reason": "no simulated future moves further than the error of the read-out"}
    top, bottom = dot.sum(axis=1), square.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        cosine_drawn, ratio_drawn = (weights @ per_start) / (weights @ counts), (weights @ top) / (weights @ bottom)
    ends = np.linalg.norm(dream - real, axis=-1)[known]
    distance = ((dream[:, :, None] - real[:, None]) ** 2).sum(axis=-1)
    by_readout = np.diagonal(nearest(np.where(known[:, None, :], distance, 1e6)), axis1=1, axis2=2)
    by_code = zip(dot.sum(axis=0), square.sum(axis=0), strict=True)
    return {
        "cosine": float(per_start.sum() / counts.sum()), "cosine_ci95": interval(cosine_drawn).tolist(),
        "magnitude_ratio": float(top.sum() / bottom.sum()), "magnitude_ratio_ci95": interval(ratio_drawn).tolist(),
        "magnitude_ratio_by_code": [float(a / b) if b > 1e-8 else None for a, b in by_code],
        "endpoint_error_mm": float(1000 * ends.mean()),
        "true_displacement_mm": float(1000 * np.linalg.norm(real, axis=-1)[known].mean()),
        "id_by_readout": float(by_readout[known].mean()), "abstained": float(1 - known.mean()),
    }  # fmt: skip


def _missing_for_pass(motion: dict[str, Any]) -> list[str]:
    """Requirements of a pass, other than the mark, that are not met."""
    if "reason" in motion:
        return []
    missing = []
    if motion["cosine"] < MIN_COSINE:
        missing.append(f"its direction agrees by a cosine of {motion['cosine']:.2f}, below {MIN_COSINE:g}")
    ratio, (low, high) = motion["magnitude_ratio"], MAGNITUDE_RATIO
    if not low <= ratio <= high:
        missing.append(f"dreams go {ratio:.2f} times as far as the simulator, outside {low:g}-{high:g}")
    return missing
