"""Playback: latent actions, decoded to robot actions, executed in the simulator and compared with recording and dream.

from genie_eval.playback import PlaybackConfig, play_back, play_codes
from genie_robotics.labeling import ActionMap

action_map = ActionMap.fit(codes, actions, num_codes=8)  # codes (M,), actions of labeled transitions (M, 7)
actions = action_map.decode([3, 3, 5])                   # (n, 7) robot actions
result = play_back(world, source, "playback")            # drift, label curve, videos; the content of playback.json
result = play_codes(world, source, "playback", [3, 3])   # a typed sequence
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genie_eval.playback.config import PlaybackConfig as PlaybackConfig
    from genie_eval.playback.run import play_back as play_back
    from genie_eval.playback.run import play_codes as play_codes

_HOME = {"PlaybackConfig": "config", "play_back": "run", "play_codes": "run"}
__all__ = [*_HOME]


def __getattr__(name: str):
    """Imports on first use, so that `playback --help` does not import torch."""
    if name not in _HOME:
        raise AttributeError(f"module 'genie_eval.playback' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(f"genie_eval.playback.{_HOME[name]}"), name)
