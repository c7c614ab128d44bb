"""Execution of actions in the simulator from a recorded moment, and the distance to the recorded path."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, UInt8

from genie_eval.interfaces import Observation
from genie_eval.playback.starts import Start
from genie_eval.simulation import open_recording

if TYPE_CHECKING:
    from genie_datasets import Split


@dataclass(frozen=True)
class Rollout:
    """The robot's path over n steps; entry 0 is the start, before any action."""

    position: Float[np.ndarray, "n+1 3"]  # measured end effector, meters in the base frame
    gripper: Float[np.ndarray, " n+1"]  # measured, 0 open to 1 closed
    frames: UInt8[np.ndarray, "n+1 H W 3"]  # (n+1, 0, 0, 3) if none are rendered

    @classmethod
    def of(cls, observations: list[Observation]) -> "Rollout":
        return cls(
            np.stack([o.position for o in observations]),
            np.array([o.gripper for o in observations]),
            np.stack([o.frame for o in observations]),
        )


class RecordedEpisode:
    """A recorded episode in its simulator, which can be started from any of its frames.

    size: (H, W) of the frames; None renders none, which is faster.
    """

    def __init__(self, split: "Split", episode: int, size: tuple[int, int] | None = None):
        """Raises UserError if the episode keeps no simulator state."""
        self.recording = open_recording(split, episode)
        self.simulator = self.recording.simulator(size=size)

    def execute(self, step: int, actions: Float[np.ndarray, "n 7"]) -> Rollout:
        """Executes the actions from frame `step`."""
        self.simulator.restore(self.recording.states[step])
        observations = [self.simulator.observe()]
        for action in actions:
            self.simulator.step(action)
            observations.append(self.simulator.observe())
        return Rollout.of(observations)

    def recorded(self, start: Start) -> Rollout:
        """The recorded path from a start, read from the recorded states without executing anything."""
        observations = []
        for state in self.recording.states[start.step : start.step + start.horizon + 1]:
            self.simulator.restore(state)
            observations.append(self.simulator.observe())
        return Rollout.of(observations)

    def actions(self, start: Start) -> Float[np.ndarray, "n 7"]:
        """The recorded actions of a start's steps."""
        return self.recording.actions[start.span]

    def close(self) -> None:
        """Frees the renderer."""
        self.simulator.close()


def drift(rollout: Rollout, recorded: Rollout) -> Float[np.ndarray, " n+1"]:
    """Distance of the end effector to its recorded position after 0, 1, ... n steps, cm."""
    return 100 * np.linalg.norm(rollout.position - recorded.position, axis=1)


def gripper_error(rollout: Rollout, recorded: Rollout) -> Float[np.ndarray, " n+1"]:
    """Absolute difference of the gripper's measured closure (0 to 1) after 0, 1, ... n steps."""
    return np.abs(rollout.gripper - recorded.gripper)
