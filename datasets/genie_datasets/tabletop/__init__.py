"""A simulated robot on a tabletop in RT-1's view (MuJoCo), with exact truth.

from genie_datasets.tabletop import Simulator, sample_scene

sim = Simulator(sample_scene("easy", seed=3))
state = sim.snapshot()
futures = sim.futures(state, actions)  # outcomes of A sequences of n actions (A, n, 7) from this state
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genie_datasets.tabletop.factors import Factors, redraw, sample_scene
    from genie_datasets.tabletop.recorded import Recording, read_recording
    from genie_datasets.tabletop.simulator import Futures, Observation, Simulator

_MODULES = {
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
    """Import a name on first use, so that simulation workers start quickly."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
