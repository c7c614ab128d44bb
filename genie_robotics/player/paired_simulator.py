"""A simulator next to a dream: it carries out the same codes as robot actions, from the same start."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, UInt8

from genie_robotics.genie import Genie
from genie_robotics.labeling.code_meanings import Meaning

if TYPE_CHECKING:
    from genie_datasets.tabletop import Simulator

CLOSING, OPENING = ("closing", "closes"), ("opening", "opens")
Frame = UInt8[np.ndarray, "H W 3"]


def robot_action(meaning: Meaning, gripper_closed: bool) -> Float[np.ndarray, "7"]:
    """The action of a code: its mean motion in meters, and a gripper command if the code's name mentions the gripper.

    A code that moves the gripper in either direction opens a closed gripper and closes an open one.
    """
    action = np.zeros(7)
    action[:3] = meaning.motion if meaning.motion is not None else 0.0
    if "gripper" in meaning.name:
        if any(word in meaning.name for word in CLOSING):
            action[6] = 1.0
        elif any(word in meaning.name for word in OPENING):
            action[6] = -1.0
        else:
            action[6] = -1.0 if gripper_closed else 1.0
    return action


class PairedSimulator:
    """One simulator that follows a player's dream."""

    def __init__(self, simulator: "Simulator", meanings: Sequence[Meaning]):
        self.simulator, self.meanings = simulator, meanings
        self.observed = simulator.observe()  # kept, because it renders
        self.start_position: Float[np.ndarray, 3] = self.observed.position

    @property
    def frame(self) -> Frame:
        return self.observed.frame

    def act(self, code: int) -> None:
        is_closed = self.observed.gripper > 0.5
        self.simulator.step(robot_action(self.meanings[code], is_closed))
        self.observed = self.simulator.observe()

    def snapshot(self) -> np.ndarray:
        return self.simulator.snapshot()

    def restore(self, state: np.ndarray) -> None:
        self.simulator.restore(state)
        self.observed = self.simulator.observe()

    def displacement(self) -> Float[np.ndarray, "3"]:
        """Displacement of the arm since the start, in meters in the base frame."""
        return self.observed.position - self.start_position


def read_motion(genie: Genie, frames: Sequence[Frame], meanings: Sequence[Meaning]) -> Float[np.ndarray, "3"]:
    """Motion of the arm between the last two frames of a dream, in meters.

    It is the mean motion of the code that the latent action model infers from these frames, or from a whole clip if its
    encoder has a history.
    """
    window = frames[-genie.config.clip_length if genie.config.latent_action.encoder_history else -2 :]
    code = int(genie.infer_actions(torch.from_numpy(np.stack(window)[None]))[0, -1])
    motion = meanings[code].motion
    return np.zeros(3) if motion is None else motion
