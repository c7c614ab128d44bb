"""Information of the code on each dimension of motion: explained variance, bits, gripper events (level B)."""

from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from genie_eval.codes.code_sums import code_sums
from genie_eval.codes.grounding import held_out_r2
from genie_eval.codes.motion import STILL, zscore
from genie_eval.codes.quantize import k_means, nearest_center
from genie_eval.codes.transitions import Transitions
from genie_eval.codes.usage_stats import entropy_bits
from genie_eval.resampling import swap_null

Codes = Int[np.ndarray, " M"]
MOTIONS = ("base", "image", "rotation", "gripper", "flow")
NEIGHBORS = 5
MAX_ROWS = 8000  # rows of whole trajectories, for the neighbor search
SWAPS = 5  # for the mean of the null of the bits
EVENT = 0.1  # share of the largest gripper motion from which a motion is an event
MIN_EVENTS = 10


def grounding_details(
    table: Transitions, codes: Codes, num_codes: int, oracle: Codes | None = None, seed: int = 0
) -> dict[str, Any]:
    """Explained variance and bits by motion, AUROC of the gripper's events, and AMI with the oracle's codes."""
    rows: dict[str, Any] = {"by_motion": {}}
    for name in MOTIONS:
        problem = table.why_unusable(name)
        if problem:
            rows["by_motion"][name] = {"reason": problem}
            continue
        rows["by_motion"][name] = {
            "dimensions": by_dimension(table.motions[name], codes, table.trajectory, num_codes),
            "information_bits": code_motion_bits(table, name, codes, seed),
        }
    problem = table.why_unusable("gripper")
    rows["gripper_auroc"] = {"reason": problem} if problem else gripper_auroc(table, codes, num_codes)
    rows["oracle_ami"] = _oracle_ami(table, codes, num_codes, oracle, seed)
    return rows


def by_dimension(
    motion: Float[np.ndarray, "M D"], codes: Codes, trajectory: Int[np.ndarray, " M"], num_codes: int
) -> dict[str, list[float | None]]:
    """Explained variance of each dimension; None for one that does not move.

    eta2: share of the variance between codes, in sample. omega2: eta2 without the bias of many codes. r2: in other
    trajectories.
    """
    rows: dict[str, list[float | None]] = {"eta2": [], "omega2": [], "r2": []}
    used = len(np.unique(codes))
    for column in motion.T:
        if column.std() <= STILL:
            rows = {name: [*values, None] for name, values in rows.items()}
            continue
        values = (column - column.mean())[:, None] / column.std()
        sums = code_sums(codes, values, trajectory, num_codes)
        count, total = sums.count.sum(axis=0), sums.total.sum(axis=0)[:, 0]
        between, whole = float((total**2 / np.maximum(count, 1)).sum()), float((values**2).sum())
        noise = (whole - between) / max(len(values) - used, 1)
        rows["eta2"].append(between / whole)
        rows["omega2"].append((between - (used - 1) * noise) / (whole + noise))
        rows["r2"].append(float(held_out_r2(sums)[0]))
    return rows


def gripper_auroc(table: Transitions, codes: Codes, num_codes: int) -> dict[str, Any]:
    """AUROC with which the code predicts that the gripper opens, or closes; chance is 0.5.

    The prediction is the event's rate under the code in OTHER trajectories.
    """
    from sklearn.metrics import roc_auc_score

    motion = table.motions["gripper"][:, 0]
    threshold = EVENT * np.abs(motion).max()
    rows: dict[str, Any] = {}
    for name, event in (("opening", motion < -threshold), ("closing", motion > threshold)):
        if event.sum() < MIN_EVENTS or event.all():
            rows[name] = {"events": int(event.sum()), "reason": f"fewer than {MIN_EVENTS} events, or nothing else"}
            continue
        score = _others_rate(event, codes, table.trajectory, num_codes)
        rows[name] = {"events": int(event.sum()), "auroc": float(roc_auc_score(event, score))}
    return rows


def _others_rate(
    event: Bool[np.ndarray, " M"], codes: Codes, trajectory: Int[np.ndarray, " M"], num_codes: int
) -> Float[np.ndarray, " M"]:
    """Rate of the event under each row's code in other trajectories, with one transition of the overall rate added."""
    sums = code_sums(codes, event[:, None].astype(np.float64), trajectory, num_codes)
    count = sums.count.sum(axis=0) - sums.count
    found = sums.total.sum(axis=0)[:, 0] - sums.total[..., 0]
    overall = found.sum(axis=1, keepdims=True) / np.maximum(count.sum(axis=1, keepdims=True), 1)
    return ((found + overall) / (count + 1))[trajectory, codes]


def code_motion_bits(table: Transitions, name: str, codes: Codes, seed: int = 0) -> dict[str, Any]:
    """I(code; motion) in bits, its null (codes swapped between whole trajectories), and the code's entropy."""
    length = np.diff(table.starts)
    order = np.random.default_rng(seed).permutation(len(length))
    chosen = np.isin(np.arange(len(length)), order[: max(2, np.searchsorted(np.cumsum(length[order]), MAX_ROWS + 1))])
    rows = chosen[table.trajectory]
    table, codes = table.of_trajectories(chosen), codes[rows]
    values = zscore(table.motions[name])
    if values.shape[1] == 0:
        return {"reason": f"motion '{name}' never changes"}
    bits = partial(information_bits, values=values, seed=seed)
    value, null = bits(codes), float(swap_null(bits, codes, table.starts, SWAPS, seed).mean())
    return {
        "value": value,
        "null": null,
        "excess": value - null,
        "code_entropy": float(entropy_bits(np.bincount(codes))),
    }


def information_bits(
    codes: Codes, values: Float[np.ndarray, "M D"], neighbors: int = NEIGHBORS, seed: int = 0
) -> float:
    """Mutual information of a discrete and a continuous variable of any dimension (Ross 2014, PLOS ONE 9(2)).

    For each point, the distance to its k-th neighbor of the same code, and the number of points of any code within it.
    (scikit-learn's version takes one dimension at a time.)
    """
    from scipy.spatial import cKDTree
    from scipy.special import digamma

    label, count = np.unique(codes, return_counts=True)
    kept = np.isin(codes, label[count > 1])
    codes, values = codes[kept], values[kept]
    if len(values) == 0:
        return 0.0
    rng = np.random.default_rng(seed)
    values = values + 1e-9 * rng.normal(size=values.shape)  # equal values (a still arm) would have distance 0
    radius, near, size = np.empty(len(values)), np.empty(len(values)), np.empty(len(values))
    for k in np.unique(codes):
        own = np.flatnonzero(codes == k)
        few = min(neighbors, len(own) - 1)
        found, _ = cKDTree(values[own]).query(values[own], k=[few + 1], p=np.inf)
        radius[own], near[own], size[own] = np.nextafter(found[:, 0], 0), few, len(own)
    within = cKDTree(values).query_ball_point(values, radius, p=np.inf, return_length=True)
    nats = digamma(len(values)) + np.mean(digamma(near) - digamma(size) - digamma(within))
    return float(max(nats, 0.0) / np.log(2))


def _oracle_ami(table: Transitions, codes: Codes, num_codes: int, oracle: Codes | None, seed: int) -> dict[str, Any]:
    """Adjusted mutual information with the oracle's codes, k-means of true motion.

    The ceiling is not 1: `ceiling` is the AMI of two such k-means, with other seeds and fitted on the two halves of the
    trajectories.
    """
    from sklearn.metrics import adjusted_mutual_info_score

    problem = table.why_unusable("base")
    if problem or oracle is None:
        return {"reason": problem or "no oracle codes were given"}
    if table.num_trajectories < 4:
        return {"reason": "4 trajectories are needed, so that each of two halves has two"}
    motion = zscore(table.motions["base"])
    half = np.random.default_rng(seed).permutation(table.num_trajectories)[table.trajectory] % 2
    two = [nearest_center(motion, k_means(motion[half == h], num_codes, seed + 1 + h)) for h in (0, 1)]
    return {
        "value": float(adjusted_mutual_info_score(oracle, codes)),
        "ceiling": float(adjusted_mutual_info_score(*two)),
    }
