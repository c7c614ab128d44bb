"""Decoded latent actions in MuJoCo beside the dream: do they drive the robot where the video says?

from genie_eval.playback import PlaybackConfig, play_back, play_codes
from genie_robotics.labeling import ActionMap

table = ActionMap.fit(codes, actions, num_codes=8)       # codes (M,), labelled actions (M, 7)
actions = table.decode([3, 3, 5])                        # (n, 7) robot actions
result = play_back(genie, source, "playback")            # drift, label curve, videos; what playback.json holds
result = play_codes(genie, source, "playback", [3, 3])   # a typed sequence
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genie_eval.playback.config import PlaybackConfig as PlaybackConfig
    from genie_eval.playback.run import play_back as play_back
    from genie_eval.playback.run import play_codes as play_codes

_HOME = {"PlaybackConfig": "config", "play_back": "run", "play_codes": "run"}
__all__ = [*_HOME]


def __getattr__(name: str):
    """Imports on first use: `playback --help` answers without torch."""
    if name not in _HOME:
        raise AttributeError(f"module 'genie_eval.playback' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(f"genie_eval.playback.{_HOME[name]}"), name)
