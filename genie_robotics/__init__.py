"""genie_robotics: Genie (Bruce et al. 2024) for robots, which learns an action space and a playable world from video.

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

_MODULES = {"Genie": "genie", "GenieConfig": "models.config", "preset": "models.presets"}
__all__ = [*_MODULES]


def __getattr__(name: str):
    """Imports a name on first use, so that the command line starts without torch."""
    if name not in _MODULES:
        raise AttributeError(f"module 'genie_robotics' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(f"genie_robotics.{_MODULES[name]}"), name)
