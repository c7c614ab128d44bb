"""Algebra of the codes: reversal (a step played backwards) and additivity (two equal steps as one).

(Level G.) Maps are fitted on half of the trajectories and scored on the other half, both ways, in every bootstrap draw.
`oracle` is the result for k-means codes of the true motion, which perfect codes of this number would reach.
"""

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from genie_eval.codes.motion import group_means
from genie_eval.codes.quantize import k_means, nearest_center
from genie_eval.dreams.channel import confusion
from genie_eval.inference.sample import DRAWS, Sample, share_of
from genie_eval.resampling import bootstrap_weights, interval

CELLS = 10_000_000  # numbers of the tables of code pairs in memory at once
FEWEST = 4  # trajectories, two to fit on and two to score
DOUBLE_GAP = "steps of twice the gap are outside of the training data; at a low frame rate the number is a lower bound"


def algebra(sample: Sample, null_code: int | None = None) -> dict[str, Any]:
    """`reversal` and `additivity` (see the functions). null_code: the code of "nothing moves", if there is one."""
    backward, doubled = [], []
    for i in sample.each("reversed and doubled"):
        frames = sample.frames(i)
        # Entry s of the reversed video is the step from frame L-1-s to L-2-s; reversed again, row t is t+1 to t.
        backward.append(sample.infer(np.ascontiguousarray(frames[None, ::-1]))[0, ::-1])
        double = np.full(len(frames) - 1, -1)
        for phase in (0, 1):
            if len(frames[phase::2]) > 1:
                codes = sample.infer(frames[None, phase::2])[0]
                double[phase : phase + 2 * len(codes) : 2] = codes
        doubled.append(double)
    motion = _scaled_motion(sample)
    return {
        "reversal": reversal(sample, np.concatenate(backward), motion),
        "additivity": additivity(sample, np.concatenate(doubled), motion, null_code) | {"note": DOUBLE_GAP},
    }


def _scaled_motion(sample: Sample) -> Float[np.ndarray, "M D"] | None:
    """Base motion divided by its root mean square in each dimension; NOT centered, so that -m is the way back."""
    if sample.table.why_unusable("base") is not None:
        return None
    motion = sample.table.motions["base"]
    size = np.sqrt((motion**2).mean(axis=0))
    return motion[:, size > 1e-9] / size[size > 1e-9]


def reversal(
    sample: Sample, backward: Int[np.ndarray, " M"], motion: Float[np.ndarray, "M D"] | None
) -> dict[str, Any]:
    """Is the code of a step seen backwards a global function pi of its code?

    backward[row]: code of the same two frames in the opposite order.

    Returns the accuracy of pi on held-out trajectories with its interval; chance (the most common backward code
    instead); oracle accuracy; map (pi); involution (share of transitions whose code k has pi(pi(k)) = k) with that of
    random maps; motion_cosine of the mean motion of pi(k) with minus that of k, weighted by size and share (1: pi is
    the way back).
    """
    size = sample.num_codes
    if len(sample) < FEWEST:
        return {"reason": f"a map needs {FEWEST} trajectories, half to fit and half to score; got {len(sample)}"}
    counts = confusion(sample.codes, backward, sample.table.trajectory, size)
    halves = np.random.default_rng([sample.seed, 11]).permutation(len(sample)) % 2
    weights = np.concatenate([np.ones((1, len(sample))), bootstrap_weights(len(sample), DRAWS, sample.seed)])
    some = max(1, CELLS // size**2)  # rows of weights at once: with many codes the tables are large
    parts = [_cross_fitted(counts, halves, weights[r : r + some]) for r in range(0, len(weights), some)]
    accuracy, chance = (np.concatenate(part) for part in zip(*parts, strict=True))
    total = counts.sum(axis=0)
    seen = total.sum(axis=1) > 0
    pi = np.where(seen, total.argmax(axis=1), -1)
    share_of_code = total.sum(axis=1) / total.sum()
    returns = seen & (pi[pi] == np.arange(size))
    result = {
        "accuracy": accuracy[0],
        "ci95": interval(accuracy[1:]),
        "chance": chance[0],
        "skill": _skill(accuracy[0], chance[0]),
        "map": pi,
        "involution": float(share_of_code[returns].sum()),
        "involution_null": (2 * size - 1) / size**2,  # of a random map: pi(k) = k, or another code whose pi is k
        "n_trajectories": len(sample),
    }
    if motion is None:
        return result
    centers = k_means(motion, size, sample.seed)
    there, back = nearest_center(motion, centers), nearest_center(-motion, centers)
    ideal, ideal_chance = _cross_fitted(confusion(there, back, sample.table.trajectory, size), halves, weights[:1])
    mean = group_means(motion, sample.codes, size)
    known = seen & seen[pi]
    p = np.sqrt(share_of_code[known, None])
    return result | {
        "oracle": ideal[0],
        "oracle_skill": _skill(ideal[0], ideal_chance[0]),
        "motion_cosine": _cosine(p * mean[pi[known]], -p * mean[known]),
    }


def _cosine(a: Float[np.ndarray, "n D"], b: Float[np.ndarray, "n D"]) -> float | None:
    """Cosine of two sets of motions, all rows together, so that large motions count more."""
    lengths = np.sqrt((a**2).sum() * (b**2).sum())
    return float((a * b).sum() / lengths) if lengths > 0 else None


def _cross_fitted(
    counts: Float[np.ndarray, "I K K"], halves: Int[np.ndarray, " I"], weights: Float[np.ndarray, "R I"]
) -> tuple[np.ndarray, np.ndarray]:
    """(R,) accuracy of the map fitted on the other half, and of that half's most common second code."""
    right, usual, every = np.zeros(len(weights)), np.zeros(len(weights)), np.zeros(len(weights))
    sums = [np.einsum("ri,ijk->rjk", weights[:, halves == h], counts[halves == h]) for h in (0, 1)]
    for fitted, scored in (sums, sums[::-1]):
        common = fitted.sum(axis=1).argmax(axis=1)
        guess = np.where(fitted.sum(axis=2) > 0, fitted.argmax(axis=2), common[:, None])  # unseen: the most common
        right += np.take_along_axis(scored, guess[..., None], axis=2).sum(axis=(1, 2))
        usual += scored.sum(axis=1)[np.arange(len(weights)), common]
        every += scored.sum(axis=(1, 2))
    with np.errstate(divide="ignore", invalid="ignore"):
        return right / every, usual / every


def _skill(value: float, chance: float) -> float | None:
    return float((value - chance) / (1 - chance)) if chance < 1 - 1e-9 else None


def additivity(
    sample: Sample,
    doubled: Int[np.ndarray, " M"],
    motion: Float[np.ndarray, "M D"] | None,
    null_code: int | None = None,
) -> dict[str, Any]:
    """After two steps with the same code k, does the step over both have code k too?

    It does for codes of a direction. It does not for codes of a size: two small steps make the code of a large one
    (`becomes`), which is not a fault. motion_cosine distinguishes them: cosine of the mean motion of the code found and
    that of k, all pairs together (1: the same direction).

    doubled[row]: code of (o_t, o_{t+2}); -1 where o_{t+2} is not in the trajectory.

    Returns `equal_steps` {accuracy, ci95, chance, skill, pairs, by_code, becomes (the most common code found, -1 where
    no pair begins with k), and where motion is known oracle and motion_cosine} and, with a null code, `with_null`: k
    and "nothing moves" make k.
    """
    codes, ids = sample.codes, sample.table.trajectory
    follows = np.append((ids[1:] == ids[:-1]), False) & (doubled >= 0)
    after = np.roll(codes, -1)
    equal = follows & (codes == after)
    result = {"equal_steps": _agreement(sample, equal, codes, doubled)}
    if motion is not None:
        centers = k_means(motion, sample.num_codes, sample.seed)
        own = nearest_center(motion, centers)
        both = nearest_center(motion + np.roll(motion, -1, axis=0), centers)
        rows = follows & (own == np.roll(own, -1))
        result["equal_steps"]["oracle"] = float((both == own)[rows].mean()) if rows.any() else None
        mean = group_means(motion, codes, sample.num_codes)
        met = equal & np.isin(doubled, codes)  # a code that no single step has, has no mean motion
        result["equal_steps"]["motion_cosine"] = _cosine(mean[doubled[met]], mean[codes[met]])
    if null_code is not None:
        one = follows & ((codes == null_code) != (after == null_code))
        result["with_null"] = _agreement(sample, one, np.where(codes == null_code, after, codes), doubled)
    return result


def _agreement(sample: Sample, rows: np.ndarray, expected: np.ndarray, found: np.ndarray) -> dict[str, Any]:
    """Share of these rows where `found` equals `expected`; chance: both drawn from their own shares there."""
    size, trajectories = sample.num_codes, len(sample)
    ids, expected, found = sample.table.trajectory[rows], expected[rows], found[rows]
    if len(ids) == 0:
        return {"accuracy": None, "pairs": 0, "reason": "no such steps in these trajectories"}
    right = expected == found
    each = share_of(right, ids, trajectories, sample.seed)
    of_expected, of_found = (np.bincount(x, minlength=size) / len(x) for x in (expected, found))
    chance = float(of_expected @ of_found)
    count = np.bincount(expected, minlength=size)
    hits = np.bincount(expected, weights=right, minlength=size)
    becomes = np.bincount(expected * size + found, minlength=size**2).reshape(size, size).argmax(axis=1)
    return {
        "accuracy": each.value, "ci95": each.ci95, "chance": chance, "skill": _skill(each.value, chance),
        "pairs": len(ids), "by_code": [h / n if n else None for h, n in zip(hits, count, strict=True)],
        "becomes": np.where(count > 0, becomes, -1),
    }  # fmt: skip
