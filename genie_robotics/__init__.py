"""genie_robotics: Genie (Bruce et al. 2024) for robots: an action space and a playable world from video alone.

from genie_robotics import Genie
genie = Genie.from_pretrained("runs/nano")
codes = genie.infer_actions(frames)          # (B, T, H, W, 3) uint8 -> (B, T-1)
dream = genie.generate(frames[:, :1], codes)
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genie_robotics.genie import Genie as Genie
    from genie_robotics.models.config import GenieConfig as GenieConfig
    from genie_robotics.models.presets import preset as preset

_HOME = {"Genie": "genie", "GenieConfig": "models.config", "preset": "models.presets"}
__all__ = [*_HOME]


def __getattr__(name: str):
    """Imports on first use: the command line starts without torch."""
    if name not in _HOME:
        raise AttributeError(f"module 'genie_robotics' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(f"genie_robotics.{_HOME[name]}"), name)
