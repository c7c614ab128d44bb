"""What can be set about a playback."""

from dataclasses import dataclass


@dataclass
class PlaybackConfig:
    """How labels are drawn, what is executed, and how much is drawn of it."""

    num_labels: int = 1000
    """Transitions to draw with their true actions where no --labels file is given."""
    fit_labels: int = 200
    """Labels that the headline's map from code to action is fitted on (Genie: 200)."""
    mode: str = "mean"
    """How a code decodes: mean of its labels, or sample: one of them at random (Genie)."""
    episodes: int = 50
    """Episodes to execute, one start each, chosen at random."""
    horizon: int = 15
    """Steps to execute and dream."""
    curve_draws: int = 200
    """Random sets of labels at every size of the label curve."""
    curve_rollouts: int = 5
    """Of those sets, how many are executed in the simulator."""
    curve_episodes: int = 20
    """Episodes on which those are executed."""
    videos: int = 4
    """Videos to write."""
    seed: int = 0
