"""`python episode_memory.py FOLDER WAY OUT` reads the one episode of a folder and prints the growth of the peak memory
and the size of the output, in MB. WAY is fitted, native, blocks, label-rlds or label-lerobot."""

import sys
from pathlib import Path

import numpy as np

from genie_datasets import open_source


def status(name: str) -> float:
    """VmRSS (resident memory) or VmHWM (its peak), in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def begin() -> float:
    """Resets the peak, and returns the resident memory."""
    Path("/proc/self/clear_refs").write_text("5")
    return status("VmRSS")


def main(folder: str, way: str, out: str) -> None:
    import tensorflow_datasets  # noqa: F401  before the measurement, which it would change

    import genie_robotics.labeling.commands as label
    from genie_datasets.writers.lerobot import LeRobotWriter
    from genie_datasets.writers.rlds import RldsWriter

    split = open_source(folder, hz=3).split("train")
    length = int(split.num_frames[0])
    warm_up(out)
    before = begin()
    if way == "fitted":
        size = split.frames(0, None, (64, 64)).nbytes
    elif way == "native":
        size = split.frames(0).nbytes
    elif way == "blocks":
        size = max(block.nbytes for block in split.frame_blocks(0))
    else:
        codes = label.EpisodeCodes(np.zeros(length, np.int64), np.zeros(length, np.float32), 1)
        writer = RldsWriter(out, "set", 3) if way == "label-rlds" else LeRobotWriter(Path(out) / "set", 3)
        label.write_episode(writer, split, 0, codes)
        writer.finish()
        size = 0
    print(status("VmHWM") - before, size / 2**20)


def warm_up(out: str) -> None:
    """Encoders and TensorFlow allocate memory once, whatever the episode."""
    from genie_datasets.writers.lerobot import LeRobotWriter
    from genie_datasets.writers.rlds import RldsWriter

    frames = np.zeros((20, 240, 320, 3), np.uint8)
    for writer in (RldsWriter(out, "warm", 3), LeRobotWriter(Path(out) / "warm lerobot", 3)):
        writer.add(frames)
        writer.finish()


if __name__ == "__main__":
    main(*sys.argv[1:])
