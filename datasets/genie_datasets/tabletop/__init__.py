"""A MuJoCo tabletop in RT-1's view, where the truth is known.

from genie_datasets.tabletop import Simulator, sample_scene

sim = Simulator(sample_scene("easy", seed=3))
state = sim.snapshot()
futures = sim.futures(state, actions)  # actions (A, n, 7): what would have happened
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genie_datasets.tabletop.factors import Factors, redraw, sample_scene
    from genie_datasets.tabletop.recorded import Recording, read_recording
    from genie_datasets.tabletop.simulator import Futures, Observation, Simulator

_HOME = {
    "Factors": "factors",
    "redraw": "factors",
    "sample_scene": "factors",
    "Recording": "recorded",
    "read_recording": "recorded",
    "Futures": "simulator",
    "Observation": "simulator",
    "Simulator": "simulator",
}

__all__ = ["Factors", "Futures", "Observation", "Recording", "Simulator", "read_recording", "redraw", "sample_scene"]


def __getattr__(name: str):
    """Loads a name when it is asked for: simulation workers start without what they do not need."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
