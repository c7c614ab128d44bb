"""Everything that the metrics of commanded dreams read: one frozen context for all of them."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from genie_eval.codes.code_sums import code_sums
from genie_eval.collect import Evidence
from genie_eval.dreams.displacements import Displacements
from genie_eval.dreams.generation import DreamSet
from genie_eval.dreams.play import CommandedDreams
from genie_eval.dreams.readout import Readout
from genie_eval.dreams.readout_error import ReadoutError
from genie_eval.dreams.simulated import SimulatedFutures
from genie_eval.interfaces import Judge, WorldModel

PERMUTATIONS = 199  # of a null that renames the commands at every start


@dataclass(frozen=True)
class MeasuredMotion:
    """Motion of the dreams of constant codes, and of the simulator's futures of the same codes."""

    readout: Readout
    error: ReadoutError
    dreams: Displacements
    futures: Displacements | None  # None: no simulator


@dataclass(frozen=True)
class ControlContext:
    """Input of the metrics of commanded dreams. A string instead of an object is the reason why there is none."""

    world: WorldModel
    judge: Judge | None  # an independent latent action model
    evidence: Evidence
    dreams: DreamSet  # of recorded clips
    commanded: CommandedDreams
    futures: SimulatedFutures | str  # as the tokenizer shows them
    motion: MeasuredMotion | str
    weights: Float[np.ndarray, "R S"]  # bootstrap draws of starts
    seed: int

    @property
    def num_codes(self) -> int:
        return self.world.config.num_actions

    @property
    def step_spread(self) -> Float[np.ndarray, " 3"]:
        """SD of true motion over one step; infinite for an axis that never moves, which then counts for nothing."""
        spread = self.evidence.table.motions["base"].std(axis=0)
        return np.where(spread > 1e-9, spread, np.inf)

    @property
    def code_motion(self) -> Float[np.ndarray, "K 3"]:
        """Mean true motion of each code over one step of real video, meters; NaN for a code that does not occur."""
        table = self.evidence.table
        sums = code_sums(self.evidence.codes, table.motions["base"], table.trajectory, self.num_codes)
        with np.errstate(divide="ignore", invalid="ignore"):
            return sums.total.sum(axis=0) / sums.count.sum(axis=0)[:, None]
