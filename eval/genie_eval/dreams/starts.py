"""Start frames of the commanded dreams: one of each of many trajectories, from as many scenes as there are."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int, UInt8

from genie_eval.collect import Evidence, read_frames, to_numpy
from genie_eval.interfaces import WorldModel

if TYPE_CHECKING:
    from genie_datasets import Split


@dataclass(frozen=True)
class Starts:
    """S start frames. Start s is frame `step[s]` of the evaluated trajectory number `trajectory[s]`."""

    trajectory: Int[np.ndarray, " S"]
    step: Int[np.ndarray, " S"]
    frames: UInt8[np.ndarray, "S H W 3"]
    reconstructed: UInt8[np.ndarray, "S H W 3"]  # by the tokenizer: what dreams look like

    def __len__(self) -> int:
        return len(self.frames)


def choose_starts(world: WorldModel, split: "Split", evidence: Evidence, number: int, seed: int) -> Starts:
    """At most `number` starts, one per trajectory, from its middle third; scenes take turns."""
    rng = np.random.default_rng(seed + 2)
    table = evidence.table
    scene = np.zeros(table.num_trajectories, int) if table.scene is None else table.scene[table.starts[:-1]]
    order = rng.permutation(table.num_trajectories)
    rank = np.array([(scene[order[:n]] == scene[i]).sum() for n, i in enumerate(order)])  # within its scene
    chosen = order[np.argsort(rank, kind="stable")][:number]
    frames, step = [], []
    for i in chosen:
        trajectory = evidence.trajectories[i]
        step.append(int(rng.integers(len(trajectory.ids) // 3, 2 * len(trajectory.ids) // 3 + 1)))
        frames.append(read_frames(world, split, trajectory.episode, trajectory.ids[[step[-1]]])[0])
    stacked = np.stack(frames)
    reconstructed = to_numpy(world.reconstruct(stacked[:, None]))[:, 0]
    return Starts(chosen, np.array(step), stacked, reconstructed)
