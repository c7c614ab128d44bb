"""Interfaces that a world model and a simulator must have to be measured.

`WorldModel` is all that `evaluate` and `playback` use of a model; `genie_robotics.Genie` is one, and
tests/genie_eval/conftest.py holds a scripted one of 40 lines. A judge (`evaluate --judge`) only has to be a `Judge`.
`Recording` and `Simulator` are all that they use of a simulator; `genie_eval.simulation` opens the MuJoCo tabletop.
"""

from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8

if TYPE_CHECKING:
    import torch

Array: TypeAlias = "np.ndarray | torch.Tensor"
"""A model may return NumPy arrays or tensors on any device."""


class WorldModelConfig(Protocol):
    """Properties of a world model that the evaluation has to know."""

    @property
    def num_actions(self) -> int:
        """K, the number of latent actions; codes are 0 .. K-1."""

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) of the frames that the model reads and generates."""

    @property
    def fit(self) -> str:
        """How frames of another size are fitted: "crop" or "letterbox" (`genie_datasets.fit_frames`)."""

    @property
    def gap(self) -> float | None:
        """Seconds between two frames; None: every frame of the source."""

    @property
    def clip_length(self) -> int:
        """Frames that the model reads at once. Longer clips are read in windows that share one frame."""


@runtime_checkable
class Judge(Protocol):
    """A latent action model: it reads latent actions from video."""

    @property
    def config(self) -> WorldModelConfig: ...

    def infer_actions(self, frames: UInt8[np.ndarray, "B T H W 3"]) -> Array:
        """(B, T-1) integer codes; entry t is what happened from frame t to t+1. B clips may be of several episodes."""


@runtime_checkable
class WorldModel(Judge, Protocol):
    """A world model with latent actions.

    The baseline `untrained` needs a model of the same shape with random weights: `type(model)(model.config)` must make
    one. `.to(device)` and `.eval()` are called on it if they exist. The report names `config.preset` if it exists.
    """

    def embed_actions(self, frames: UInt8[np.ndarray, "B T H W 3"]) -> Array:
        """(B, T-1, L) float latent actions before quantization."""

    def reconstruct(self, frames: UInt8[np.ndarray, "B T H W 3"]) -> Array:
        """(B, T, H, W, 3) uint8 frames after the tokenizer: the best that the model can show of these, when it starts
        from the first frame of each clip."""

    def generate(self, frames: UInt8[np.ndarray, "B T H W 3"], codes: np.ndarray, seed: int = 0) -> Array:
        """(B, n, H, W, 3) uint8: n frames after the prompt `frames`, one for each of the integer `codes` (B, n).

        The sampling noise of row b depends on `seed` and b, not on the codes: dreams are compared at equal noise.
        """


class TrustedWorld(Protocol):
    """A world model that also says how far to trust its frames."""

    @property
    def trust_model(self) -> Any:
        """None if it was not calibrated."""

    def generate(
        self, frames: UInt8[np.ndarray, "B T H W 3"], codes: np.ndarray, seed: int = 0, *, return_trust: Literal[True]
    ) -> tuple[Array, Array]:
        """`WorldModel.generate`, and the probability (B, n) that each frame is right."""


class Observation(Protocol):
    """One moment of a simulation."""

    @property
    def frame(self) -> UInt8[np.ndarray, "H W 3"]: ...

    @property
    def position(self) -> Float[np.ndarray, " 3"]:
        """Measured end effector, meters in the robot's base frame."""

    @property
    def gripper(self) -> float:
        """Measured closure, 0 open to 1 closed."""


class Futures(Protocol):
    """Outcome of A sequences of n actions from one state; frame t is seen after action t."""

    @property
    def frames(self) -> UInt8[np.ndarray, "A n H W 3"]: ...

    @property
    def position(self) -> Float[np.ndarray, "A n 3"]: ...


@runtime_checkable
class Simulator(Protocol):
    """A simulated scene that can be set to a recorded state.

    An action (7,) is a displacement in meters, a rotation vector in radians, and a gripper command: -1 opens, 0 keeps,
    +1 closes. The same actions from the same state must have the same outcome.
    """

    def restore(self, state: np.ndarray) -> None:
        """Sets the scene to a recorded state."""

    def observe(self) -> Observation: ...

    def step(self, action: Float[np.ndarray, " 7"]) -> None:
        """Executes one action."""

    def futures(self, state: np.ndarray, actions: Float[np.ndarray, "A n 7"]) -> Futures:
        """Executes each sequence of actions from `state`."""

    def close(self) -> None:
        """Frees the renderer."""


class Recording(Protocol):
    """A recorded episode of L frames with the simulator's states."""

    @property
    def states(self) -> np.ndarray:
        """(L, S); row t is the state at frame t."""

    @property
    def actions(self) -> Float[np.ndarray, "L 7"]:
        """Row t leads from frame t to t+1; the last row is zero."""

    def simulator(self, size: tuple[int, int] | None) -> Simulator:
        """The episode's scene at its first frame. size: (H, W) of the frames; None: none are rendered."""
