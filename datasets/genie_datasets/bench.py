"""`genie-robotics bench loader`: the speed of several ways to read the same files, side by side.

It counts useful frames, those of windows of 16 frames fitted to 64x64, per CPU-second of all threads of the process.
The readers take turns for `seconds` each, in 5 rounds, and medians are compared, because the machine may be shared.
"""

import itertools
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
NATIVE_SIZE = (256, 320)  # that of RT-1
EPISODES = 16


def run(source_dir: str | Path | None = None, json: bool = False, seconds: float = 1.0) -> dict[str, float]:
    """Useful frames per CPU-second of each reader, relative to the naive loop.

    source_dir: an RLDS folder. Default: one is made.

    "naive": loops over TFDS steps, with every frame decoded whole and then resized. "rlds_batch":
    `rlds.transformations.batch` of encoded images, which are decoded then. "index": random clips read from the same
    TFRecords. "uint8_cache": random clips of their frame cache. "mp4": whole episodes of the same frames as H.264, as a
    frame cache reads them. "pyav": a bare loop that decodes the H.264 files to RGB.
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
    """Makes a few tabletop episodes at the image size of RT-1, as RLDS."""
    from genie_datasets.tabletop.generate import generate

    print(f"making {EPISODES} episodes of {NATIVE_SIZE[0]}x{NATIVE_SIZE[1]} to read", file=sys.stderr)
    return generate(folder, episodes=EPISODES, seed=0, size=NATIVE_SIZE, splits={"train": 1.0}, family="easy")


def measure(source_dir: str | Path, scratch: Path, seconds: float) -> dict[str, float]:
    """Median useful frames per CPU-second of each reader, in one process."""
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
            "mp4": (len(videos.frames(e, None, SIZE)) for e in itertools.cycle(range(videos.num_episodes))),
            "pyav": bare_decoding(videos.files),
        }
        for reader in readers.values():
            next(reader)  # warm-up: builds graphs, opens files
        rates: dict[str, list[float]] = {name: [] for name in readers}
        for _ in range(ROUNDS):
            for name, reader in readers.items():
                rates[name].append(rate_of(reader, seconds))
    return {name: statistics.median(found) for name, found in rates.items()}


def rate_of(reader: Iterator[int], seconds: float) -> float:
    """Useful frames per CPU-second of a reader that yields numbers of useful frames."""
    frames, start, cpu_start = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - start < seconds:
        frames += next(reader)
    return frames / (time.process_time() - cpu_start)


def as_videos(split: Split, folder: Path) -> VideoSplit:
    """Writes the episodes as H.264 files."""
    folder.mkdir(parents=True, exist_ok=True)
    for episode in range(split.num_episodes):
        path = folder / f"episode_{episode}.mp4"
        write_video(path, [split.frames(episode)], float(split.hz[episode]), int(split.num_frames[episode]))
    (videos,) = open_source(folder, hz=float(split.hz[0])).splits.values()
    assert isinstance(videos, VideoSplit)
    return videos


def bare_decoding(files: list[Path]) -> Iterator[int]:
    """The loop of PyAV's documentation, without end."""
    import av

    for file in itertools.cycle(files):
        with av.open(str(file)) as container:
            container.streams.video[0].codec_context.thread_count = 1  # as in `sources.video`
            yield sum(frame.to_ndarray(format="rgb24").shape[0] > 0 for frame in container.decode(video=0))


def naive(reference: TfdsSplit, length: int) -> Iterator[int]:
    """Loops over episodes and steps of TFDS, resizes each decoded image, and stacks them to windows."""
    while True:
        for episode in reference.episodes():
            window = []
            for step in episode["steps"]:
                window.append(fit_frames(reference.image_of(step).numpy(), SIZE))
                if len(window) == length:
                    yield len(np.stack(window))
                    window = []


def random_clips(split: Split, length: int, pool_map: Callable | None) -> Iterator[int]:
    """Batches of clips in the order of the sampler, decoded by `pool_map` if it is given."""
    clips = ClipDataset(split, length, size=SIZE)
    for batch in EpochSampler.of(clips, seed=0).batches(BATCH):
        found = list(pool_map(clips.__getitem__, batch)) if pool_map else clips.batch(batch)
        yield sum(len(clip) for clip in found)
