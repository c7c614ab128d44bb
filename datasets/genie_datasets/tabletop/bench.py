"""How fast the tabletop makes episodes: `genie-robotics bench tabletop`.

Episodes are the ones that `data tabletop` would write, with all that a worker does for them: scenes are compiled,
skills simulated, frames rendered and encoded, states kept. CPU time, so that a busy machine does not count; the rows
take turns in rounds.
"""

import json as jsonlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from genie_datasets.tabletop.plan import plan
from genie_datasets.tabletop.pool import ONE_THREAD, WorkerPool
from genie_datasets.tabletop.render import NO_GL, find_backend
from genie_datasets.tabletop.worker import Job

WARM_UP = 2  # episodes not counted: imports
CASES = {  # name -> (family, size, with OpenGL)
    "easy 64x64": ("easy", (64, 64), True),
    "easy 256x320": ("easy", (256, 320), True),
    "rt1 64x64": ("rt1", (64, 64), True),
    "rt1 256x320": ("rt1", (256, 320), True),
    "easy 64x64 without OpenGL": ("easy", (64, 64), False),
    "rt1 64x64 without OpenGL": ("rt1", (64, 64), False),
}
UNTUNED = "easy 64x64, MuJoCo's default quality"
_MEASURE = """
import sys, time
from genie_datasets.tabletop import bench, simulator, worker
if sys.argv[4] == "untuned":
    simulator.scene_xml = bench.untuned
jobs = bench.jobs(sys.argv[1], tuple(map(int, sys.argv[2].split("x"))), int(sys.argv[3]))
for job in jobs[:bench.WARM_UP]:
    worker.run(job)
began = time.process_time()
for job in jobs[bench.WARM_UP:]:
    worker.run(job)
print((len(jobs) - bench.WARM_UP) / (time.process_time() - began) * 60)
"""


def jobs(family: str, size: tuple[int, int], episodes: int) -> list[Job]:
    """What one of many workers makes of a data set of 800 episodes: `episodes` of them, after the warm-up's."""
    return plan(800, 0, size, {"train": 1.0}, family)[: episodes + WARM_UP]


def untuned(config):
    """`scene_xml` with the rendering quality that MuJoCo has by default: what a scene costs without our tuning."""
    from genie_datasets.tabletop.mjcf import scene_xml

    xml, assets = scene_xml(config)
    start = xml.index("<quality")
    xml = xml[:start] + xml[xml.index("/>", start) + 2 :]
    return xml.replace(' castshadow="false" material', " material"), assets


def episodes_per_minute(family: str, size: tuple[int, int], backend: str, episodes: int, tuned: bool = True) -> float:
    """Of 40 frames, per minute of CPU time of one core."""
    env = {**os.environ, **ONE_THREAD, "MUJOCO_GL": backend}
    arguments = [family, f"{size[0]}x{size[1]}", str(episodes), "tuned" if tuned else "untuned"]
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, *arguments], env=env, check=True, stdout=subprocess.PIPE, text=True
    )
    return float(done.stdout.split()[-1])


def seconds_of(workers: int, work: Iterable[Job], backend: str) -> float:
    """Wall time in which so many workers make and write the episodes; their start is not counted."""
    from genie_datasets.tabletop.writer import RLDSWriter

    work = list(work)
    writer = RLDSWriter(work[0].size)
    with tempfile.TemporaryDirectory(prefix="bench_tabletop.") as folder, WorkerPool(workers, backend) as pool:
        for _ in pool.episodes(work[:workers] * 2):
            pass
        began = time.monotonic()
        for _ in pool.map(work, lambda job, episode: writer.write(Path(folder) / str(job.index), episode)):
            pass
        return time.monotonic() - began


def run(json: bool = False, episodes: int = 24) -> dict[str, float]:
    """Prints and returns episodes a minute and core of each case, ratios to MuJoCo's defaults, and of two workers."""
    backend = find_backend()
    result: dict[str, float] = {}
    if backend != NO_GL:
        result[UNTUNED] = round(episodes_per_minute("easy", (64, 64), backend, max(4, episodes // 4), tuned=False), 1)
    for name, (family, size, with_gl) in CASES.items():
        if not with_gl or backend != NO_GL:
            rate = episodes_per_minute(family, size, backend if with_gl else NO_GL, episodes)
            result[name] = round(rate, 1)
            print(f"{name}: {rate:.0f}", file=sys.stderr)
    work = jobs("easy", (64, 64), 2 * episodes)
    one, two = (seconds_of(workers, work, backend) for workers in (1, 2))
    result["two workers / one"] = round(one / two, 2)
    if json:
        print(jsonlib.dumps(result))
        return result
    first = result.get(UNTUNED)
    print(f"{'episodes of 40 frames per minute of CPU time':<46}{'':>8}{'x untuned':>12}")
    for name, value in result.items():
        ratio = f"{value / first:>12.2f}" if first and name.startswith("easy 64x64") else ""
        print(f"{name:<46}{value:>8g}{ratio}")
    return result
