"""`counterfactual_id`: is the dream of a code nearest to the simulator's own future of that code?

Nearest in pixels, over all steps, with the simulated futures shown through the model's tokenizer, so that no read-out
is needed; chance is 1 / K (specification, level F). Beside it, through the read-out: direction, how far the dream goes
compared with the truth (a world that overshoots is caught here and nowhere else), and where it ends.
"""

from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from genie_eval.collect import to_numpy
from genie_eval.dreams.displacements import Moves
from genie_eval.dreams.play import Plays
from genie_eval.dreams.simulated import Simulated
from genie_eval.dreams.starts import Starts
from genie_eval.resampling import SWAPS, permutation_p

COSINE = 0.80
RATIO = (0.7, 1.4)
CLEAR_MOTION = 0.01  # metres; the direction of a smaller true displacement is not asked for


def through_tokenizer(
    genie: Any, starts: Starts, frames: UInt8[np.ndarray, "S K n H W 3"]
) -> UInt8[np.ndarray, "S K n H W 3"]:
    """Simulated futures as the tokenizer shows them, each with its start before it."""
    rows = []
    for s in range(len(frames)):
        begin = np.broadcast_to(starts.frames[s], (frames.shape[1], 1, *starts.frames.shape[1:]))
        clips = np.concatenate([begin, frames[s]], axis=1)
        rows.append(to_numpy(genie.detokenize(genie.tokenize(clips)))[:, 1:])
    return np.stack(rows) if rows else frames


def nearest_future(
    shown: UInt8[np.ndarray, "S K n H W 3"], futures: UInt8[np.ndarray, "S K n H W 3"]
) -> Float[np.ndarray, "S K K"]:
    """Mean squared pixel distance of each code's dream (axis 1) to each code's future (axis 2)."""
    distance = np.empty((len(shown), shown.shape[1], futures.shape[1]))
    for s in range(len(shown)):
        a = shown[s].reshape(len(shown[s]), -1).astype(np.float32)
        b = futures[s].reshape(len(futures[s]), -1).astype(np.float32)
        distance[s] = ((a[:, None] - b[None]) ** 2).mean(axis=-1)
    return distance


def picked(distance: Float[np.ndarray, "S K F"]) -> Float[np.ndarray, "S K F"]:
    """1 at each dream's nearest future; n that tie get 1/n each, so that dreams which are all alike read chance."""
    tied = distance <= distance.min(axis=-1, keepdims=True) + 1e-9
    return tied / tied.sum(axis=-1, keepdims=True)


def renamed_p(chosen: Float[np.ndarray, "S K K"], seed: int, times: int = SWAPS) -> float:
    """One-sided p that dreams pick their own future: the codes they were played with are renamed at every start."""
    rng = np.random.default_rng(seed)
    starts, num = chosen.shape[:2]
    rows, codes = np.arange(starts)[:, None], np.arange(num)
    null = [
        chosen[rows, rng.permuted(np.tile(codes, (starts, 1)), axis=1), codes].mean() for _ in range(times)
    ]  # dream of another code against this code's future
    return permutation_p(float(chosen[:, codes, codes].mean()), np.array(null))


def motion_against_truth(
    dreamt: Moves, true: Moves, simulated: Simulated, error: float, weights: Float[np.ndarray, "R S"]
) -> dict[str, Any]:
    """Direction, magnitude and end of dreams against simulated futures, both through the same read-out.

    Reading both through the read-out cancels what it attenuates. error: its RMS error over these steps, metres.
    """
    from genie_eval.resampling import interval

    shown, real = dreamt.sure("base"), true.sure("base")
    known = np.isfinite(shown).all(axis=-1) & np.isfinite(real).all(axis=-1)
    shown, real = np.where(known[..., None], shown, 0.0), np.where(known[..., None], real, 0.0)
    moved = np.linalg.norm(simulated.moved[:, :, -1], axis=-1)
    asked = known & (moved > max(CLEAR_MOTION, error))
    lengths = np.linalg.norm(shown, axis=-1) * np.linalg.norm(real, axis=-1)
    dot = (shown * real).sum(axis=-1)
    cosine = np.where(asked & (lengths > 0), dot / np.where(lengths > 0, lengths, 1), 0.0)
    per_start, counts = cosine.sum(axis=1), asked.sum(axis=1)
    top, bottom = (dot * known).sum(axis=1), ((real**2).sum(axis=-1) * known).sum(axis=1)
    if not counts.sum() or not bottom.sum():
        return {"reason": "no simulated future moves further than the read-out's error"}
    with np.errstate(divide="ignore", invalid="ignore"):
        cosine_drawn, ratio_drawn = (weights @ per_start) / (weights @ counts), (weights @ top) / (weights @ bottom)
    ends = np.linalg.norm(shown - real, axis=-1)[known]
    distance = ((shown[:, :, None] - real[:, None]) ** 2).sum(axis=-1)
    by_readout = np.diagonal(picked(np.where(known[:, None, :], distance, 1e6)), axis1=1, axis2=2)
    return {
        "cosine": float(per_start.sum() / counts.sum()), "cosine_ci95": interval(cosine_drawn).tolist(),
        "magnitude_ratio": float(top.sum() / bottom.sum()), "magnitude_ratio_ci95": interval(ratio_drawn).tolist(),
        "magnitude_ratio_by_code": _ratio((dot * known).sum(axis=0), ((real**2).sum(axis=-1) * known).sum(axis=0)),
        "endpoint_error_mm": float(1000 * ends.mean()),
        "true_displacement_mm": float(1000 * np.linalg.norm(real, axis=-1)[known].mean()),
        "id_by_readout": float(by_readout[known].mean()), "abstained": float(1 - known.mean()),
    }  # fmt: skip


def _ratio(top: np.ndarray, bottom: np.ndarray) -> list[float | None]:
    return [float(a / b) if b > 1e-8 else None for a, b in zip(top, bottom, strict=True)]


def what_is_missing(motion: dict[str, Any]) -> list[str]:
    """What the protocol asks beside the share and did not find."""
    if "reason" in motion:
        return []
    missing = []
    if motion["cosine"] < COSINE:
        missing.append(f"its direction agrees by a cosine of {motion['cosine']:.2f}, below {COSINE:g}")
    ratio = motion["magnitude_ratio"]
    if not RATIO[0] <= ratio <= RATIO[1]:
        missing.append(f"dreams go {ratio:.2f} times as far as the simulator, outside {RATIO[0]:g}-{RATIO[1]:g}")
    return missing


def future_plays(simulated: Simulated, rebuilt: UInt8[np.ndarray, "S K n H W 3"], sequences: np.ndarray) -> Plays:
    """Simulated futures in the form of plays, so that the same read-outs judge them."""
    return Plays(sequences[: simulated.frames.shape[1]], rebuilt)
