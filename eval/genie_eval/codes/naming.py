"""Names for codes, from measured motion alone: "right", "gripper closing", "still"; "unnamed" where it is not sure.

The base frame: x away from the robot, y to its left, z up (RT-1's and the tabletop's).
"""

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from genie_eval.codes.code_sums import code_sums
from genie_eval.codes.transitions import Transitions
from genie_eval.metric import plain
from genie_eval.resampling import bootstrap_weights, holm, interval

WORDS = {
    "base": (("back", "forward"), ("right", "left"), ("down", "up")),
    "gripper": (("gripper opening", "gripper closing"),),
}
GRIPPER_EITHER_WAY = (None, "gripper moving")  # opening and closing under one code have no mean, but are no accident
ALPHA = 0.05  # after Holm over all codes and dimensions
CLEAR = 0.3  # SD of the dimension; a smaller mean motion is no meaning, however sure
SECOND = 0.7  # a second and third direction join the name from this share of the first
STILL = 0.35  # root mean square of the code's base motion against that of all transitions


def name_codes(
    table: Transitions, codes: Int[np.ndarray, " M"], num_codes: int, draws: int, seed: int = 0
) -> list[dict[str, Any]]:
    """One object a code: {"code", "share", "name", "mean_motion", "ci95", "by_motion"}, in the motion's own units."""
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
    """Mean motion of each code, and under each row of trajectory weights; NaN for a code that does not occur."""
    sums = code_sums(codes, motion, table.trajectory, num_codes)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = sums.total.sum(axis=0) / sums.count.sum(axis=0)[:, None]
        drawn = np.einsum("ri,ikd->rkd", weights, sums.total) / (weights @ sums.count)[..., None]
    return mean, drawn


def _names(table: Transitions, codes: np.ndarray, num_codes: int, weights: np.ndarray) -> list[str]:
    from scipy.stats import norm

    columns: list[np.ndarray] = []
    words: list[tuple[str | None, str]] = []
    for motion, pairs in WORDS.items():
        if table.why_unusable(motion) is None:
            for column, pair in zip(table.motions[motion].T, pairs, strict=False):
                if column.std() > 1e-9:
                    columns.append(column / column.std())  # not centred: 0 stays "no motion"
                    words.append(pair)
    if table.why_unusable("gripper") is None:
        activity = np.abs(table.motions["gripper"][:, 0])
        if activity.std() > 1e-9:
            columns.append((activity - activity.mean()) / activity.std())
            words.append(GRIPPER_EITHER_WAY)
    if not columns:
        return ["unnamed"] * num_codes
    values = np.stack(columns, axis=1)
    mean, drawn = code_means(table, values, codes, num_codes, weights)
    occurs = np.isfinite(mean)
    spread = np.maximum(np.where(np.isfinite(drawn), drawn, 0.0).std(axis=0), 1e-12)
    p = np.where(occurs, 2 * norm.sf(np.abs(np.nan_to_num(mean)) / spread), 1.0)
    sure = holm(p.reshape(-1)).reshape(p.shape) < ALPHA
    said = np.array([[pair[0] is not None for pair in words], [True] * len(words)])  # has this sign a word?
    size = np.where(sure & (np.abs(mean) >= CLEAR) & np.where(mean > 0, said[1], said[0]), np.abs(mean), 0.0)
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
