"""Displacement of the arm in commanded dreams, read by the motion read-out or, without true motion, by optical flow."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from genie_eval.dreams.play import SequenceDreams
from genie_eval.dreams.readout import Readout
from genie_eval.dreams.starts import Starts
from genie_eval.features import flow_features


@dataclass(frozen=True)
class Displacements:
    """Displacement since the start after each of n steps, for each of Q sequences from each of S starts.

    values: in the units of the truth (base frame: meters; image: fractions of its sides). abstained: the read-out is
    unsure, or sees no gripper (`dissolved`). columns: part of the motion -> its columns.
    """

    values: Float[np.ndarray, "S Q n D"]
    abstained: Bool[np.ndarray, "S Q n"]
    columns: dict[str, slice]
    start_position: Float[np.ndarray, "S D"] | None = None
    dissolved: Bool[np.ndarray, "S Q n"] | None = None

    def confident(self, part: str, step: int = -1) -> Float[np.ndarray, "S Q d"]:
        """Displacement of one part until `step` (default: the last); NaN where the read-out abstains."""
        values = self.values[:, :, step, self.columns[part]]
        return np.where(self.abstained[:, :, step, None], np.nan, values)


def read_displacements(readout: Readout, starts: Starts, played: SequenceDreams) -> Displacements:
    """Displacements from the reconstructed start frame: dreams consist of the tokenizer's pixels, too."""
    num_starts, num_sequences, steps = played.dreams.shape[:3]
    start = readout.positions(starts.reconstructed)[:, :, None, None]  # (m, S, 1, 1, D)
    positions, presence = readout.read(played.dreams.reshape(-1, *played.dreams.shape[3:]))
    dissolved = (presence < readout.min_presence).reshape(num_starts, num_sequences, steps)
    moved = positions.reshape(len(positions), num_starts, num_sequences, steps, -1) - start
    by_step = [readout.abstains(readout.disagreement(moved[:, :, :, t]), t + 1) for t in range(steps)]
    abstained = np.stack(by_step, axis=-1)
    return Displacements(
        moved.mean(axis=0), abstained | dissolved, readout.columns, start[:, :, 0, 0].mean(axis=0), dissolved
    )


def flow_displacements(starts: Starts, played: SequenceDreams) -> Displacements:
    """Cumulative mean optical flow of the moving pixels, in fractions of width and height."""
    num_starts, num_sequences, steps = played.dreams.shape[:3]
    moved = np.empty((num_starts, num_sequences, steps, 2))
    for s in range(num_starts):
        for q in range(num_sequences):
            clip = np.concatenate([starts.reconstructed[s][None], played.dreams[s, q]])
            moved[s, q] = flow_features(clip)[0].cumsum(axis=0)
    return Displacements(moved, np.zeros(moved.shape[:3], bool), {"flow": slice(0, 2)})
