"""What played dreams moved, as the read-out sees it (or, without truth, as optical flow does)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from genie_eval.dreams.play import Plays
from genie_eval.dreams.readout import Readout
from genie_eval.dreams.starts import Starts


@dataclass(frozen=True)
class Moves:
    """Displacement since the start after every step of every play, in the read-out's units.

    Steps on which the read-out is unsure are marked; `sure` gives NaN there.
    """

    moved: Float[np.ndarray, "S Q n D"]
    unsure: Bool[np.ndarray, "S Q n"]
    columns: dict[str, slice]
    begin: Float[np.ndarray, "S D"] | None = None  # what the read-out sees at the start
    dissolved: Bool[np.ndarray, "S Q n"] | None = None  # where it sees no gripper at all

    def sure(self, part: str, step: int = -1) -> Float[np.ndarray, "S Q d"]:
        """Displacement until `step` (the last by default), NaN where unsure."""
        values = self.moved[:, :, step, self.columns[part]]
        return np.where(self.unsure[:, :, step, None], np.nan, values)


def read_moves(readout: Readout, starts: Starts, plays: Plays) -> Moves:
    """Displacements are counted from the start as the tokenizer shows it, so that both pictures are of one kind."""
    many_starts, many, steps = plays.dreams.shape[:3]
    begin = readout.positions(starts.rebuilt)[:, :, None, None]  # (m, S, 1, 1, D)
    seen, presence = readout.look(plays.dreams.reshape(-1, *plays.dreams.shape[3:]))
    dissolved = (presence < readout.least_presence).reshape(many_starts, many, steps)
    moved = seen.reshape(len(seen), many_starts, many, steps, -1) - begin
    unsure = np.stack(
        [
            readout.unsure(
                readout.disagreement(moved[:, :, :, t].reshape(len(moved), many_starts * many, -1)), t + 1
            ).reshape(many_starts, many)
            for t in range(steps)
        ],
        axis=-1,
    )
    return Moves(moved.mean(axis=0), unsure | dissolved, readout.columns, begin[:, :, 0, 0].mean(axis=0), dissolved)


def flow_moves(starts: Starts, plays: Plays) -> Moves:
    """Summed mean optical flow of moving pixels (fractions of width and height) instead of displacement."""
    from genie_eval.features import flow_features

    many_starts, many, steps = plays.dreams.shape[:3]
    moved = np.empty((many_starts, many, steps, 2))
    for s in range(many_starts):
        for q in range(many):
            clip = np.concatenate([starts.rebuilt[s][None], plays.dreams[s, q]])
            moved[s, q] = flow_features(clip)[0].cumsum(axis=0)
    return Moves(moved, np.zeros(moved.shape[:3], bool), {"flow": slice(0, 2)})
