"""Names of codes, from measured motion alone: "right", "gripper closing", "still"; "unnamed" where it is not sure.

In the base frame x points away from the robot, y to its left, z up (as in RT-1 and the tabletop).
"""

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from genie_eval.codes.code_sums import code_sums
from genie_eval.codes.transitions import Transitions
from genie_eval.metrics import plain
from genie_eval.resampling import bootstrap_weights, holm, interval

WORDS = {
    "base": (("back", "forward"), ("right", "left"), ("down", "up")),
    "gripper": (("gripper opening", "gripper closing"),),
}
GRIPPER_EITHER_WAY = (None, "gripper moving")  # a code of both opening and closing has no mean gripper motion
ALPHA = 0.05  # significance after Holm's correction over all codes and dimensions
CLEAR = 0.3  # smallest named mean motion, in SDs of the dimension
SECOND = 0.7  # share of the largest direction from which a second and third one join the name
STILL = 0.35  # a still code's root mean square motion, relative to that of all transitions


def name_codes(
    table: Transitions, codes: Int[np.ndarray, " M"], num_codes: int, draws: int, seed: int = 0
) -> list[dict[str, Any]]:
    """One object per code: {"code", "share", "name", "mean_motion", "ci95", "by_motion"}, in the motion's own units."""
    share = np.bincount(codes, minlength=num_codes) / len(codes)
    cards: list[dict[str, Any]] = [
        {"code": k, "share": share[k], "name": "unnamed", "mean_motion": None, "ci95": None, "by_motion": {}}
        for k in range(num_codes)
    ]
    usable = [m for m in ("base", "image", "gripper", "rotation", "flow") if table.why_unusable(m) is None]
    weights = bootstrap_weights(table.num_trajectories, draws, seed)
    for motion in usable:
        mean, drawn = code_means(table, table.motions[motion], codes, num_codes, weights)
        ci = interval(drawn)
        for k, card in enumerate(cards):
            card["by_motion"][motion] = {"mean": mean[k], "ci95": ci[:, k].T}
            if motion == "base":
                card["mean_motion"], card["ci95"] = mean[k], ci[:, k].T
    if "base" in usable:
        for card, name in zip(cards, _names(table, codes, num_codes, weights), strict=True):
            card["name"] = name
    return plain(cards)


def code_means(
    table: Transitions, motion: Float[np.ndarray, "M D"], codes: np.ndarray, num_codes: int, weights: np.ndarray
) -> tuple[Float[np.ndarray, "K D"], Float[np.ndarray, "R K D"]]:
    """Mean motion of each code, once and under each row of trajectory weights; NaN for a code that does not occur."""
    sums = code_sums(codes, motion, table.trajectory, num_codes)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = sums.total.sum(axis=0) / sums.count.sum(axis=0)[:, None]
        drawn = np.einsum("ri,ikd->rkd", weights, sums.total) / (weights @ sums.count)[..., None]
    return mean, drawn


def _named_columns(table: Transitions) -> tuple[list[np.ndarray], list[tuple[str | None, str]]]:
    """Columns of motion in SDs, not centered so that 0 stays "no motion", and their (negative, positive) words."""
    columns: list[np.ndarray] = []
    words: list[tuple[str | None, str]] = []
    for motion, pairs in WORDS.items():
        if table.why_unusable(motion) is None:
            for column, pair in zip(table.motions[motion].T, pairs, strict=False):
                if column.std() > 1e-9:
                    columns.append(column / column.std())
                    words.append(pair)
    if table.why_unusable("gripper") is None:
        activity = np.abs(table.motions["gripper"][:, 0])
        if activity.std() > 1e-9:
            columns.append((activity - activity.mean()) / activity.std())
            words.append(GRIPPER_EITHER_WAY)
    return columns, words


def _names(table: Transitions, codes: np.ndarray, num_codes: int, weights: np.ndarray) -> list[str]:
    from scipy.stats import norm

    columns, words = _named_columns(table)
    if not columns:
        return ["unnamed"] * num_codes
    mean, drawn = code_means(table, np.stack(columns, axis=1), codes, num_codes, weights)
    occurs = np.isfinite(mean)
    spread = np.maximum(np.where(np.isfinite(drawn), drawn, 0.0).std(axis=0), 1e-12)
    p = np.where(occurs, 2 * norm.sf(np.abs(np.nan_to_num(mean)) / spread), 1.0)
    sure = holm(p.reshape(-1)).reshape(p.shape) < ALPHA
    has_word = np.array([[pair[0] is not None for pair in words], [True] * len(words)])  # [sign, dimension]
    size = np.where(sure & (np.abs(mean) >= CLEAR) & np.where(mean > 0, has_word[1], has_word[0]), np.abs(mean), 0.0)
    base = table.motions["base"]
    energy = (base**2 / np.maximum((base**2).mean(axis=0), 1e-18)).sum(axis=1)
    names = []
    for k in range(num_codes):
        own = codes == k
        order = np.argsort(-size[k])
        first = order[0]
        if size[k, first] == 0:
            still = own.any() and energy[own].mean() < STILL**2 * energy.mean()
            names.append("still" if still else "unnamed")
        else:
            shown = [first, *(d for d in order[1:3] if size[k, d] > 0 and size[k, d] >= SECOND * size[k, first])]
            parts = [words[d][int(mean[k, d] > 0)] or "" for d in shown]
            if any(part in WORDS["gripper"][0] for part in parts):  # closing says more than moving
                parts = [part for part in parts if part != GRIPPER_EITHER_WAY[1]]
            names.append(", ".join(parts[:-1]) + " and " + parts[-1] if len(parts) > 1 else parts[0])
    return names
