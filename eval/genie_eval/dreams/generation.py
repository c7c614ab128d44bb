"""Dreams for the evaluation: some real clips, what the tokenizer makes of them, and what the model dreams instead."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int, UInt8
from tqdm import tqdm

from genie_eval.collect import Trajectory, read_frames, to_numpy

if TYPE_CHECKING:
    from genie_datasets import Split

HORIZON = 8  # frames dreamt after the prompt
MOST_CLIPS = 8  # of one trajectory; more resemble each other and only cost time
DELTA_AT = 4  # the frame at which random codes are compared (Genie's t)


@dataclass(frozen=True)
class DreamSet:
    """C clips; clip c is of trajectory owner[c] (its number in the evaluated set) and begins at frame start[c]."""

    owner: Int[np.ndarray, " C"]
    start: Int[np.ndarray, " C"]
    truth: UInt8[np.ndarray, "C n+1 H W 3"]  # the prompt frame, then n frames
    rebuilt: UInt8[np.ndarray, "C n+1 H W 3"]  # the tokenizer's reconstruction of them
    inferred: UInt8[np.ndarray, "C n H W 3"]  # dreamt from the prompt with the codes inferred from the truth
    random: UInt8[np.ndarray, "C m H W 3"]  # the first m <= 4 frames of a dream with uniform random codes
    codes: Int[np.ndarray, "C n"]
    random_codes: Int[np.ndarray, "C m"]

    @property
    def horizon(self) -> int:
        return self.inferred.shape[1]


def choose_clips(
    trajectories: list[Trajectory], clips: int, horizon: int, seed: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """(owner, start) of at most `clips` clips, and their horizon.

    One clip a trajectory before any gets a second. Where fewer than half of the trajectories are long enough, the
    horizon is shortened to the median trajectory.
    """
    lengths = np.array([len(t.ids) for t in trajectories])
    if (lengths > horizon).mean() < 0.5:
        horizon = max(1, int(np.median(lengths)) - 1)
    clips = min(clips, MOST_CLIPS * len(trajectories))
    rng = np.random.default_rng(seed)
    able = np.flatnonzero(lengths > horizon)
    owner = np.concatenate([rng.permutation(able) for _ in range(-(-clips // len(able)))])[:clips]
    start = np.array([rng.integers(lengths[i] - horizon) for i in owner])
    order = np.lexsort((start, owner))
    return owner[order], start[order], horizon


def dream_set(
    genie: Any, split: "Split", trajectories: list[Trajectory], clips: int, horizon: int = HORIZON,
    batch: int = 16, seed: int = 0, progress: bool = True,
) -> DreamSet:  # fmt: skip
    """Generates from one prompt frame each, twice: with inferred codes, and (to t = 4) with uniform random ones.

    Both dreams of a clip share their sampling noise: only the codes differ.
    """
    owner, start, horizon = choose_clips(trajectories, clips, horizon, seed)
    rng = np.random.default_rng(seed + 1)
    random_codes = rng.integers(genie.config.num_actions, size=(len(owner), min(DELTA_AT, horizon)))
    parts: list[tuple[np.ndarray, ...]] = []
    bar = tqdm(total=len(owner), desc="dreams", unit="clip", disable=not progress)
    for first in range(0, len(owner), batch):
        rows = slice(first, first + batch)
        truth = np.stack(
            [
                read_frames(split, trajectories[i], genie, slice(s, s + horizon + 1))
                for i, s in zip(owner[rows], start[rows], strict=True)
            ]
        )
        codes = to_numpy(genie.infer_actions(truth))
        parts.append(
            (
                truth,
                to_numpy(genie.detokenize(genie.tokenize(truth))),
                to_numpy(genie.generate(truth[:, :1], codes, seed=seed + first)),
                to_numpy(genie.generate(truth[:, :1], random_codes[rows], seed=seed + first)),
                codes,
            )
        )
        bar.update(len(truth))
    bar.close()
    truth, rebuilt, inferred, random, codes = (np.concatenate(part) for part in zip(*parts, strict=True))
    return DreamSet(owner, start, truth, rebuilt, inferred, random, codes, random_codes)


def same_action_grid(
    genie: Any, starts: UInt8[np.ndarray, "S H W 3"], steps: int = 5, batch: int = 16, seed: int = 0,
    progress: bool = True,
) -> UInt8[np.ndarray, "S K n H W 3"]:  # fmt: skip
    """From every start, every code `steps` times in a row. All dreams of a start share their sampling noise."""
    num_codes = genie.config.num_actions
    rows = []
    for start in tqdm(starts, desc="same action, many starts", unit="start", disable=not progress):
        pieces = [
            to_numpy(
                genie.generate(
                    np.repeat(start[None, None], len(some), axis=0), np.repeat(some[:, None], steps, axis=1), seed=seed
                )
            )
            for some in np.array_split(np.arange(num_codes), -(-num_codes // batch))
        ]
        rows.append(np.concatenate(pieces))
    return np.stack(rows)
