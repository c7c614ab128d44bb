"""The world of one browser: its start, the actions played, and the moments to which it can return."""

from collections import deque
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from genie_datasets.base.errors import UserError
from genie_robotics.genie import Genie
from genie_robotics.models.world import World, WorldState
from genie_robotics.player.limits import Limits
from genie_robotics.player.paired_simulator import PairedSimulator, read_motion

NUM_CACHED = 8  # newest moments that keep their caches; those of older ones are recomputed on return

Frame = UInt8[np.ndarray, "H W 3"]


@dataclass(frozen=True)
class Moment:
    """One step of a dream."""

    state: WorldState
    code: int | None
    """The code that led here; None at the start."""
    simulator_state: np.ndarray | None = None
    """Snapshot of the paired simulator, if there is one."""
    displacement: np.ndarray | None = None
    """(3,) m, displacement of the dreamed arm since the start, as the latent action model reads it."""

    @property
    def frame(self) -> Frame:
        """The frame at the model's size."""
        return self.state.frame[0].cpu().numpy()


@dataclass(frozen=True)
class Branch:
    """A kept moment, with the moments before it."""

    moments: tuple[Moment, ...]
    num_steps: int


class PlaySession:
    """One dream that is played. All sessions share `genie`, which does not change.

    The last `limits.undo` steps are kept for undo, branches and saving.
    """

    def __init__(self, genie: Genie, limits: Limits, seed: int = 0, display: int | None = None):
        """display: shorter side of the frames returned, in pixels (default: the model's)."""
        self.genie, self.limits, self.seed, self.display = genie, limits, seed, display
        self.temperature = genie.config.dynamics.temperature
        self.maskgit_steps = genie.config.dynamics.maskgit_steps
        self.name = ""
        self.num_steps = 0
        self.branches: list[Branch] = []
        self.moments: deque[Moment] = deque(maxlen=limits.undo + 1)
        self.world: World | None = None
        self.simulator: PairedSimulator | None = None

    def start(self, frame: Frame, name: str, simulator: PairedSimulator | None = None) -> Frame:
        """Begins a dream from a picture of any size; `simulator`: one that shows this picture."""
        self.simulator = simulator
        self.world = self.genie.start(
            torch.from_numpy(np.array(frame)), seed=self.seed, temperature=self.temperature,
            maskgit_steps=self.maskgit_steps, display=self.display,
        )  # fmt: skip
        self.name, self.num_steps, self.branches = name, 0, []
        self.moments.clear()
        paired = (None, None) if simulator is None else (simulator.snapshot(), np.zeros(3))
        self.first = Moment(self.world.state, None, *paired)
        self.moments.append(self.first)
        return self._shown(self.first)

    def act(self, code: int) -> Frame:
        """Plays one action and returns the new frame."""
        world = self._world()
        world.step(code)
        del world.states[:-1]  # the session keeps the moments for undo
        last, new = self.moments[-1], Moment(world.state, code)
        if self.simulator is not None and last.displacement is not None:
            self.simulator.act(code)
            recent = list(islice(reversed(self.moments), self.genie.config.clip_length))[::-1]
            frames = [moment.frame for moment in (*recent, new)]
            displacement = last.displacement + read_motion(self.genie, frames, self.simulator.meanings)
            new = replace(new, simulator_state=self.simulator.snapshot(), displacement=displacement)
        self.moments.append(new)
        self.num_steps += 1
        if len(self.moments) > NUM_CACHED:
            old = self.moments[-NUM_CACHED - 1]
            self.moments[-NUM_CACHED - 1] = replace(old, state=old.state.without_caches())
        return self._shown(self.moments[-1])

    def undo(self, steps: int = 1) -> Frame:
        """Takes back `steps` actions, or as many as are kept."""
        steps = min(steps, len(self.moments) - 1)
        for _ in range(steps):
            self.moments.pop()
        self.num_steps -= steps
        return self._resume_from_last()

    def restart(self) -> Frame:
        """Returns to the start."""
        self._world()
        self.moments.clear()
        self.moments.append(self.first)
        self.num_steps = 0
        return self._resume_from_last()

    def branch(self) -> int:
        """Keeps this moment and returns its index."""
        if len(self.branches) >= self.limits.branches:
            raise UserError(f"at most {self.limits.branches} branches are kept; choose a start again to remove them")
        self._world()
        self.branches.append(Branch(tuple(self.moments), self.num_steps))
        return len(self.branches) - 1

    def switch(self, branch: int) -> Frame:
        """Returns to a kept moment."""
        if branch >= len(self.branches):
            raise UserError(f"there is no branch {branch}; there are {len(self.branches)}, counted from 0")
        kept = self.branches[branch]
        self.moments = deque(kept.moments, maxlen=self.limits.undo + 1)
        self.num_steps = kept.num_steps
        return self._resume_from_last()

    def preview(self) -> list[Frame]:
        """The next frame of each action; the world stays where it is."""
        return list(self._world().preview(at_display_size=True).cpu().numpy())

    def settings(self, temperature: float, maskgit_steps: int) -> None:
        self.temperature, self.maskgit_steps = temperature, maskgit_steps
        if self.world is not None:
            self.world.sampler = replace(self.world.sampler, num_steps=maskgit_steps, temperature=temperature)

    def clip(self) -> UInt8[np.ndarray, "L H W 3"]:
        """The kept frames, in order."""
        self._world()
        return np.stack([self._shown(moment) for moment in self.moments])

    def trace(self) -> dict[str, Any]:
        """The actions played and all that is needed to replay them with `World.step`."""
        self._world()
        return {
            "start": self.name,
            "seed": self.seed,
            "temperature": self.temperature,
            "maskgit_steps": self.maskgit_steps,
            "first_step": self.num_steps - (len(self.moments) - 1),
            "codes": [moment.code for moment in list(self.moments)[1:]],
        }

    def _shown(self, moment: Moment) -> Frame:
        """The frame of a moment as the page shows it."""
        return self._world().show(moment.state)[0].cpu().numpy()

    def _world(self) -> World:
        if self.world is None:
            raise UserError("nothing is played yet; choose a start")
        return self.world

    def _resume_from_last(self) -> Frame:
        world, last = self._world(), self.moments[-1]
        if last.state.dynamics_cache is None:
            state = last.state
            primed = world.prime(state.tokens, state.actions, state.num_generated)
            caches = primed.dynamics_cache, primed.decoder_cache
            last = replace(last, state=replace(state, dynamics_cache=caches[0], decoder_cache=caches[1]))
            self.moments[-1] = last
        world.states = [last.state]
        if self.simulator is not None and last.simulator_state is not None:
            self.simulator.restore(last.simulator_state)
        return self._shown(last)

    def trust(self) -> float | None:
        """The probability that the current frame is right; None if the world was not calibrated."""
        world = self._world()
        return None if world.trust_model is None else float(world.trust[0])

    def error(self) -> float | None:
        """Distance between the simulated arm and the dreamed one, in meters; None without a simulator."""
        displacement = self.moments[-1].displacement
        if self.simulator is None or displacement is None:
            return None
        return float(np.linalg.norm(self.simulator.displacement() - displacement))
