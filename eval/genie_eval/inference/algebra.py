"""Do codes calculate as actions do? Played backwards, a step becomes its opposite; two equal steps, one twice as long.

(specification, level G2, and identity, reversal and additivity of actions.) Maps are fitted on half of the trajectories
and scored on the other half, both ways, in every bootstrap draw anew. `oracle`: the same questions asked of k-means
codes of the true motion, to which perfect codes of this number are held.
"""

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from genie_eval.codes.motion import group_means
from genie_eval.codes.nulls import k_means, nearest_centre
from genie_eval.inference.sample import DRAWS, Sample, share
from genie_eval.resampling import bootstrap_weights, interval

CELLS = 10_000_000  # of tables of code pairs held at once
FEWEST = 4  # trajectories, two to fit on and two to score
DOUBLE_GAP = (
    "steps of twice the gap are outside of what the model was trained on; where the camera is slow against the motion, "
    "read the number as a lower bound"
)


def algebra(sample: Sample, null_code: int | None = None) -> dict[str, Any]:
    """`reversal` and `additivity` (see the functions). null_code: the code of "nothing moves", if there is one."""
    backward, doubled = [], []
    for i in sample.each("reversed and doubled"):
        frames = sample.frames(i)
        # Entry s of the reversed video is the step from frame L-1-s to L-2-s: turned round, row t is t+1 to t.
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
    """Base motion in its root mean square, dimension by dimension; NOT centred, so that -m is the way back."""
    if sample.table.why_unusable("base") is not None:
        return None
    motion = sample.table.motions["base"]
    size = np.sqrt((motion**2).mean(axis=0))
    return motion[:, size > 1e-9] / size[size > 1e-9]


# ------------------------------------------------------------------------------------------------------------ reversal
def reversal(
    sample: Sample, backward: Int[np.ndarray, " M"], motion: Float[np.ndarray, "M D"] | None
) -> dict[str, Any]:
    """Is the code of a step seen backwards one global function pi of its code?

    backward[row]: code of the same two frames in the opposite order. Returns accuracy of pi on held-out trajectories
    with interval, `chance` (the commonest backward code instead), `oracle` accuracy, `map` (pi), `involution` (share of
    transitions whose code k has pi(pi(k)) = k, beside that of random maps), and `motion_cosine`: of the mean motion of
    pi(k) with minus that of k, weighted by size and share (1: pi is the way back).
    """
    size = sample.num_codes
    if len(sample) < FEWEST:
        return {"reason": f"{len(sample)} trajectories: a map is fitted on half of them and needs {FEWEST} at least"}
    counts = _pair_counts(sample, sample.codes, backward)
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
        "involution_null": (2 * size - 1) / size**2,  # of a random map: pi(k) = k, or another whose pi is k
        "n_trajectories": len(sample),
    }
    if motion is None:
        return result
    centres = k_means(motion, size, sample.seed)
    ideal, ideal_chance = _cross_fitted(
        _pair_counts(sample, nearest_centre(motion, centres), nearest_centre(-motion, centres)), halves, weights[:1]
    )
    mean = group_means(motion, sample.codes, size)
    known = seen & seen[pi]
    p = np.sqrt(share_of_code[known, None])
    return result | {
        "oracle": ideal[0],
        "oracle_skill": _skill(ideal[0], ideal_chance[0]),
        "motion_cosine": _cosine(p * mean[pi[known]], -p * mean[known]),
    }


def _cosine(a: Float[np.ndarray, "n D"], b: Float[np.ndarray, "n D"]) -> float | None:
    """Of two fields of motions, all rows together, so that large motions count and still ones do not."""
    lengths = np.sqrt((a**2).sum() * (b**2).sum())
    return float((a * b).sum() / lengths) if lengths > 0 else None


def _pair_counts(sample: Sample, first: np.ndarray, second: np.ndarray) -> Float[np.ndarray, "I K K"]:
    """How often, in each trajectory, code `first` goes with code `second`."""
    size, trajectories = sample.num_codes, len(sample)
    cell = (sample.table.trajectory * size + first) * size + second
    return np.bincount(cell, minlength=trajectories * size**2).reshape(trajectories, size, size).astype(float)


def _cross_fitted(
    counts: Float[np.ndarray, "I K K"], halves: Int[np.ndarray, " I"], weights: Float[np.ndarray, "R I"]
) -> tuple[np.ndarray, np.ndarray]:
    """(R,) accuracy of the map fitted on the other half, and of that half's commonest second code."""
    right, usual, every = np.zeros(len(weights)), np.zeros(len(weights)), np.zeros(len(weights))
    sums = [np.einsum("ri,ijk->rjk", weights[:, halves == h], counts[halves == h]) for h in (0, 1)]
    for fitted, scored in (sums, sums[::-1]):
        common = fitted.sum(axis=1).argmax(axis=1)
        guess = np.where(fitted.sum(axis=2) > 0, fitted.argmax(axis=2), common[:, None])  # unseen codes: the commonest
        right += np.take_along_axis(scored, guess[..., None], axis=2).sum(axis=(1, 2))
        usual += scored.sum(axis=1)[np.arange(len(weights)), common]
        every += scored.sum(axis=(1, 2))
    with np.errstate(divide="ignore", invalid="ignore"):
        return right / every, usual / every


def _skill(value: float, chance: float) -> float | None:
    return float((value - chance) / (1 - chance)) if chance < 1 - 1e-9 else None


# ---------------------------------------------------------------------------------------------------------- additivity
def additivity(
    sample: Sample,
    doubled: Int[np.ndarray, " M"],
    motion: Float[np.ndarray, "M D"] | None,
    null_code: int | None = None,
) -> dict[str, Any]:
    """After two steps of one code k, is the code of the step over both k too?

    Codes of a direction are. Codes of a size are not: two small steps make the code of a large one (`becomes` says
    which), and that is no fault. So read `motion_cosine` beside it: of the mean motion of the code found with that of
    k, all pairs together (1: the same direction).

    doubled[row]: code of (o_t, o_{t+2}), -1 where o_{t+2} is not in the trajectory. Returns `equal_steps` {accuracy,
    ci95, chance, skill, pairs, by_code, becomes (the commonest code found, -1 where no pair begins with it), and
    where motion is known oracle and motion_cosine} and, with a null code, `with_null`: k and "nothing moves" make k.
    """
    codes, ids = sample.codes, sample.table.trajectory
    follows = np.append((ids[1:] == ids[:-1]), False) & (doubled >= 0)
    after = np.roll(codes, -1)
    equal = follows & (codes == after)
    result = {"equal_steps": _agreement(sample, equal, codes, doubled)}
    if motion is not None:
        centres = k_means(motion, sample.num_codes, sample.seed)
        own = nearest_centre(motion, centres)
        both = nearest_centre(motion + np.roll(motion, -1, axis=0), centres)
        rows = follows & (own == np.roll(own, -1))
        result["equal_steps"]["oracle"] = float((both == own)[rows].mean()) if rows.any() else None
        mean = group_means(motion, codes, sample.num_codes)
        met = equal & np.isin(doubled, codes)  # a code that no single step has, has no motion of its own
        result["equal_steps"]["motion_cosine"] = _cosine(mean[doubled[met]], mean[codes[met]])
    if null_code is not None:
        one = follows & ((codes == null_code) != (after == null_code))
        result["with_null"] = _agreement(sample, one, np.where(codes == null_code, after, codes), doubled)
    return result


def _agreement(sample: Sample, rows: np.ndarray, asked: np.ndarray, found: np.ndarray) -> dict[str, Any]:
    """How often `found` is `asked` in these rows; chance: were both drawn from their own shares there."""
    size, trajectories = sample.num_codes, len(sample)
    ids, asked, found = sample.table.trajectory[rows], asked[rows], found[rows]
    if len(ids) == 0:
        return {"accuracy": None, "pairs": 0, "reason": "no such steps in these trajectories"}
    right = asked == found
    each = share(
        np.bincount(ids, weights=right, minlength=trajectories),
        np.bincount(ids, minlength=trajectories).astype(float),
        sample.seed,
    )
    of_asked, of_found = (np.bincount(x, minlength=size) / len(x) for x in (asked, found))
    chance = float(of_asked @ of_found)
    count = np.bincount(asked, minlength=size)
    hits = np.bincount(asked, weights=right, minlength=size)
    becomes = np.bincount(asked * size + found, minlength=size**2).reshape(size, size).argmax(axis=1)
    return {
        "accuracy": each.value, "ci95": each.ci95, "chance": chance, "skill": _skill(each.value, chance),
        "pairs": len(ids), "by_code": [h / n if n else None for h, n in zip(hits, count, strict=True)],
        "becomes": np.where(count > 0, becomes, -1),
    }  # fmt: skip
