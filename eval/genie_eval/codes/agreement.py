"""Agreement of trajectories, and of scenes, on the meaning of each code (level C)."""

from itertools import permutations
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from genie_eval.codes.code_sums import code_sums
from genie_eval.codes.generalizability import permutation_anova, variance_components
from genie_eval.codes.motion import group_means, scaled
from genie_eval.codes.motion_statistics import MotionStatistics
from genie_eval.codes.transitions import Transitions
from genie_eval.resampling import DRAWS, SWAPS, holm, permutation_p

Codes = Int[np.ndarray, " M"]
MOTION = "base"
MIN_SCENE = 10  # trajectories of a scene that is measured on its own
MAX_SCENES = 24  # the largest ones
SCENE_DRAWS = 500


def consistency_details(
    table: Transitions, codes: Codes, num_codes: int, draws: int = DRAWS, seed: int = 0
) -> dict[str, Any]:
    """All details of consistency on true base motion; what cannot be computed holds a "reason"."""
    problem = table.why_unusable(MOTION)
    if not problem and codes.min() == codes.max():
        problem = "one code for everything"
    if problem:
        return {"reason": problem}
    statistics = MotionStatistics(table, MOTION, num_codes, draws, seed)
    scenes = _large_scenes(table)
    return {
        "codes": code_directions(table, codes, num_codes, seed),
        "variance_components": variance_components(statistics, codes),
        **permutation_anova(statistics, codes, seed=seed),
        "by_scene": _ctc_by_scene(table, codes, num_codes, scenes, min(draws, SCENE_DRAWS), seed),
        "cross_context": cross_context(table, codes, num_codes, scenes),
    }


def code_directions(table: Transitions, codes: Codes, num_codes: int, seed: int = 0) -> list[dict[str, Any]]:
    """For each code, how its mean displacements in the trajectories agree; not centered, so that 0 is "no motion".

    cosine: mean over pairs of trajectories, unbiased ((n R^2 - 1) / (n - 1), R the resultant length).
    magnitude_cv: SD of the lengths divided by the mean length.
    same_side: share of trajectories whose mean lies on the side of the mean of all others.
    p: of such a share when the means of the trajectories change sign at random. (A binomial p would be wrong: all
    trajectories are compared with nearly the same direction, which is random itself, so that shares scatter more.)
    p_holm: p after Holm's correction over codes.
    """
    rng = np.random.default_rng(seed)
    sums = code_sums(codes, scaled(table.motions[MOTION]), table.trajectory, num_codes)
    rows: list[dict[str, Any]] = []
    for k in range(num_codes):
        has = sums.count[:, k] > 0
        row: dict[str, Any] = {"code": k, "n_trajectories": int(has.sum())}
        rows.append(row)
        if row["n_trajectories"] < 2:
            row["reason"] = "fewer than two trajectories have this code"
            continue
        mean = sums.total[has, k] / sums.count[has, k, None]
        length = np.linalg.norm(mean, axis=1)
        moving = length > 1e-9
        unit, m = mean[moving] / length[moving, None], int(moving.sum())
        row["cosine"] = float(((unit.sum(axis=0) ** 2).sum() - m) / (m * (m - 1))) if m > 1 else None
        row["magnitude_cv"] = float(length.std() / length.mean()) if moving.any() else None
        signs = np.concatenate([np.ones((1, m)), rng.choice([-1.0, 1.0], size=(SWAPS, m))])
        row["same_side"], row["p"] = None, 1.0
        if m > 1:
            share = _same_side(mean[moving], signs)
            row["same_side"], row["p"] = float(share[0]), permutation_p(share[0], share[1:])
    tested = [row for row in rows if "p" in row]
    for row, adjusted in zip(tested, holm(np.array([row["p"] for row in tested])), strict=True):
        row["p_holm"] = adjusted
    return rows


def _same_side(mean: Float[np.ndarray, "n D"], signs: Float[np.ndarray, "R n"]) -> Float[np.ndarray, " R"]:
    """Share of trajectories on the side of all others, when each mean is multiplied by its sign."""
    with_others = signs * ((signs @ mean) @ mean.T) - (mean**2).sum(axis=1)
    return (with_others > 0).mean(axis=1)


def _large_scenes(table: Transitions) -> Int[np.ndarray, " S"]:
    if table.scene is None:
        return np.zeros(0, dtype=np.int64)
    scene, count = np.unique(table.scene[table.starts[:-1]], return_counts=True)
    largest = np.argsort(-count, kind="stable")[:MAX_SCENES]
    return np.sort(scene[largest[count[largest] >= MIN_SCENE]])


def _ctc_by_scene(
    table: Transitions, codes: Codes, num_codes: int, scenes: Int[np.ndarray, " S"], draws: int, seed: int
) -> dict[str, Any]:
    """CTC inside each scene, and the worst. Codes that differ between scenes only read high here and low in `ctc`."""
    if len(scenes) == 0 or table.scene is None:
        return {"reason": f"no scene has {MIN_SCENE} trajectories"}
    rows = []
    for scene in scenes:
        chosen = table.scene[table.starts[:-1]] == scene
        part, own = table.of_trajectories(chosen), codes[chosen[table.trajectory]]
        row: dict[str, Any] = {"scene": scene, "n_trajectories": int(chosen.sum()), "ctc": None, "ci95": None}
        reason = part.why_unusable(MOTION)
        if not reason:
            reading = MotionStatistics(part, MOTION, num_codes, draws, seed).ctc(own)
            row |= {"ctc": reading.value, "ci95": reading.ci95}
            reason = reading.reason
        rows.append(row | ({"reason": reason} if row["ctc"] is None else {}))
    known = [row for row in rows if row["ctc"] is not None]
    worst = min(known, key=lambda row: row["ctc"]) if known else None
    return {"scenes": rows, "worst": worst and {"scene": worst["scene"], "ctc": worst["ctc"]}}


def cross_context(table: Transitions, codes: Codes, num_codes: int, scenes: Int[np.ndarray, " S"]) -> dict[str, Any]:
    """Mean motions of the codes (prototypes) in one scene, applied to another.

    r2[a][b]: R2 of the motion in scene b, minus its scene's mean, predicted by the prototypes of scene a; the diagonal
    is left out, since it would be in sample. cosine_same, cosine_other: mean cosine of a's prototype of a code with b's
    of the same code, and of other codes. recognised: how often the same code is the nearest.
    """
    if len(scenes) < 2 or table.scene is None:
        return {"reason": f"two scenes with {MIN_SCENE} trajectories are needed"}
    motion = scaled(table.motions[MOTION])
    index = np.searchsorted(scenes, table.scene)
    known = (index < len(scenes)) & (scenes[np.minimum(index, len(scenes) - 1)] == table.scene)
    order = np.flatnonzero(known)[np.argsort(index[known], kind="stable")]
    index, motion, codes = index[order], motion[order], codes[order]
    centered = motion - group_means(motion, index, len(scenes))[index]
    sums = code_sums(codes, centered, index, num_codes)
    prototype = sums.total / np.maximum(sums.count, 1)[..., None]  # (S, K, D); 0, the scene's mean, for an absent code
    cross = np.einsum("skd,tkd->st", prototype, sums.total)
    length = np.einsum("skd,skd,tk->st", prototype, prototype, sums.count)
    with np.errstate(divide="ignore", invalid="ignore"):
        r2 = (2 * cross - length) / sums.square
    np.fill_diagonal(r2, np.nan)
    same, other, recognized = _cosines(prototype)
    return {
        "scenes": scenes, "r2": r2, "r2_mean": np.nanmean(r2), "r2_worst": np.nanmin(r2),
        "cosine_same": same, "cosine_other": other, "diagonal_dominance": same - other, "recognised": recognized,
    }  # fmt: skip


def _cosines(prototype: Float[np.ndarray, "S K D"]) -> tuple[float, float, float]:
    """(mean cosine of equal codes of two scenes, of different codes, share of codes whose nearest is the same code)."""
    length = np.linalg.norm(prototype, axis=2)
    present = length > 1e-9
    unit = prototype / np.where(present, length, 1)[..., None]
    same, other, hits = [], [], []
    for a, b in permutations(range(len(unit)), 2):
        both = np.flatnonzero(present[a] & present[b])
        if len(both) >= 2:
            cosine = unit[a, both] @ unit[b, both].T
            same.append(np.diag(cosine))
            other.append(cosine[~np.eye(len(both), dtype=bool)])
            hits.append(cosine.argmax(axis=1) == np.arange(len(both)))
    if not same:
        return float("nan"), float("nan"), float("nan")
    return float(np.concatenate(same).mean()), float(np.concatenate(other).mean()), float(np.concatenate(hits).mean())
