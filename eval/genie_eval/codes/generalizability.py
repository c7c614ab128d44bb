"""Variance of motion by code, scene and trajectory (a generalizability study), and PERMANOVA and PERMDISP (level C)."""

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from genie_eval.codes.code_sums import CodeSums
from genie_eval.codes.consistency import consistency, pair_sums, products_across
from genie_eval.codes.motion import group_means, group_sums
from genie_eval.codes.motion_statistics import MotionStatistics
from genie_eval.resampling import interval, permutation_p, swap_null

Codes = Int[np.ndarray, " M"]
SWAPS = 199


def variance_components(statistics: MotionStatistics, codes: Codes) -> dict[str, Any]:
    """Variance of motion (without phase and trajectory means, z-scored, summed over dimensions) by what it goes with.

    Estimated from moments, which stay unbiased under any imbalance. The mean product of two motions of one code is the
    variance that they share: in different scenes that of the code; in one scene but different trajectories that of code
    and code x scene; in one trajectory (at least `lag` steps apart) that of code x trajectory too. The mean product
    whatever the codes is subtracted from each. Codes are weighted by their shares, as in the total.

    coefficient: the generalizability coefficient, the share of a code's variance inside one trajectory that belongs to
    the code alone (negative components count as 0).
    """
    table = statistics.table
    if statistics.lag is None:
        return {"reason": "trajectories are too short for pairs of transitions whose motions are decorrelated"}
    pairs = pair_sums(codes, statistics.residual, table.trajectory, statistics.num_codes, statistics.lag)
    scene = None if table.scene is None else table.scene[table.starts[:-1]]
    if scene is not None and len(np.unique(scene)) in (1, len(scene)):  # nothing to compare, between or within scenes
        scene = None
    names = ["code", "code_trajectory"] if scene is None else ["code", "code_scene", "code_trajectory"]

    def components(weights: np.ndarray) -> Float[np.ndarray, "R C"]:
        share = weights @ pairs.sums.count
        inside = _by_share(consistency(pairs, weights).code_within, share)
        apart, together = (_by_share(each, share) for each in _mean_products(pairs.sums, scene, weights))
        if scene is None:
            return np.stack([apart, inside - apart], axis=1)
        return np.stack([apart, together - apart, inside - together], axis=1)

    once, drawn = components(np.ones((1, table.num_trajectories)))[0], components(statistics.weights)
    if not np.isfinite(once).all():
        return {"reason": "no code occurs twice in a trajectory far enough apart, or in two scenes"}
    ci, whole = interval(drawn), float((statistics.residual**2).sum() / len(codes))
    result: dict[str, Any] = {
        name: {"value": value, "ci95": ci[:, c]} for c, (name, value) in enumerate(zip(names, once, strict=True))
    }
    result["residual"] = {"value": whole - once.sum()}
    result["total"], result["of_total"] = whole, dict(zip(names, once / whole, strict=True))
    result["coefficient"] = {"value": _coefficient(once[None])[0], "ci95": interval(_coefficient(drawn))}
    if scene is None:
        result["code_scene"] = {"reason": "scenes are not named, or none has two trajectories"}
    return result


def _coefficient(components: Float[np.ndarray, "R C"]) -> Float[np.ndarray, " R"]:
    positive = np.maximum(components, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return positive[:, 0] / positive.sum(axis=1)


def _by_share(values: Float[np.ndarray, "R K"], share: Float[np.ndarray, "R K"]) -> Float[np.ndarray, " R"]:
    """Mean over codes, weighted by their shares; codes without a value (they have no such pairs) are left out."""
    known = np.isfinite(values) & (share > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(known, values * share, 0.0).sum(axis=1) / np.where(known, share, 0.0).sum(axis=1)


def _mean_products(
    sums: CodeSums, scene: Int[np.ndarray, " I"] | None, weights: Float[np.ndarray, "R I"]
) -> tuple[np.ndarray, np.ndarray]:
    """(R, K) mean products of motions of one code minus those of any, of two trajectories of (different, equal) scenes.

    Without scenes the first is that of any two trajectories.
    """
    whole = CodeSums(sums.count.sum(axis=1, keepdims=True), sums.total.sum(axis=1, keepdims=True), sums.square)
    every = [*products_across(sums, weights), *products_across(whole, weights)]
    near = [np.zeros_like(part) for part in every]
    for s in np.unique(scene) if scene is not None else ():
        own = scene == s
        inside, inside_whole = (CodeSums(c.count[own], c.total[own], c.square[own]) for c in (sums, whole))
        found = [*products_across(inside, weights[:, own]), *products_across(inside_whole, weights[:, own])]
        for part, more in zip(near, found, strict=True):
            part += more
    far = [a - b for a, b in zip(every, near, strict=True)]
    with np.errstate(divide="ignore", invalid="ignore"):
        apart, together = ((top / bottom - any_top / any_bottom) for top, bottom, any_top, any_bottom in (far, near))
    return apart, together


def permutation_anova(statistics: MotionStatistics, codes: Codes, seed: int = 0) -> dict[str, dict[str, Any]]:
    """PERMANOVA (do codes differ in mean motion?) and PERMDISP (do they differ in spread?).

    Pseudo-F with p from whole-trajectory swaps of the codes. A small p of PERMDISP warns that that of PERMANOVA may be
    due to spread.
    """
    motion, num_codes = statistics.phase_free, statistics.num_codes

    def both_f(codes: Codes) -> tuple[float, float]:
        count = np.bincount(codes, minlength=num_codes)
        mean = group_means(motion, codes, num_codes)
        distance = np.sqrt(((motion - mean[codes]) ** 2).sum(axis=1))
        return _pseudo_f(motion, codes, count), _pseudo_f(distance[:, None], codes, count)

    null = swap_null(both_f, codes, statistics.table.starts, SWAPS, seed)
    return {
        name: {"pseudo_f": found, "null": null[:, c].mean(), "p": permutation_p(found, null[:, c])}
        for c, (name, found) in enumerate(zip(("permanova", "permdisp"), both_f(codes), strict=True))
    }


def _pseudo_f(values: Float[np.ndarray, "M D"], codes: Codes, count: Int[np.ndarray, " K"]) -> float:
    sums = group_sums(values, codes, len(count))
    used, rows = int((count > 0).sum()), len(values)
    center = sums.sum(axis=0) / rows
    between = float((sums**2 / np.maximum(count, 1)[:, None]).sum() - rows * (center**2).sum())
    within = float((values**2).sum() - rows * (center**2).sum()) - between
    return (between / max(used - 1, 1)) / max(within / max(rows - used, 1), 1e-18)
