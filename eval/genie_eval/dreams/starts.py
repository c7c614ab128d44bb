"""Where the played dreams start: one frame of each of many trajectories, in as many scenes as there are."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int, UInt8

from genie_eval.collect import Evidence, read_frames, to_numpy

if TYPE_CHECKING:
    from genie_datasets import Split


@dataclass(frozen=True)
class Starts:
    """S start frames. trajectory[s]: its number in the evaluated set; at[s]: the frame's place in that trajectory."""

    trajectory: Int[np.ndarray, " S"]
    at: Int[np.ndarray, " S"]
    scene: Int[np.ndarray, " S"]
    frames: UInt8[np.ndarray, "S H W 3"]
    rebuilt: UInt8[np.ndarray, "S H W 3"]  # as the tokenizer shows them: what dreams look like

    def __len__(self) -> int:
        return len(self.frames)


def choose_starts(genie: Any, split: "Split", evidence: Evidence, number: int, seed: int) -> Starts:
    """At most one start a trajectory, from its middle third; scenes take turns."""
    rng = np.random.default_rng(seed + 2)
    table = evidence.table
    scene = np.zeros(table.num_trajectories, int) if table.scene is None else table.scene[table.starts[:-1]]
    order = rng.permutation(table.num_trajectories)
    turn = np.array([(scene[order[:n]] == scene[i]).sum() for n, i in enumerate(order)])  # its rank within its scene
    chosen = order[np.argsort(turn, kind="stable")][:number]
    frames, at = [], []
    for i in chosen:
        trajectory = evidence.trajectories[i]
        at.append(int(rng.integers(len(trajectory.ids) // 3, 2 * len(trajectory.ids) // 3 + 1)))
        frames.append(read_frames(split, trajectory, genie, slice(at[-1], at[-1] + 1))[0])
    stacked = np.stack(frames)
    rebuilt = to_numpy(genie.detokenize(genie.tokenize(stacked[:, None])))[:, 0]
    return Starts(chosen, np.array(at), scene[chosen], stacked, rebuilt)
