"""A simulation worker process, which simulates jobs: `python -m genie_datasets.tabletop.worker`."""

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np

from genie_datasets.base.child_process import serve
from genie_datasets.tabletop.episode import Episode, rollout
from genie_datasets.tabletop.factors import Factors, sample_scene
from genie_datasets.tabletop.mjcf import TEXTURES
from genie_datasets.tabletop.simulator import Simulator

JPEG_QUALITY = 95
SCENES_KEPT = {
    "easy": 20,
    "rt1": 2,
    "wild": 2,
}  # compiled scenes that a worker keeps; each has about 10 MB of OpenGL buffers


@dataclass(frozen=True)
class Job:
    """One episode to simulate."""

    index: int  # in the data set
    split: str
    family: str
    scene: int  # seed of the scene
    seed: int  # of the episode
    size: tuple[int, int]  # (height, width) of the frames
    factors: Factors


@dataclass
class EncodedEpisode(Episode):
    """An `Episode` with its frames as JPEG (`frames` is empty), and its scene."""

    jpegs: list[bytes]
    scene: int
    family: str
    limits: tuple[tuple[float, ...], tuple[float, ...]]  # low and high corner in m of the box for the tool's target
    factors: str  # JSON of `Factors`
    scene_config: str  # JSON of `SceneConfig`
    mjcf: str
    textures: tuple[bytes, ...]  # PNG files, in the order of mjcf.TEXTURES


def encode(episode: Episode, sim: Simulator, factors: Factors) -> EncodedEpisode:
    """Encode the frames as JPEG without chroma subsampling, so that small colored parts stay sharp."""
    import simplejpeg

    jpegs = [
        simplejpeg.encode_jpeg(
            np.ascontiguousarray(frame), quality=JPEG_QUALITY, colorspace="RGB", colorsubsampling="444"
        )
        for frame in episode.frames
    ]
    scene = sim.scene
    return EncodedEpisode(
        **{**vars(episode), "frames": episode.frames[:0]},
        jpegs=jpegs,
        scene=scene.seed,
        family=scene.family,
        limits=(scene.limits.low, scene.limits.high),
        factors=factors.to_json(),
        scene_config=scene.to_json(),
        mjcf=sim.mjcf,
        textures=tuple(sim.textures[name] for name in TEXTURES),
    )


_simulators: OrderedDict[tuple, Simulator] = OrderedDict()  # least recently used first


def _simulator(job: Job) -> Simulator:
    """The simulator of the job's scene, compiled if it is not among those kept."""
    key = (job.family, job.scene, job.size, job.factors)
    if key not in _simulators:
        while len(_simulators) >= SCENES_KEPT[job.family]:
            _simulators.popitem(last=False)[1].close()
        _simulators[key] = Simulator(sample_scene(job.family, job.scene, job.factors), job.size)
    _simulators.move_to_end(key)
    return _simulators[key]


def run(job: Job) -> EncodedEpisode:
    """Simulate, render and encode one episode in this process."""
    sim = _simulator(job)
    return encode(rollout(sim, job.seed, job.factors.behaviour), sim, job.factors)


if __name__ == "__main__":
    # Pickled classes must come from the importable module, not from __main__.
    from genie_datasets.tabletop import worker

    serve(worker.run)
