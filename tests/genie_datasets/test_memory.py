"""The anonymous memory of all loader workers does not grow with the data set."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from genie_datasets import build_frame_cache, open_source
from genie_datasets.sources.rlds.tfrecord import frame_record
from tests.genie_datasets.numbered import frame, write

FEW, MANY, SHARDS, LENGTH = 200, 20_000, 20, 8


@pytest.fixture(scope="module")
def folders(tmp_path_factory, kit) -> dict[int, Path]:
    """Data sets of few and of many equal episodes."""
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
def test_memory_is_the_same_for_a_hundred_times_the_episodes(folders, tmp_path, reader):
    used = {}
    for number, folder in folders.items():
        path = folder
        if reader == "cache":
            path = tmp_path / str(number)
            build_frame_cache(open_source(folder).split("train"), path, (8, 8), progress=False)
        else:
            assert open_source(folder).split("train").num_episodes == number  # builds the index
        used[number] = measured(path, 2000)[-1]
    assert used[MANY] < 1.1 * used[FEW], used


@pytest.mark.slow
def test_memory_does_not_grow_over_a_hundred_thousand_clips(folders):
    open_source(folders[MANY])
    tenth, end = measured(folders[MANY], 100_000)
    assert end < 1.1 * tenth, (tenth, end)


EPISODES = (300, 1200)  # frames


@pytest.fixture(scope="module")
def episodes(tmp_path_factory, kit) -> dict[tuple[str, int], Path]:
    """One long episode per folder, of each kind of source."""
    found = {}
    for length in EPISODES:
        frames = (frame(n % 1000, 240, 320) for n in range(length))
        video = tmp_path_factory.mktemp("video") / "train"
        write(video / "a.mp4", length, shape=(240, 320), options={"preset": "ultrafast"})
        found["video", length] = video.parent
        arrays = tmp_path_factory.mktemp("arrays") / "train"
        arrays.mkdir()
        np.savez_compressed(arrays / "a.npz", frames=np.stack(list(frames)))
        found["npz", length] = arrays.parent
        rlds = kit.RldsFolder(tmp_path_factory.mktemp("rlds"))
        image = kit.jpeg(frame(7, 240, 320))
        rlds.leaves[kit.IMAGE] = kit.leaf("image", (240, 320, 3), "uint8")
        rlds.add("train", [{kit.IMAGE: [image] * length, kit.INSTRUCTION: [b"move"] * length}])
        found["rlds", length] = rlds.finish()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["video", "npz", "rlds"])
@pytest.mark.parametrize("way", ["fitted", "native", "blocks", "label-rlds", "label-lerobot"])
def test_reading_an_episode_takes_its_output_and_a_constant(episodes, tmp_path, kind, way):
    script = Path(__file__).with_name("episode_memory.py")
    rest = []
    for length in EPISODES:
        job = [sys.executable, str(script), str(episodes[kind, length]), way, str(tmp_path / str(length))]
        done = subprocess.run(job, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        peak, size = map(float, done.stdout.split())
        rest.append(peak - size)
        print(kind, way, length, f"peak +{peak:.0f} MB, output {size:.0f} MB")
    # TFDS holds the encoded images of an episode, about 20 KB each, because it writes them as one record.
    allowed = 25 + (0.1 * (EPISODES[1] - EPISODES[0]) if way == "label-rlds" else 0)
    assert rest[1] - rest[0] < allowed, rest
