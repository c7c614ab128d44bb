"""The table that all statistics read: one row per transition, in trajectory and step order.

Its columns are those of the `latents.npz` format without the codes: many sets of codes (the model's, baselines, nulls)
are measured on one table.
"""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Int

from genie_datasets.base.errors import UserError
from genie_eval.codes.motion import clip_glitches


@dataclass(frozen=True)
class Transitions:
    """M transitions of I trajectories; rows of one trajectory are together and in step order.

    motions: name -> (M, D) true (for "flow": measured) change of each transition, glitches clipped; may be empty.
    position: (M, 3) position of the arm before the transition. scene: (M,) integer label of the surroundings.
    state: (M, S) everything known of the arm before the transition (position, rotation, gripper).

    Raises:
        UserError: there are no rows, or a column has another length.
    """

    trajectory: Int[np.ndarray, " M"]  # 0 .. I-1, ascending
    step: Int[np.ndarray, " M"]
    motions: dict[str, Float[np.ndarray, "M D"]] = field(default_factory=dict)
    position: Float[np.ndarray, "M P"] | None = None
    scene: Int[np.ndarray, " M"] | None = None
    state: Float[np.ndarray, "M S"] | None = None

    glitches: dict[str, int] = field(default_factory=dict, init=False)  # motion -> number of clipped transitions

    def __post_init__(self) -> None:
        rows = len(self.trajectory)
        if rows == 0:
            raise UserError("no transitions to evaluate: every trajectory has fewer than 2 frames")
        if (np.diff(self.trajectory) < 0).any() or self.trajectory[0] != 0:
            raise ValueError("rows must be sorted by trajectory, numbered from 0")
        columns = {"step": self.step, "position": self.position, "scene": self.scene, "state": self.state}
        for name, column in {**columns, **self.motions}.items():
            if column is not None and len(column) != rows:
                raise UserError(f"column '{name}' must have one row per transition ({rows}), got {len(column)}")

        clipped = {name: clip_glitches(values) for name, values in self.motions.items()}
        object.__setattr__(self, "motions", {name: values for name, (values, _) in clipped.items()})
        self.glitches.update({name: number for name, (_, number) in clipped.items()})

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

    def select(
        self, rows: Bool[np.ndarray, " M"] | Int[np.ndarray, " m"], trajectory: Int[np.ndarray, " m"]
    ) -> "Transitions":
        """The table of these rows (mask or indices) with new numbers of their trajectories."""

        def column(values: np.ndarray | None) -> np.ndarray | None:
            return None if values is None else values[rows]

        return Transitions(
            trajectory, self.step[rows], {name: values[rows] for name, values in self.motions.items()},
            column(self.position), column(self.scene), column(self.state),
        )  # fmt: skip

    def of_trajectories(self, chosen: Bool[np.ndarray, " I"]) -> "Transitions":
        """The table of the chosen trajectories, renumbered from 0."""
        rows = chosen[self.trajectory]
        return self.select(rows, (np.cumsum(chosen) - 1)[self.trajectory[rows]])

    def why_unusable(self, motion: str) -> str | None:
        """The reason why no statistic can be computed on this motion; None where it can."""
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
            return "only one trajectory: codes cannot be compared across trajectories"
        if not (values.std(axis=0) > 1e-9).any():
            return f"motion '{motion}' never changes"
        return None
