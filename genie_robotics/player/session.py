"""One player's world: where it began, what was played, what can be taken back. Knows nothing of browsers."""

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
from genie_robotics.player.beside import Beside, read_motion
from genie_robotics.player.limits import Limits

WITH_CACHE = 8  # newest moments that keep their caches; older ones are computed anew when someone goes back so far

Frame = UInt8[np.ndarray, "H W 3"]


@dataclass(frozen=True)
class Moment:
    state: WorldState
    code: int | None
    """What led here; None at the start."""
    beside: np.ndarray | None = None
    """The simulator's state, where one goes along."""
    moved: np.ndarray | None = None
    """(3,) metres that the arm has gone in the dream since the start, as the latent action model reads it."""

    @property
    def frame(self) -> Frame:
        return self.state.frame[0].cpu().numpy()


@dataclass(frozen=True)
class Kept:
    """A moment to come back to, with what led there."""

    moments: tuple[Moment, ...]
    num_steps: int


class PlaySession:
    """`genie` is shared by all players and never changed. Of the last `limits.undo` steps everything is kept."""

    def __init__(self, genie: Genie, limits: Limits, seed: int = 0):
        self.genie, self.limits, self.seed = genie, limits, seed
        self.temperature = genie.config.dynamics.temperature
        self.maskgit_steps = genie.config.dynamics.maskgit_steps
        self.name = ""
        self.num_steps = 0
        self.branches: list[Kept] = []
        self.moments: deque[Moment] = deque(maxlen=limits.undo + 1)
        self.world: World | None = None
        self.beside: Beside | None = None

    def start(self, frame: Frame, name: str, beside: Beside | None = None) -> Frame:
        """A new world from a picture of the model's size; `beside`: a simulator in the moment of the picture."""
        self.beside = beside
        self.world = self.genie.start(
            torch.from_numpy(np.array(frame)), seed=self.seed, temperature=self.temperature,
            maskgit_steps=self.maskgit_steps,
        )  # fmt: skip
        self.name, self.num_steps, self.branches = name, 0, []
        self.moments.clear()
        along = (None, None) if beside is None else (beside.snapshot(), np.zeros(3))
        self.origin = Moment(self.world.state, None, *along)
        self.moments.append(self.origin)
        return self.origin.frame

    def act(self, code: int) -> Frame:
        world = self._world()
        world.step(code)
        del world.states[:-1]  # what can be undone is kept here, not there
        last, new = self.moments[-1], Moment(world.state, code)
        if self.beside is not None and last.moved is not None:
            self.beside.act(code)
            recent = list(islice(reversed(self.moments), self.genie.config.clip_length))[::-1]
            frames = [moment.frame for moment in (*recent, new)]
            moved = last.moved + read_motion(self.genie, frames, self.beside.meanings)
            new = replace(new, beside=self.beside.snapshot(), moved=moved)
        self.moments.append(new)
        self.num_steps += 1
        if len(self.moments) > WITH_CACHE:
            old = self.moments[-WITH_CACHE - 1]
            self.moments[-WITH_CACHE - 1] = replace(old, state=old.state.without_caches())
        return self.moments[-1].frame

    def undo(self, steps: int = 1) -> Frame:
        """Takes back at most so many steps as are kept."""
        steps = min(steps, len(self.moments) - 1)
        for _ in range(steps):
            self.moments.pop()
        self.num_steps -= steps
        return self._go_on_from_last()

    def restart(self) -> Frame:
        """To the start, however long ago it was."""
        self._world()
        self.moments.clear()
        self.moments.append(self.origin)
        self.num_steps = 0
        return self._go_on_from_last()

    def branch(self) -> int:
        """Keeps this moment; returns its number."""
        if len(self.branches) >= self.limits.branches:
            raise UserError(f"there are {self.limits.branches} branches: start anew for more")
        self._world()
        self.branches.append(Kept(tuple(self.moments), self.num_steps))
        return len(self.branches) - 1

    def switch(self, branch: int) -> Frame:
        """Back to a kept moment."""
        if branch >= len(self.branches):
            raise UserError(f"there is no branch {branch + 1}")
        kept = self.branches[branch]
        self.moments = deque(kept.moments, maxlen=self.limits.undo + 1)
        self.num_steps = kept.num_steps
        return self._go_on_from_last()

    def preview(self) -> list[Frame]:
        """The frame that each action would give from here, by code; nothing is changed."""
        return list(self._world().preview().cpu().numpy())

    def settings(self, temperature: float, maskgit_steps: int) -> None:
        self.temperature, self.maskgit_steps = temperature, maskgit_steps
        if self.world is not None:
            self.world.sampler = replace(self.world.sampler, num_steps=maskgit_steps, temperature=temperature)

    def clip(self) -> UInt8[np.ndarray, "L H W 3"]:
        """The frames that are kept, in order."""
        self._world()
        return np.stack([moment.frame for moment in self.moments])

    def trace(self) -> dict[str, Any]:
        """What was played, so that it can be played again: `World.step` with these codes from this start."""
        self._world()
        return {
            "start": self.name,
            "seed": self.seed,
            "temperature": self.temperature,
            "maskgit_steps": self.maskgit_steps,
            "first_step": self.num_steps - (len(self.moments) - 1),
            "codes": [moment.code for moment in list(self.moments)[1:]],
        }

    def _world(self) -> World:
        if self.world is None:
            raise UserError("there is no start yet: choose one")
        return self.world

    def _go_on_from_last(self) -> Frame:
        world, last = self._world(), self.moments[-1]
        if last.state.dynamics_cache is None:
            state = last.state
            fresh = world.prime(state.tokens, state.actions, state.num_generated)
            last = replace(last, state=replace(fresh, frame=state.frame))
            self.moments[-1] = last
        world.states = [last.state]
        if self.beside is not None and last.beside is not None:
            self.beside.restore(last.beside)
        return last.frame

    def error(self) -> float | None:
        """Metres between where the simulated arm is and where the dream's has gone; None without a simulator."""
        moved = self.moments[-1].moved
        if self.beside is None or moved is None:
            return None
        return float(np.linalg.norm(self.beside.moved() - moved))
