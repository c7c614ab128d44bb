"""The table every statistic reads: one row a transition, in trajectory and step order.

Its columns are those of the `latents.npz` format, codes apart: many sets of codes (the model's, baselines, nulls) are
judged against one table.
"""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Int

from genie_datasets.base.errors import UserError
from genie_eval.codes.motion import draw_in


@dataclass(frozen=True)
class Transitions:
    """M transitions of I trajectories, rows of one trajectory together and in step order.

    motions: name -> (M, D) true (or, for "flow", measured) change of each transition, glitches drawn in;
    may be empty.
    position: (M, 3) where the arm is before the transition; state: (M, S) all that is known of it then (position,
    rotation, gripper ...); scene: (M,) integer label of the surroundings.
    """

    trajectory: Int[np.ndarray, " M"]  # 0 .. I-1, ascending
    step: Int[np.ndarray, " M"]
    motions: dict[str, Float[np.ndarray, "M D"]] = field(default_factory=dict)
    position: Float[np.ndarray, "M P"] | None = None
    scene: Int[np.ndarray, " M"] | None = None
    state: Float[np.ndarray, "M S"] | None = None

    drawn_in: dict[str, int] = field(default_factory=dict, init=False)  # motion -> glitches that were drawn in

    def __post_init__(self) -> None:
        rows = len(self.trajectory)
        if rows == 0:
            raise UserError("no transitions to evaluate: every trajectory has fewer than 2 frames")
        if (np.diff(self.trajectory) < 0).any() or self.trajectory[0] != 0:
            raise ValueError("rows must be sorted by trajectory, numbered from 0")
        columns = {
            "step": self.step,
            "position": self.position,
            "scene": self.scene,
            "state": self.state,
            **self.motions,
        }
        for name, column in columns.items():
            if column is not None and len(column) != rows:
                raise UserError(f"column '{name}' has {len(column)} rows but there are {rows} transitions")

        motions = {name: draw_in(values) for name, values in self.motions.items()}
        object.__setattr__(self, "motions", {name: values for name, (values, _) in motions.items()})
        self.drawn_in.update({name: number for name, (_, number) in motions.items()})

    @property
    def num_trajectories(self) -> int:
        return int(self.trajectory[-1]) + 1

    @property
    def starts(self) -> Int[np.ndarray, " I+1"]:
        """First row of each trajectory, and the number of rows."""
        return np.searchsorted(self.trajectory, np.arange(self.num_trajectories + 1))

    @property
    def phase(self) -> Float[np.ndarray, " M"]:
        """Progress within the trajectory, 0 (first) <= phase < 1."""
        starts = self.starts
        place = np.arange(len(self.trajectory)) - starts[:-1][self.trajectory]
        return place / np.diff(starts)[self.trajectory]

    def of_trajectories(self, chosen: Bool[np.ndarray, " I"]) -> "Transitions":
        """The rows of the chosen trajectories, which are numbered anew."""
        rows = chosen[self.trajectory]
        return Transitions(
            trajectory=(np.cumsum(chosen) - 1)[self.trajectory[rows]],
            step=self.step[rows],
            motions={name: values[rows] for name, values in self.motions.items()},
            position=None if self.position is None else self.position[rows],
            scene=None if self.scene is None else self.scene[rows],
            state=None if self.state is None else self.state[rows],
        )

    def why_unusable(self, motion: str) -> str | None:
        """Why no statistic can be made from this motion, in words; None when it can."""
        if motion not in self.motions:
            return "no true motion in this source" if motion == "base" else f"no motion '{motion}' in this source"
        values = self.motions[motion]
        bad = ~np.isfinite(values).all(axis=1)
        if bad.any():
            row = int(np.argmax(bad))
            return (
                f"motion '{motion}' is not finite in {int(bad.sum())} of {len(bad)} transitions "
                f"(first: trajectory {self.trajectory[row]}, step {self.step[row]})"
            )
        if self.num_trajectories < 2:
            return "one trajectory: what a code means in others cannot be asked"
        if not (values.std(axis=0) > 1e-9).any():
            return f"motion '{motion}' never changes"
        return None
