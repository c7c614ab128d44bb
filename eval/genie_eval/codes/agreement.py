"""Do trajectories, and scenes, agree on what each code means? (specification, level C2, C3, C5, C7)"""

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from genie_eval.codes.code_sums import CodeSums, code_sums
from genie_eval.codes.generalizability import permutation_anova, variance_components
from genie_eval.codes.motion_statistics import MotionAssay
from genie_eval.codes.transitions import Transitions
from genie_eval.resampling import DRAWS, SWAPS, holm, permutation_p

Codes = Int[np.ndarray, " M"]
MOTION = "base"
SCENE = 10  # trajectories that a scene needs, to be asked on its own
MOST_SCENES = 24  # the largest ones
SCENE_DRAWS = 500


def consistency_details(
    table: Transitions, codes: Codes, num_codes: int, draws: int = DRAWS, seed: int = 0
) -> dict[str, Any]:
    """All on true base motion; each entry that cannot be computed holds a reason."""
    problem = table.why_unusable(MOTION)
    if not problem and codes.min() == codes.max():
        problem = "one code for everything"
    if problem:
        return {"reason": problem}
    assay = MotionAssay(table, MOTION, num_codes, draws, seed)
    scenes = _large_scenes(table)
    return {
        "codes": code_directions(table, codes, num_codes, seed),
        "variance_components": variance_components(assay, codes),
        **permutation_anova(assay, codes, seed=seed),
        "by_scene": _ctc_by_scene(table, codes, num_codes, scenes, min(draws, SCENE_DRAWS), seed),
        "cross_context": cross_context(table, codes, num_codes, scenes),
    }


def code_directions(table: Transitions, codes: Codes, num_codes: int, seed: int = 0) -> list[dict[str, Any]]:
    """By code, over the mean displacements of it in each trajectory, not centred, so that 0 is "no motion":

    cosine: mean over pairs of trajectories, unbiased ((n R^2 - 1) / (n - 1), R the resultant length);
    magnitude_cv: SD of their lengths by the mean length;
    same_side: share of trajectories whose mean lies on the side of the mean of all others; p: of such a share when the
    mean of each trajectory is turned round at random; p_holm: after Holm over codes. (A binomial p would be wrong: all
    trajectories are asked about nearly the same direction, which chance has chosen, so shares scatter too widely.)
    """
    rng = np.random.default_rng(seed)
    motion = table.motions[MOTION]
    spread = motion.std(axis=0)
    sums = code_sums(codes, motion / np.where(spread > 1e-9, spread, np.inf), table.trajectory, num_codes)
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
        turned = np.concatenate([np.ones((1, m)), rng.choice([-1.0, 1.0], size=(SWAPS, m))])
        share = _same_side(mean[moving], turned)
        row["same_side"], row["p"] = (float(share[0]), permutation_p(share[0], share[1:])) if m > 1 else (None, 1.0)
    tested = [row for row in rows if "p" in row]
    for row, adjusted in zip(tested, holm(np.array([row["p"] for row in tested])), strict=True):
        row["p_holm"] = adjusted
    return rows


def _same_side(mean: Float[np.ndarray, "n D"], turned: Float[np.ndarray, "R n"]) -> Float[np.ndarray, " R"]:
    """Share of trajectories on the side of all others, when each mean is multiplied by 1 or -1."""
    beside_others = turned * ((turned @ mean) @ mean.T) - (mean**2).sum(axis=1)
    return (beside_others > 0).mean(axis=1)


def _large_scenes(table: Transitions) -> Int[np.ndarray, " S"]:
    if table.scene is None:
        return np.zeros(0, dtype=np.int64)
    scene, count = np.unique(table.scene[table.starts[:-1]], return_counts=True)
    largest = np.argsort(-count, kind="stable")[:MOST_SCENES]
    return np.sort(scene[largest[count[largest] >= SCENE]])


def _ctc_by_scene(
    table: Transitions, codes: Codes, num_codes: int, scenes: Int[np.ndarray, " S"], draws: int, seed: int
) -> dict[str, Any]:
    """CTC inside each scene, and the worst. "Inconsistent because scenes differ" reads high here and low in `ctc`."""
    if len(scenes) == 0 or table.scene is None:
        return {"reason": f"no scene has {SCENE} trajectories"}
    rows = []
    for scene in scenes:
        chosen = table.scene[table.starts[:-1]] == scene
        part, own = table.of_trajectories(chosen), codes[chosen[table.trajectory]]
        row: dict[str, Any] = {"scene": scene, "n_trajectories": int(chosen.sum()), "ctc": None, "ci95": None}
        problem = part.why_unusable(MOTION)
        if problem:
            row["reason"] = problem
        else:
            reading = MotionAssay(part, MOTION, num_codes, draws, seed).ctc(own)
            row |= {"ctc": reading.value, "ci95": reading.ci95}
            if reading.value is None:
                row["reason"] = reading.reason
        rows.append(row)
    known = [row for row in rows if row["ctc"] is not None]
    worst = min(known, key=lambda row: row["ctc"]) if known else None
    return {"scenes": rows, "worst": worst and {"scene": worst["scene"], "ctc": worst["ctc"]}}


def cross_context(table: Transitions, codes: Codes, num_codes: int, scenes: Int[np.ndarray, " S"]) -> dict[str, Any]:
    """Code means (prototypes) of one scene, asked in another.

    r2[a][b]: of the motion in scene b, each freed of its scene's mean, told by the prototypes of a; the diagonal is
    left out (it would be in sample). cosine_same, cosine_other: mean cosine of a's prototype of a code with b's of the
    same code, and of other codes; recognised: how often the same one is the nearest.
    """
    if len(scenes) < 2 or table.scene is None:
        return {"reason": f"two scenes with {SCENE} trajectories are needed"}
    motion = table.motions[MOTION]
    spread = motion.std(axis=0)
    motion = motion / np.where(spread > 1e-9, spread, np.inf)
    index = np.searchsorted(scenes, table.scene)
    known = (index < len(scenes)) & (scenes[np.minimum(index, len(scenes) - 1)] == table.scene)
    index, motion, codes = index[known], motion[known], codes[known]
    order = np.argsort(index, kind="stable")
    centered = motion[order] - _scene_means(motion[order], index[order], len(scenes))[index[order]]
    sums = code_sums(codes[order], centered, index[order], num_codes)
    prototype = sums.total / np.maximum(sums.count, 1)[..., None]  # (S, K, D); 0, the scene's mean, for an absent code
    cross = np.einsum("skd,tkd->st", prototype, sums.total)
    length = np.einsum("skd,skd,tk->st", prototype, prototype, sums.count)
    with np.errstate(divide="ignore", invalid="ignore"):
        r2 = (2 * cross - length) / sums.square
    np.fill_diagonal(r2, np.nan)
    same, other, recognised = _cosines(prototype, sums)
    return {
        "scenes": scenes, "r2": r2, "r2_mean": np.nanmean(r2), "r2_worst": np.nanmin(r2),
        "cosine_same": same, "cosine_other": other, "diagonal_dominance": same - other, "recognised": recognised,
    }  # fmt: skip


def _scene_means(motion: Float[np.ndarray, "M D"], scene: Int[np.ndarray, " M"], scenes: int) -> np.ndarray:
    total = np.stack([np.bincount(scene, weights=c, minlength=scenes) for c in motion.T], axis=1)
    return total / np.bincount(scene, minlength=scenes)[:, None]


def _cosines(prototype: Float[np.ndarray, "S K D"], sums: CodeSums) -> tuple[float, float, float]:
    length = np.linalg.norm(prototype, axis=2)
    present = length > 1e-9
    unit = prototype / np.where(present, length, 1)[..., None]
    same, other, hits = [], [], []
    for a in range(len(unit)):
        for b in range(len(unit)):
            both = np.flatnonzero(present[a] & present[b])
            if a == b or len(both) < 2:
                continue
            cosine = unit[a, both] @ unit[b, both].T
            diagonal = np.eye(len(both), dtype=bool)
            same.append(np.diag(cosine))
            other.append(cosine[~diagonal])
            hits.append(cosine.argmax(axis=1) == np.arange(len(both)))
    if not same:
        return float("nan"), float("nan"), float("nan")
    return float(np.concatenate(same).mean()), float(np.concatenate(other).mean()), float(np.concatenate(hits).mean())
