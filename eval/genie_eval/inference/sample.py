"""The trajectories that are inferred again, their original codes, and shares of transitions with intervals."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int, UInt8
from tqdm import tqdm

from genie_eval.codes.transitions import Transitions
from genie_eval.collect import Trajectory, read_frames, to_numpy
from genie_eval.resampling import bootstrap_weights, interval

if TYPE_CHECKING:
    from genie_datasets import Split
    from genie_eval.interfaces import WorldModel

DRAWS = 1000  # bootstrap draws of shares
MAX_FRAMES = 96  # first frames of a trajectory: bounds memory, and their codes are those of the whole trajectory


@dataclass(frozen=True)
class Sample:
    """Some of the evaluated trajectories; `table` and `codes` hold their rows only, trajectories from 0."""

    genie: "WorldModel"
    split: "Split"
    trajectories: list[Trajectory]
    table: Transitions
    codes: Int[np.ndarray, " M"]
    seed: int = 0
    progress: bool = False

    def __len__(self) -> int:
        return len(self.trajectories)

    @property
    def num_codes(self) -> int:
        return int(self.genie.config.num_actions)

    def frames(self, i: int) -> UInt8[np.ndarray, "T H W 3"]:
        return read_frames(self.genie, self.split, self.trajectories[i].episode, self.trajectories[i].ids)

    def rows(self, i: int) -> slice:
        return slice(*self.table.starts[i : i + 2])

    def rng(self, i: int, *what: int) -> np.random.Generator:
        """A random stream of trajectory i and purpose `what`: it does not depend on the other trajectories."""
        return np.random.default_rng([self.seed, self.trajectories[i].episode, *what])

    def each(self, label: str, limit: int | None = None) -> Iterable[int]:
        """Numbers of the (first `limit`) trajectories, with a progress bar."""
        count = len(self) if limit is None else min(limit, len(self))
        return tqdm(range(count), desc=label, unit="episode", disable=not self.progress)

    def infer(self, clips: UInt8[np.ndarray, "B T H W 3"]) -> Int[np.ndarray, "B T-1"]:
        return to_numpy(self.genie.infer_actions(clips)).astype(np.int64)

    def embed(self, clips: UInt8[np.ndarray, "B T H W 3"]) -> Float[np.ndarray, "B T-1 E"]:
        return to_numpy(self.genie.embed_actions(clips)).astype(np.float64)

    def some(self, i: int, every: int) -> Int[np.ndarray, " n"]:
        """Every `every`-th transition of trajectory i from a random offset; at least one."""
        transitions = len(self.trajectories[i].ids) - 1
        return np.arange(self.rng(i, 0).integers(min(every, transitions)), transitions, every)


def choose_sample(
    genie: "WorldModel",
    split: "Split",
    trajectories: list[Trajectory],
    table: Transitions,
    codes: Int[np.ndarray, " M"],
    limit: int,
    seed: int = 0,
    progress: bool = False,
) -> Sample:
    """At most `limit` random trajectories, each with its first 96 frames.

    codes: `genie.infer_actions` of each whole trajectory.
    """
    chosen = np.arange(len(trajectories))
    if len(chosen) > limit:
        chosen = np.sort(np.random.default_rng([seed, 7]).choice(len(trajectories), limit, replace=False))
    starts = table.starts
    lengths = np.minimum(np.diff(starts)[chosen], MAX_FRAMES - 1)
    rows = np.concatenate([starts[i] + np.arange(n) for i, n in zip(chosen, lengths, strict=True)])
    part = table.select(rows, np.repeat(np.arange(len(chosen)), lengths))
    short = [
        Trajectory(trajectories[i].episode, trajectories[i].ids[: n + 1]) for i, n in zip(chosen, lengths, strict=True)
    ]
    return Sample(genie, split, short, part, codes[rows], seed, progress)


def pairs(
    frames: UInt8[np.ndarray, "T H W 3"], first: np.ndarray, second: np.ndarray
) -> UInt8[np.ndarray, "n 2 H W 3"]:
    """Clips of two frames, first[i] and second[i]; the LAM has no past here, as at the start of any clip."""
    return np.stack([frames[first], frames[second]], axis=1)


@dataclass(frozen=True)
class Share:
    """A share of transitions (or a mean over them) with its interval over trajectories."""

    value: float
    ci95: Float[np.ndarray, " 2"]

    def as_json(self) -> dict[str, Any]:
        return {"value": self.value, "ci95": self.ci95}


def share(hits: Float[np.ndarray, " I"], counts: Float[np.ndarray, " I"], seed: int = 0, draws: int = DRAWS) -> Share:
    """sum(hits) / sum(counts) over trajectories."""
    weights = bootstrap_weights(len(hits), draws, seed)
    with np.errstate(divide="ignore", invalid="ignore"):
        drawn = (weights @ hits) / (weights @ counts)
        return Share(float(np.sum(hits) / np.sum(counts)), interval(drawn))


def share_of(
    values: np.ndarray, trajectory: Int[np.ndarray, " M"], trajectories: int, seed: int = 0, draws: int = DRAWS
) -> Share:
    """Share of rows where `values` is true, or the mean of `values` where they are numbers."""
    hits = np.bincount(trajectory, weights=np.asarray(values, float), minlength=trajectories)
    return share(hits, np.bincount(trajectory, minlength=trajectories).astype(float), seed, draws)
