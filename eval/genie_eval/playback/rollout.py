"""Actions carried out in MuJoCo from a recorded moment, and how far the robot ends up from the recorded one."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, UInt8

from genie_eval.playback.starts import Start

if TYPE_CHECKING:
    from genie_datasets import Split
    from genie_datasets.tabletop import Observation, Recording, Simulator


@dataclass(frozen=True)
class Path:
    """What the robot did in n steps; entry 0 is the start, before any action."""

    position: Float[np.ndarray, "n+1 3"]  # measured end effector, m in the base frame
    gripper: Float[np.ndarray, " n+1"]  # measured, 0 open .. 1 closed
    frames: UInt8[np.ndarray, "n+1 H W 3"]  # (n+1, 0, 0, 3) of a simulator that makes no pictures

    @classmethod
    def of(cls, seen: "list[Observation]") -> "Path":
        """From n+1 observations."""
        return cls(
            np.stack([o.position for o in seen]),
            np.array([o.gripper for o in seen]),
            np.stack([o.frame for o in seen]),
        )


class Stage:
    """A recorded episode, ready to be started again from any of its moments.

    size: (H, W) of the pictures; None: none are made, which is faster.
    """

    def __init__(self, split: "Split", episode: int, size: tuple[int, int] | None = None):
        """Raises UserError where the episode keeps no simulator state."""
        from genie_datasets.tabletop import read_recording

        self.recording: Recording = read_recording(split, episode)
        self.simulator: Simulator = self.recording.simulator(size=size)

    def execute(self, step: int, actions: Float[np.ndarray, "n 7"]) -> Path:
        """Goes to frame `step` and carries out the actions."""
        sim = self.simulator
        sim.restore(self.recording.states[step])
        seen = [sim.observe()]
        for action in actions:
            sim.step(action)
            seen.append(sim.observe())
        return Path.of(seen)

    def recorded(self, start: Start) -> Path:
        """What was recorded from a start on: read from the recorded states, without executing anything."""
        sim, seen = self.simulator, []
        for state in self.recording.states[start.step : start.step + start.horizon + 1]:
            sim.restore(state)
            seen.append(sim.observe())
        return Path.of(seen)

    def true_actions(self, start: Start) -> Float[np.ndarray, "n 7"]:
        """The recorded actions of a start's steps."""
        return self.recording.actions[start.span]

    def close(self) -> None:
        """Frees the renderer."""
        self.simulator.close()


def drift(path: Path, recorded: Path) -> Float[np.ndarray, " n+1"]:
    """Distance of the end effector to where it was in the recording, in cm, after 0, 1, ... n steps."""
    return 100 * np.linalg.norm(path.position - recorded.position, axis=1)


def gripper_error(path: Path, recorded: Path) -> Float[np.ndarray, " n+1"]:
    """Difference of the measured closure of the gripper (0 open .. 1 closed), absolute, after 0, 1, ... n steps."""
    return np.abs(path.gripper - recorded.gripper)
