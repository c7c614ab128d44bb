"""A simulated robot on a tabletop in RT-1's view (MuJoCo), with exact truth.

from genie_datasets.tabletop import Simulator, sample_scene

sim = Simulator(sample_scene("easy", seed=3))
state = sim.snapshot()
futures = sim.futures(state, actions)  # outcomes of A sequences of n actions (A, n, 7) from this state
"""

from genie_datasets.tabletop.factors import Factors, redraw, sample_scene
from genie_datasets.tabletop.recorded import Recording, read_recording
from genie_datasets.tabletop.simulator import Futures, Observation, Simulator

__all__ = ["Factors", "Futures", "Observation", "Recording", "Simulator", "read_recording", "redraw", "sample_scene"]
