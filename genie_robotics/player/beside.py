"""The simulator beside a dream: the same codes, decoded to robot actions, from the same moment."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, UInt8

from genie_robotics.genie import Genie
from genie_robotics.labeling.code_meanings import Meaning

if TYPE_CHECKING:
    from genie_datasets.tabletop import Simulator

CLOSES, OPENS = ("closing", "closes"), ("opening", "opens")
Frame = UInt8[np.ndarray, "H W 3"]


def decoded(meaning: Meaning, gripper_closed: bool) -> Float[np.ndarray, "7"]:
    """The action that does what the report measured: the mean motion, and the gripper's command by the code's name.

    A code that moves the gripper either way does the one that it can.
    """
    action = np.zeros(7)
    action[:3] = meaning.motion if meaning.motion is not None else 0.0
    if "gripper" in meaning.name:
        if any(word in meaning.name for word in CLOSES):
            action[6] = 1.0
        elif any(word in meaning.name for word in OPENS):
            action[6] = -1.0
        else:
            action[6] = -1.0 if gripper_closed else 1.0
    return action


class Beside:
    """One simulator, which goes where its player's dream goes."""

    def __init__(self, simulator: "Simulator", meanings: Sequence[Meaning]):
        self.simulator, self.meanings = simulator, meanings
        self.begun_at = simulator.observe().position
        self.frame: Frame = simulator.observe().frame

    def act(self, code: int) -> None:
        observed = self.simulator.observe()
        self.simulator.step(decoded(self.meanings[code], observed.gripper > 0.5))
        self.frame = self.simulator.observe().frame

    def snapshot(self) -> np.ndarray:
        return self.simulator.snapshot()

    def restore(self, state: np.ndarray) -> None:
        self.simulator.restore(state)
        self.frame = self.simulator.observe().frame

    def moved(self) -> Float[np.ndarray, "3"]:
        """Metres in the base frame, since the start."""
        return self.simulator.observe().position - self.begun_at


def read_motion(genie: Genie, frames: Sequence[Frame], meanings: Sequence[Meaning]) -> Float[np.ndarray, "3"]:
    """How far the arm went between the last two frames of a dream, as the latent action model reads them.

    That is the mean motion of the code that it infers. One whose encoder has a history reads the frames before, too.
    """
    read = frames[-genie.config.clip_length if genie.config.latent_action.encoder_history else -2 :]
    code = int(genie.infer_actions(torch.from_numpy(np.stack(read)[None]))[0, -1])
    motion = meanings[code].motion
    return np.zeros(3) if motion is None else motion
