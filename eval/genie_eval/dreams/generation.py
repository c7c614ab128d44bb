"""Dreams of recorded clips: each clip, its reconstruction by the tokenizer, and what the model generates instead."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int, UInt8
from tqdm import tqdm

from genie_eval.collect import Trajectory, read_frames, to_numpy
from genie_eval.interfaces import WorldModel

if TYPE_CHECKING:
    from genie_datasets import Split

HORIZON = 8  # frames generated after the prompt
MAX_CLIPS = 8  # per trajectory; more resemble each other and only cost time
DELTA_AT = 4  # frame at which inferred and random codes are compared (t in Genie's delta-PSNR)


@dataclass(frozen=True)
class DreamSet:
    """Dreams of C clips. Clip c begins at frame start[c] of the evaluated trajectory number trajectory[c]."""

    trajectory: Int[np.ndarray, " C"]
    start: Int[np.ndarray, " C"]
    truth: UInt8[np.ndarray, "C n+1 H W 3"]  # the prompt frame, then n frames
    reconstructed: UInt8[np.ndarray, "C n+1 H W 3"]  # by the tokenizer
    inferred: UInt8[np.ndarray, "C n H W 3"]  # generated from the prompt with the codes inferred from the truth
    random: UInt8[np.ndarray, "C m H W 3"]  # the first m <= 4 frames generated with uniform random codes
    codes: Int[np.ndarray, "C n"]
    random_codes: Int[np.ndarray, "C m"]

    @property
    def horizon(self) -> int:
        return self.inferred.shape[1]

    def by_trajectory(self, values: Float[np.ndarray, " C"]) -> Float[np.ndarray, " I"]:
        """Mean over the clips of each trajectory."""
        group = np.unique(self.trajectory, return_inverse=True)[1]
        return np.bincount(group, weights=values) / np.bincount(group)


def choose_clips(
    trajectories: list[Trajectory], clips: int, horizon: int, seed: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """(trajectory, start) of at most `clips` clips, and their horizon.

    Every trajectory gives one clip before any gives a second. Where fewer than half of the trajectories are long
    enough, the horizon is shortened to the median trajectory.
    """
    lengths = np.array([len(t.ids) for t in trajectories])
    if (lengths > horizon).mean() < 0.5:
        horizon = max(1, int(np.median(lengths)) - 1)
    clips = min(clips, MAX_CLIPS * len(trajectories))
    rng = np.random.default_rng(seed)
    long_enough = np.flatnonzero(lengths > horizon)
    trajectory = np.concatenate([rng.permutation(long_enough) for _ in range(-(-clips // len(long_enough)))])[:clips]
    start = np.array([rng.integers(lengths[i] - horizon) for i in trajectory])
    order = np.lexsort((start, trajectory))
    return trajectory[order], start[order], horizon


def read_clips(
    world: WorldModel, split: "Split", trajectories: list[Trajectory], trajectory: np.ndarray, start: np.ndarray,
    horizon: int,
) -> UInt8[np.ndarray, "B n+1 H W 3"]:  # fmt: skip
    """The frames of B clips: the prompt frame and `horizon` more."""
    clips = [
        read_frames(world, split, trajectories[i].episode, trajectories[i].ids[s : s + horizon + 1])
        for i, s in zip(trajectory, start, strict=True)
    ]
    return np.stack(clips) if clips else np.zeros((0, horizon + 1, *world.config.image_size, 3), np.uint8)


def dream_set(
    world: WorldModel, split: "Split", trajectories: list[Trajectory], clips: int, horizon: int = HORIZON,
    batch: int = 16, seed: int = 0, progress: bool = True,
) -> DreamSet:  # fmt: skip
    """Generates from one prompt frame per clip, with inferred codes and (up to t = 4) with uniform random codes.

    Both dreams of a clip share their sampling noise: only the codes differ.
    """
    trajectory, start, horizon = choose_clips(trajectories, clips, horizon, seed)
    rng = np.random.default_rng(seed + 1)
    random_codes = rng.integers(world.config.num_actions, size=(len(trajectory), min(DELTA_AT, horizon)))
    batches: list[tuple[np.ndarray, ...]] = []
    bar = tqdm(total=len(trajectory), desc="dreams", unit="clip", disable=not progress)
    for first in range(0, len(trajectory), batch):
        rows = slice(first, first + batch)
        truth = read_clips(world, split, trajectories, trajectory[rows], start[rows], horizon)
        codes = to_numpy(world.infer_actions(truth))
        reconstructed = to_numpy(world.reconstruct(truth))
        inferred = to_numpy(world.generate(truth[:, :1], codes, seed=seed + first))
        random = to_numpy(world.generate(truth[:, :1], random_codes[rows], seed=seed + first))
        batches.append((truth, reconstructed, inferred, random, codes))
        bar.update(len(truth))
    bar.close()
    truth, reconstructed, inferred, random, codes = (np.concatenate(part) for part in zip(*batches, strict=True))
    return DreamSet(trajectory, start, truth, reconstructed, inferred, random, codes, random_codes)
