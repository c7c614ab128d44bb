"""The interface of renderers."""

from abc import ABC, abstractmethod

import numpy as np


class Renderer(ABC):
    """Turns a simulation state into an image."""

    name: str

    @abstractmethod
    def __call__(self, data) -> np.ndarray:
        """Render a mujoco.MjData as (H,W,3) uint8."""

    def close(self) -> None:  # noqa: B027
        """Free what the renderer holds."""


class NoRenderer(Renderer):
    """Renders nothing: for simulations that only need the truth."""

    name = "none"

    def __call__(self, data) -> np.ndarray:
        return np.zeros((0, 0, 3), np.uint8)
