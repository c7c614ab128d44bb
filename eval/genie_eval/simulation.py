"""The simulator behind a data set: the only place where the evaluation opens the MuJoCo tabletop."""

from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from genie_eval.interfaces import Recording

if TYPE_CHECKING:
    from genie_datasets import Split

MAX_REDRAWS = 20  # draws of a factor until the scene differs from the recorded one


def open_recording(split: "Split", episode: int) -> Recording:
    """The recorded episode with its simulator.

    Raises:
        UserError: the episode keeps no simulator state.
    """
    from genie_datasets.tabletop.recorded import read_recording
    from genie_datasets.tabletop.render import use_opengl

    recording = read_recording(split, episode)
    use_opengl()  # before mujoco is imported: pictures then come from the renderer that made the recorded ones
    return recording


def render_states(
    split: "Split", episode: int, ids: np.ndarray, size: tuple[int, int], factors: tuple[str, ...],
    rng: np.random.Generator,
) -> list[UInt8[np.ndarray, "T H W 3"]]:  # fmt: skip
    """Renders frames `ids` of an episode from the recorded states: unchanged, then once with each factor redrawn.

    factors: names of `genie_datasets.tabletop.redraw` that do not change the physics.

    Raises:
        UserError: the episode keeps no simulator state.
    """
    from genie_datasets.tabletop import Simulator, redraw
    from genie_datasets.tabletop.recorded import read_recording
    from genie_datasets.tabletop.render import use_opengl

    recording = read_recording(split, episode)
    use_opengl()
    renderings = []
    for factor in (None, *factors):
        scene = recording.scene
        for _ in range(MAX_REDRAWS if factor else 0):  # half of the draws of a passer-by have none
            scene = redraw(recording.scene, str(factor), int(rng.integers(1 << 30)))
            if scene != recording.scene:
                break
        simulator = Simulator(scene, size)
        try:
            frames = []
            for state in recording.states[ids]:
                simulator.restore(state)
                if factor == "distractor":  # the state holds the place of the recorded scene's passer-by
                    simulator.place_distractor(simulator.data.time)
                frames.append(simulator.observe().frame)
        finally:
            simulator.close()
        renderings.append(np.stack(frames))
    return renderings


def visible_parts(simulator: Any, size: tuple[int, int]) -> tuple[Int[np.ndarray, "H W"], Bool[np.ndarray, "H W"]]:
    """The object (0, 1, ..., or -1) that each pixel shows, and whether the pixel shows the arm."""
    from genie_datasets.tabletop.segmentation import ROBOT, visible_parts

    parts = visible_parts(simulator, size)
    return np.maximum(parts, -1), parts == ROBOT


def object_positions(simulator: Any) -> Float[np.ndarray, "M 3"]:
    """Positions of the objects, meters."""
    return simulator.object_poses()[: len(simulator.scene.objects), :3].copy()
