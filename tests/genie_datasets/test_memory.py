"""Memory does not grow with the data set: anonymous resident memory, summed over loader workers."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from genie_datasets import build_frame_cache, open_source
from genie_datasets.tfrecord import frame_record

FEW, MANY, SHARDS, LENGTH = 200, 20_000, 20, 16


@pytest.fixture(scope="module")
def folders(tmp_path_factory, kit) -> dict[int, Path]:
    """Data sets of a few and of many episodes, all alike: only their number can make a difference."""
    found = {}
    images = [kit.png(np.full((8, 8, 3), 10 * t, np.uint8)) for t in range(LENGTH)]
    record = frame_record(kit.encode_example({kit.IMAGE: images, kit.INSTRUCTION: [b"move"] * LENGTH}))
    for number in (FEW, MANY):
        rlds = kit.RldsFolder(tmp_path_factory.mktemp(f"episodes{number}"), f"set{number}")
        for shard in range(SHARDS):
            name = f"{rlds.name}-train.tfrecord-{shard:05d}-of-{SHARDS:05d}"
            (rlds.folder / name).write_bytes(record * (number // SHARDS))
        found[number] = rlds.finish()
    return found


def measured(path: Path, clips: int) -> list[float]:
    script = Path(__file__).with_name("reading_memory.py")
    done = subprocess.run([sys.executable, str(script), str(path), str(clips)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return [float(word) for word in done.stdout.split()]


@pytest.mark.parametrize("reader", ["index", "cache"])
def test_memory_is_that_of_a_hundredth_of_the_episodes(folders, tmp_path, reader):
    used = {}
    for number, folder in folders.items():
        path = folder
        if reader == "cache":
            path = tmp_path / str(number)
            build_frame_cache(open_source(folder).split("train"), path, (8, 8), progress=False)
        else:
            assert open_source(folder).split("train").num_episodes == number  # leaves the index behind
        used[number] = measured(path, 2000)[-1]
    assert used[MANY] < 1.1 * used[FEW], used


@pytest.mark.slow
def test_memory_does_not_grow_over_a_hundred_thousand_clips(folders):
    open_source(folders[MANY])
    tenth, end = measured(folders[MANY], 100_000)
    assert end < 1.1 * tenth, (tenth, end)
