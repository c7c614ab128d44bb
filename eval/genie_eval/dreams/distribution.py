"""MMD-motion: do dreams, as a set, move like real clips? A distance of distributions that needs no pretrained network.

It is not FVD and cannot be compared with one. It detects errors of motion, to which FVD is weak: clips that freeze for
their last quarter lie 6.9 SD of the null apart (features of random 3-D CNNs: 0.8 SD). It hardly reacts to blur, which
PSNR, SSIM and LPIPS measure.
"""

from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from genie_eval.dreams.horizon import LongDreams
from genie_eval.features import flow_fields
from genie_eval.metrics import plain
from genie_eval.resampling import DRAWS, bootstrap_weights, interval, permutation_p

GRID, DIRECTIONS = 4, 8
SPEEDS = 2.0 ** np.arange(-8, -2)  # frame widths per step: 1/256 to 1/8 (0.25 to 8 pixels at width 64)
MIN_FRAMES = 3  # for one change of motion
MIN_CLIPS = 8  # of other trajectories, to compare real with real clips
SPLITS = 999  # random pairs of sets of real clips, for the null
BACKBONE = "none: histograms of Farneback flow and of its change (classical)"


def motion_features(clip: UInt8[np.ndarray, "T H W 3"]) -> Float[np.ndarray, " F"]:
    """Histograms of the optical flow of moving pixels and of its change from step to step.

    The first 2 x GRID x GRID x DIRECTIONS numbers are the mass of each direction in each cell, the rest the share of
    pixels at or above each of SPEEDS. Square roots are taken, so that rare motion counts.
    """
    flow, moves = flow_fields(clip)
    flow = flow * moves[..., None] / clip.shape[2]
    fields = (flow, np.diff(flow, axis=0))
    return np.sqrt(np.concatenate([_directions(f) for f in fields] + [_speeds(f) for f in fields]))


def _directions(flow: Float[np.ndarray, "n H W 2"]) -> Float[np.ndarray, " F"]:
    height, width = flow.shape[1:3]
    angle = (np.arctan2(flow[..., 1], flow[..., 0]) / (2 * np.pi) + 1) % 1
    turn = np.minimum(angle * DIRECTIONS, DIRECTIONS - 1).astype(np.int64)
    rows, columns = (np.arange(side) * GRID // side for side in (height, width))
    place = (rows[:, None] * GRID + columns) * DIRECTIONS + turn
    mass = np.bincount(
        place.ravel(), weights=np.hypot(flow[..., 0], flow[..., 1]).ravel(), minlength=GRID**2 * DIRECTIONS
    )
    return mass / (flow.shape[0] * height * width)


def _speeds(flow: Float[np.ndarray, "n H W 2"]) -> Float[np.ndarray, " F"]:
    speed = np.hypot(flow[..., 0], flow[..., 1])
    return np.array([(speed >= least).mean() for least in SPEEDS])


def describe(clips: UInt8[np.ndarray, "C T H W 3"]) -> Float[np.ndarray, "C F"]:
    """`motion_features` of each clip."""
    return np.stack([motion_features(clip) for clip in clips])


class Kernel:
    """-|x - y| / m, with m the median distance of two real clips.

    Each feature is divided by its SD over real clips, and directions and speeds weigh the same. The MMD of this kernel
    is the energy distance (Sejdinovic et al. 2013). It has no bandwidth, and unlike a Gaussian kernel it does not
    saturate for sets that are far apart.
    """

    def __init__(self, real: Float[np.ndarray, "P F"]):
        cut = 2 * GRID**2 * DIRECTIONS
        spread = real.std(axis=0)
        scale = np.empty_like(spread)
        for block in (slice(0, cut), slice(cut, None)):
            smallest = max(1e-3 * spread[block].max(), 1e-12)  # a feature that is constant in real clips stays finite
            scale[block] = np.maximum(spread[block], smallest) * np.sqrt(len(spread[block]))
        self.scale = scale
        between = self._distances(real, real)[np.triu_indices(len(real), 1)]
        self.unit = float(np.median(between)) or 1.0

    def __call__(self, x: Float[np.ndarray, "A F"], y: Float[np.ndarray, "B F"]) -> Float[np.ndarray, "A B"]:
        return -self._distances(x, y) / self.unit

    def _distances(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        from scipy.spatial.distance import cdist

        return cdist(x / self.scale, y / self.scale)


def paired_mmd(
    kernel: Kernel, x: Float[np.ndarray, "C F"], y: Float[np.ndarray, "C F"], trajectory: Int[np.ndarray, " C"],
    weights: Float[np.ndarray, "R I"],
) -> tuple[float, Float[np.ndarray, " R"]]:  # fmt: skip
    """Unbiased squared MMD of two sets whose clips come in pairs (a dream and its truth), and its bootstrap draws.

    The mean of k(x, x') + k(y, y') - k(x, y') - k(y, x') over pairs of clips from different trajectories. Clips of one
    trajectory resemble each other whatever the distributions are, so they are not compared; nor is a trajectory with
    itself where a bootstrap draw holds it twice.
    """
    cross = kernel(x, y)
    h = kernel(x, x) + kernel(y, y) - cross - cross.T
    group = np.unique(trajectory, return_inverse=True)[1]
    member = np.eye(group.max() + 1)[group]
    total, pairs = member.T @ h @ member, np.outer(member.sum(axis=0), member.sum(axis=0))
    np.fill_diagonal(total, 0)
    np.fill_diagonal(pairs, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        drawn = ((weights @ total) * weights).sum(axis=1) / ((weights @ pairs) * weights).sum(axis=1)
    return float(total.sum() / pairs.sum()), drawn


def real_against_real(
    kernel: Kernel, real: Float[np.ndarray, "P F"], size: int, splits: int = SPLITS, seed: int = 0
) -> Float[np.ndarray, " S"]:
    """The null: unbiased squared MMD of two random disjoint sets of `size` real clips, each of another trajectory."""
    rng = np.random.default_rng(seed)
    table = kernel(real, real)
    np.fill_diagonal(table, 0)
    side = np.zeros((splits, len(real)))
    for row in side:
        order = rng.permutation(len(real))
        row[order[:size]], row[order[size : 2 * size]] = 1, -1
    one, two = (side > 0).astype(np.float64), (side < 0).astype(np.float64)
    within = ((one @ table) * one).sum(axis=1) + ((two @ table) * two).sum(axis=1)
    return within / (size * (size - 1)) - 2 * ((one @ table) * two).sum(axis=1) / size**2


def mmd_motion(dreams: LongDreams, draws: int = DRAWS, seed: int = 0) -> dict[str, Any]:
    """Squared MMD-motion between the true clips (frames 1 .. n, without the prompt) and each set of generated clips.

    Returns `values[NAME]` with `value` (about 0 for equal distributions; the unit is the median distance of two real
    clips), `ci95` (bootstrap over trajectories) and `p` (share of the null that reaches it), and `null`: distances of
    two sets of other real clips, `size` clips each. NAME: dream (inferred codes), tokenizer, copy_last, and the laws of
    random codes. {"reason"} if the clips cannot be compared.
    """
    truth = dreams.truth[:, 1:]
    head: dict[str, Any] = {
        "name": "MMD-motion", "lower_is_better": True, "backbone": BACKBONE, "n_clips": len(truth),
        "n_trajectories": len(np.unique(dreams.trajectory)), "frames": dreams.horizon,
        "resolution": list(truth.shape[2:4]),
    }  # fmt: skip
    if dreams.horizon < MIN_FRAMES:
        return {**head, "reason": f"clips must have at least {MIN_FRAMES} frames, these have {dreams.horizon}"}
    if head["n_trajectories"] < 2:
        return {**head, "reason": "only one trajectory: no two independent clips to compare"}
    real, other = describe(truth), None
    if len(dreams.other) >= MIN_CLIPS:
        other = describe(dreams.other[:, 1:])
    kernel = Kernel(real if other is None else other)
    weights = bootstrap_weights(head["n_trajectories"], draws, seed)
    null = None
    if other is None:
        head["null"] = {"reason": f"fewer than {MIN_CLIPS} other trajectories are left to compare real with real clips"}
    else:
        size = min(len(other) // 2, len(truth))
        null = real_against_real(kernel, other, size, seed=seed)
        head["null"] = {"size": size, "mean": null.mean(), "sd": null.std(), "q95": np.quantile(null, 0.95)}
    values = {}
    for name, clips in {**dreams.shown, **dreams.random}.items():
        value, drawn = paired_mmd(kernel, real, describe(clips), dreams.trajectory, weights)
        p = None if null is None else permutation_p(value, null)
        values[name] = {"value": value, "ci95": interval(drawn), "p": p}
    return plain({**head, "values": values})
