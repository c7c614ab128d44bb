"""Does the latent action BEFORE quantization encode anything but motion: the frame, the trajectory? (levels G, H)"""

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from genie_eval.codes.code_sums import code_sums
from genie_eval.codes.motion import group_sums
from genie_eval.codes.quantize import quantize
from genie_eval.inference.nuisances import jitter
from genie_eval.inference.sample import DRAWS, Sample, pairs, share, share_of
from genie_eval.resampling import bootstrap_weights, interval

ZERO_MARK, SHIFT_MARK = 0.15, 0.25
MIN_ROWS = 10  # transitions per code, to find primitives by k-means


def embeddings(sample: Sample, every: int = 5) -> dict[str, Any]:
    """Tests of the latent action z before quantization; {"reason"} for models without `embed_actions`.

    s_pcfc: cosine of z(o_{t-1}, o_t) and z(o_{t+1}, o_t), which share nothing but the frame that they end in (lower:
    less of that frame; a latent that is odd in motion reads minus its autocorrelation). `raw` as published (CoMo,
    CARE); `centred` about the mean of all real steps, where two random steps read 0.

    r_zero, r_shift: distance of z(o, o) and z(o, o shifted by 3 px) from the latent of "nothing happens", relative to
    the root mean square distance of real steps. `raw` is the published form (CD-LAM): about 0. For latents normalized
    to one length it is 1 by construction; and about the mean it would penalize a model that represents "nothing" by a
    latent of its own. `about_null` therefore takes the mean of z(o, o) over the OTHER trajectories as origin. Both are
    equal for a latent whose "nothing" is 0.

    leakage: E cos(same trajectory, different primitive) - E cos(different trajectories, same primitive), centered, with
    primitives = k-means of the true motion: negative for codes of motion, above 0 where the latents of a trajectory are
    more similar than those of a motion.
    """
    if not hasattr(sample.genie, "embed_actions"):
        return {"reason": "this model does not give its latent actions before quantization (`embed_actions`)"}
    whole, parts, owner, ending = [], [], [], []
    for i in sample.each("embeddings"):
        frames = sample.frames(i)
        at = sample.some(i, every)
        middle = at[at > 0]
        rng = sample.rng(i, 6)
        still = pairs(frames, at, at)
        moved = np.stack([jitter(pair, rng) for pair in still])
        clips = np.concatenate([pairs(frames, middle - 1, middle), pairs(frames, middle + 1, middle), still, moved])
        n, m = len(middle), len(at)
        parts.append(np.split(sample.embed(clips)[:, 0], [n, 2 * n, 2 * n + m]))
        owner.append(np.full(m, i))
        ending.append(np.full(n, i))
        whole.append(sample.embed(frames[None])[0])
    real, trajectory = np.concatenate(whole), np.concatenate(owner)
    forth, back, rest, shake = (np.concatenate(part) for part in zip(*parts, strict=True))
    mean = real.mean(axis=0)
    result: dict[str, Any] = {"dimensions": real.shape[1]}
    if len(forth):
        raw, centered = (
            share_of(cosine(forth - o, back - o), np.concatenate(ending), len(sample), sample.seed)
            for o in (0 * mean, mean)
        )
        result["s_pcfc"] = {
            "raw": raw.value, "raw_ci95": raw.ci95, "raw_null": _mean_cosine(real),
            "centred": centered.value, "centred_ci95": centered.ci95,
        }  # fmt: skip
    result |= {
        "r_zero": _response(sample, rest, trajectory, rest, real, mean, ZERO_MARK),
        "r_shift": _response(sample, shake, trajectory, rest, real, mean, SHIFT_MARK),
        "leakage": leakage(sample, real - mean),
    }
    return result


def cosine(a: Float[np.ndarray, "n E"], b: Float[np.ndarray, "n E"]) -> Float[np.ndarray, " n"]:
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return (a * b).sum(axis=1) / np.maximum(lengths, 1e-12)


def _unit(z: Float[np.ndarray, "M E"]) -> Float[np.ndarray, "M E"]:
    return z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-12)


def _mean_cosine(z: Float[np.ndarray, "M E"]) -> float:
    """Mean cosine of two different rows."""
    unit = _unit(z)
    return float(((unit.sum(axis=0) ** 2).sum() - (unit**2).sum()) / (len(z) * max(len(z) - 1, 1)))


def _response(
    sample: Sample,
    response: Float[np.ndarray, "n E"],
    trajectory: Int[np.ndarray, " n"],
    rest: Float[np.ndarray, "n E"],
    real: Float[np.ndarray, "M E"],
    mean: Float[np.ndarray, " E"],
    mark: float,
) -> dict[str, Any]:
    """Size of a response relative to the RMS size of real steps, about 0, the mean, and the latent of nothing.

    response, rest: latents of the altered and of the still pairs, of these trajectories. real, mean: latents of real
    steps and their mean.
    """
    size = len(sample)
    total = group_sums(rest, trajectory, size)
    count = np.bincount(trajectory, minlength=size).astype(float)[:, None]
    others = (total.sum(axis=0) - total) / np.maximum(count.sum() - count, 1)  # (I, E): the origin for each trajectory
    if size == 1:
        others = total / count
    ratios = {}
    for name, origin in (
        ("raw", np.zeros((size, len(mean)))),
        ("about_mean", np.tile(mean, (size, 1))),
        ("about_null", others),
    ):
        ours = ((response - origin[trajectory]) ** 2).sum(axis=1)
        theirs = ((real - origin[sample.table.trajectory]) ** 2).sum(axis=1)
        top = np.bincount(trajectory, weights=ours, minlength=size) / count[:, 0]
        steps = np.bincount(sample.table.trajectory, minlength=size)
        bottom = np.bincount(sample.table.trajectory, weights=theirs, minlength=size) / steps
        found = share(top, bottom, sample.seed)
        ratios[name] = np.sqrt(found.value)
        if name == "about_null":
            ratios["ci95"] = np.sqrt(found.ci95)
    return ratios | {"mark": mark, "pass": ratios["about_null"] <= mark}


def leakage(sample: Sample, z: Float[np.ndarray, "M E"]) -> dict[str, Any]:
    """The two mean cosines and their difference, with interval; {"reason"} where no motion defines the primitives."""
    table, size = sample.table, sample.num_codes
    why = table.why_unusable("base")
    if why is None and len(z) < MIN_ROWS * size:
        why = f"{len(z)} transitions are too few to find {size} primitives in their motion"
    if why is not None:
        return {"reason": why}
    primitive = quantize(table.motions["base"], table.trajectory, size, seed=sample.seed)
    unit = _unit(z)
    by_code = code_sums(primitive, unit, table.trajectory, size)
    sums, counts = by_code.total, by_code.count
    weights = np.concatenate([np.ones((1, len(sample))), bootstrap_weights(len(sample), DRAWS, sample.seed)])

    # Sums over pairs of rows from sums over rows: all pairs of a group minus those of its parts.
    within = (sums.sum(axis=1) ** 2).sum(axis=1) - (sums**2).sum(axis=(1, 2))
    within_pairs = counts.sum(axis=1) ** 2 - (counts**2).sum(axis=1)
    own, own_pairs = (sums**2).sum(axis=(1, 2)), (counts**2).sum(axis=1)
    across = (np.einsum("ri,ike->rke", weights, sums) ** 2).sum(axis=(1, 2)) - weights**2 @ own
    across_pairs = ((weights @ counts) ** 2).sum(axis=1) - weights**2 @ own_pairs
    with np.errstate(divide="ignore", invalid="ignore"):
        same_trajectory, same_primitive = weights @ within / (weights @ within_pairs), across / across_pairs
    return {
        "value": same_trajectory[0] - same_primitive[0], "ci95": interval((same_trajectory - same_primitive)[1:]),
        "same_trajectory": same_trajectory[0], "same_primitive": same_primitive[0],
    }  # fmt: skip
