"""How fast useful frames come out of each way of reading the same files: `genie-robotics bench loader`.

A useful frame is one that is part of a window of 16 frames fitted to 64x64, ready for a model. What counts is frames a
CPU-second, all threads of the process together. The ways take turns for `seconds` each, several rounds, and the medians
are compared, because the machine may be shared.
"""

import json as jsonlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from genie_datasets.base.cores import num_cores
from genie_datasets.base.fit import fit_frames
from genie_datasets.clips.dataset import ClipDataset
from genie_datasets.clips.sampler import EpochSampler
from genie_datasets.sources.opening import open_source
from genie_datasets.sources.rlds.tfds_reader import TfdsSplit
from genie_datasets.sources.split import Split
from genie_datasets.sources.video.source import VideoSplit
from genie_datasets.writers.frame_cache import build_frame_cache
from genie_datasets.writers.lerobot import write_video

SIZE = (64, 64)
CLIP_LENGTH = 16
BATCH = 8
ROUNDS = 5
NATIVE_SIZE = (256, 320)  # RT-1's
EPISODES = 16


def run(source_dir: str | Path | None = None, json: bool = False, seconds: float = 1.0) -> dict[str, float]:
    """Ratios of useful frames a CPU-second to the naive loop's; source_dir: an RLDS folder, made on the fly without it.

    "naive": nested loops over tfds steps, every frame decoded whole and then resized. "rlds_batch":
    `rlds.transformations.batch` on encoded images, decoded after. "index": random clips straight from the same
    TFRecords. "uint8_cache": random clips from the frame cache of the same files. "mp4": whole episodes of the same
    frames as H.264, as a cache is made of them; "pyav": a bare loop that decodes the same files to RGB, and no more.
    """
    with tempfile.TemporaryDirectory(prefix="bench_loader.") as scratch:
        source_dir = source_dir or make_data(Path(scratch) / "data")
        rates = measure(source_dir, Path(scratch), seconds)
    ratios = {name: round(rate / rates["naive"], 2) for name, rate in rates.items()}
    if json:
        print(jsonlib.dumps(ratios))
    else:
        print(f"{'reader':<14}{'frames/CPU-s':>14}{'x naive':>10}")
        for name, rate in rates.items():
            print(f"{name:<14}{rate:>14,.0f}{ratios[name]:>10g}")
    return ratios


def make_data(folder: Path) -> Path:
    """A few tabletop episodes at RT-1's image size, as RLDS."""
    from genie_datasets.tabletop.generate import generate

    print(f"making {EPISODES} episodes of {NATIVE_SIZE[0]}x{NATIVE_SIZE[1]} to read", file=sys.stderr)
    return generate(folder, episodes=EPISODES, seed=0, size=NATIVE_SIZE, splits={"train": 1.0}, family="easy")


def measure(source_dir: str | Path, scratch: Path, seconds: float) -> dict[str, float]:
    """Median useful frames a CPU-second of each reader, in one process."""
    split = next(iter(open_source(source_dir).splits.values()))
    reference = next(iter(open_source(source_dir, reader="rlds").splits.values()))
    assert isinstance(reference, TfdsSplit)
    length = int(min(CLIP_LENGTH, split.num_frames.max()))
    cache = build_frame_cache(split, scratch / "cache", SIZE, progress=False)
    videos = as_videos(split, scratch / "videos")
    with ThreadPoolExecutor(num_cores()) as pool:
        readers: dict[str, Iterator[int]] = {
            "naive": naive(reference, length),
            "rlds_batch": (len(clip) for clip in reference.clips(length, length, 1, SIZE, repeat=True)),
            "index": random_clips(split, length, pool.map),
            "uint8_cache": random_clips(cache, length, None),
            "mp4": whole_episodes(videos),
            "pyav": bare_decoding(videos.files),
        }
        for reader in readers.values():
            next(reader)  # builds graphs, opens files
        rates: dict[str, list[float]] = {name: [] for name in readers}
        for _ in range(ROUNDS):
            for name, reader in readers.items():
                rates[name].append(rate_of(reader, seconds))
    return {name: statistics.median(found) for name, found in rates.items()}


def rate_of(reader: Iterator[int], seconds: float) -> float:
    """Items of the reader are numbers of useful frames; -> their sum a CPU-second."""
    frames, start, begun = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - start < seconds:
        frames += next(reader)
    return frames / (time.process_time() - begun)


def as_videos(split: Split, folder: Path) -> VideoSplit:
    """The episodes as H.264 files of their own."""
    for episode in range(split.num_episodes):
        path = folder / f"episode_{episode}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, [split.frames(episode)], float(split.hz[episode]), int(split.num_frames[episode]))
    (videos,) = open_source(folder, hz=float(split.hz[0])).splits.values()
    assert isinstance(videos, VideoSplit)
    return videos


def whole_episodes(videos: VideoSplit) -> Iterator[int]:
    while True:
        for episode in range(videos.num_episodes):
            yield len(videos.frames(episode, None, SIZE))


def bare_decoding(files: list[Path]) -> Iterator[int]:
    """The loop of PyAV's documentation."""
    import av

    while True:
        for file in files:
            with av.open(str(file)) as container:
                container.streams.video[0].codec_context.thread_count = 1  # as ours; CPU time counts them all anyway
                yield sum(frame.to_ndarray(format="rgb24").shape[0] > 0 for frame in container.decode(video=0))


def naive(reference: TfdsSplit, length: int) -> Iterator[int]:
    """What a first script does: for each episode, for each step, take the decoded image, resize it, collect."""
    while True:
        for episode in reference.decoded_episodes():
            window = []
            for step in episode["steps"]:
                window.append(fit_frames(reference.image_of(step).numpy(), SIZE))
                if len(window) == length:
                    yield len(np.stack(window))
                    window = []


def random_clips(split: Split, length: int, pool_map: Callable | None) -> Iterator[int]:
    """Batches of clips in the sampler's order; decoding spreads over `pool_map`."""
    clips = ClipDataset(split, length, size=SIZE)
    for batch in EpochSampler.of(clips, seed=0).batches(BATCH):
        found = list(pool_map(clips.__getitem__, batch)) if pool_map else clips.batch(batch)
        yield sum(len(clip) for clip in found)
