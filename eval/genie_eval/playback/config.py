"""Settings of a playback."""

from dataclasses import dataclass


@dataclass
class PlaybackConfig:
    """Labels, execution and figures of a playback."""

    num_labels: int = 1000
    """Transitions to label with their true actions, without --labels."""
    fit_labels: int = 200
    """Labels on which the map from code to action is fitted."""
    mode: str = "mean"
    """Decode a code to the mean of its labels, or to a random one: mean or sample."""
    episodes: int = 50
    """Random episodes to execute, one start each."""
    horizon: int = 15
    """Steps to execute and dream."""
    curve_draws: int = 200
    """Random sets of labels per size of the label curve."""
    curve_rollouts: int = 5
    """Sets per size that are executed in the simulator."""
    curve_episodes: int = 20
    """Episodes on which those sets are executed."""
    videos: int = 4
    """Videos to write."""
    seed: int = 0
    """Random seed."""
