"""A simulation worker: `python -m genie_datasets.tabletop.worker`, jobs in by stdin, episodes out by stdout.

A process of its own rather than multiprocessing: its environment (renderer, one BLAS thread) is set before anything is
imported; it never imports TensorFlow, which ends in a segmentation fault beside Mesa's OpenGL; and callers need no
`if __name__ == "__main__"`.
"""

import json
import os
import pickle
import signal
import struct
import sys
from collections import OrderedDict
from dataclasses import asdict, dataclass
from typing import IO

import numpy as np

from genie_datasets.tabletop.factors import Factors

JPEG_QUALITY = 95
SCENES_KEPT = {"easy": 20, "rt1": 2}  # compiled scenes, each with some 10 MB of OpenGL buffers, that a worker keeps


@dataclass(frozen=True)
class Job:
    """One episode to make."""

    index: int
    split: str
    family: str
    scene: int
    seed: int
    size: tuple[int, int]
    factors: Factors


@dataclass
class EncodedEpisode:
    """What travels from a worker to the writer: an Episode with its frames as JPEG, and its scene."""

    jpegs: list[bytes]
    action: np.ndarray
    position: np.ndarray
    rotation: np.ndarray
    image: np.ndarray
    gripper: np.ndarray
    objects: np.ndarray
    drawers: np.ndarray
    commanded: np.ndarray
    state: np.ndarray
    instructions: list[str]
    skill: str
    success: bool
    seed: int
    renderer: str
    scene: int
    family: str
    limits: tuple[tuple[float, ...], tuple[float, ...]]  # low and high corner of what the tool is kept in, m
    factors: str  # JSON: the switches
    scene_config: str  # JSON: `SceneConfig.from_json` reads it
    mjcf: str
    textures: tuple[bytes, ...]  # PNG, in the order of mjcf.TEXTURES


def encode(episode, sim, factors: Factors) -> EncodedEpisode:
    """Frames become JPEG of quality 95 without chroma subsampling, so that small hands keep their colour."""
    import simplejpeg

    from genie_datasets.tabletop.mjcf import TEXTURES

    jpegs = [
        simplejpeg.encode_jpeg(
            np.ascontiguousarray(frame), quality=JPEG_QUALITY, colorspace="RGB", colorsubsampling="444"
        )
        for frame in episode.frames
    ]
    scene = sim.scene
    return EncodedEpisode(
        jpegs,
        **{name: value for name, value in vars(episode).items() if name != "frames"},
        scene=scene.seed,
        family=scene.family,
        limits=(scene.limits.low, scene.limits.high),
        factors=json.dumps(asdict(factors)),
        scene_config=scene.to_json(),
        mjcf=sim.mjcf,
        textures=tuple(sim.textures[name] for name in TEXTURES),
    )


_simulators: OrderedDict = OrderedDict()  # (family, scene, size, factors) -> Simulator, least recently used first


def _simulator(job: Job):
    from genie_datasets.tabletop.factors import sample_scene
    from genie_datasets.tabletop.simulator import Simulator

    key = (job.family, job.scene, job.size, job.factors)
    if key not in _simulators:
        while len(_simulators) >= SCENES_KEPT[job.family]:
            _simulators.popitem(last=False)[1].close()
        _simulators[key] = Simulator(sample_scene(job.family, job.scene, job.factors), job.size)
    _simulators.move_to_end(key)
    return _simulators[key]


def run(job: Job) -> EncodedEpisode:
    """Simulates, renders and encodes one episode in this process."""
    from genie_datasets.tabletop.episode import rollout

    sim = _simulator(job)
    return encode(rollout(sim, job.seed, job.factors.behaviour), sim, job.factors)


def send(stream: IO[bytes], value: object) -> None:
    """Writes one pickled message, length first."""
    payload = pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
    stream.write(struct.pack("<Q", len(payload)))
    stream.write(payload)
    stream.flush()


def receive(stream: IO[bytes]) -> object:
    """Reads one message; EOFError at the end of the stream."""
    header = stream.read(8)
    if len(header) < 8:
        raise EOFError
    (length,) = struct.unpack("<Q", header)
    payload = stream.read(length)
    if len(payload) < length:
        raise EOFError
    return pickle.loads(payload)


def main() -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which closes the pipe
    inbox, outbox = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # what libraries print must not fall between the messages
    while True:
        try:
            job = receive(inbox)
        except EOFError:
            return 0
        try:
            send(outbox, run(job))  # type: ignore[arg-type]
        except BrokenPipeError:  # the command was killed: nobody waits for the episode
            os._exit(1)  # not sys.exit, whose flush of the closed pipe would complain


if __name__ == "__main__":
    # Pickled classes must come from the importable module, not from __main__.
    from genie_datasets.tabletop import worker

    sys.exit(worker.main())
