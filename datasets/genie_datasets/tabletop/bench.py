"""Measure the speed of the tabletop: `genie-robotics bench tabletop`.

The episodes are those of `data tabletop`, with everything that a worker does: compile the scene, simulate the skills,
render and encode the frames. CPU time is measured, so that other processes do not count.
"""

import json as jsonlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from genie_datasets.tabletop.plan import plan
from genie_datasets.tabletop.pool import ONE_THREAD, WorkerPool
from genie_datasets.tabletop.render import NO_GL, find_backend
from genie_datasets.tabletop.worker import Job

WARM_UP = 2  # episodes that are not counted, because they include imports
RENDERINGS = {  # name -> (size, whether to use OpenGL)
    "64x64": ((64, 64), True),
    "256x320": ((256, 320), True),
    "64x64 without OpenGL": ((64, 64), False),
}
CASES = {f"{family} {name}": (family, *how) for name, how in RENDERINGS.items() for family in ("easy", "rt1", "wild")}
UNTUNED = "easy 64x64, MuJoCo's default quality"
_MEASURE = """
import sys, time
from genie_datasets.tabletop import bench, simulator, worker
if sys.argv[4] == "untuned":
    simulator.scene_xml = bench.untuned
jobs = bench.jobs(sys.argv[1], tuple(map(int, sys.argv[2].split("x"))), int(sys.argv[3]))
for job in jobs[:bench.WARM_UP]:
    worker.run(job)
start = time.process_time()
for job in jobs[bench.WARM_UP:]:
    worker.run(job)
print((len(jobs) - bench.WARM_UP) / (time.process_time() - start) * 60)
"""


def jobs(family: str, size: tuple[int, int], episodes: int) -> list[Job]:
    """The first `episodes` of a data set of 800, after the warm-up."""
    return plan(800, 0, size, {"train": 1.0}, family)[: episodes + WARM_UP]


def untuned(config):
    """`scene_xml` with MuJoCo's default rendering quality."""
    from genie_datasets.tabletop.mjcf import scene_xml

    xml, assets = scene_xml(config)
    start = xml.index("<quality")
    xml = xml[:start] + xml[xml.index("/>", start) + 2 :]
    return xml.replace(' castshadow="false" material', " material"), assets


def episodes_per_minute(family: str, size: tuple[int, int], backend: str, episodes: int, tuned: bool = True) -> float:
    """Episodes of 40 frames per minute of CPU time."""
    env = {**os.environ, **ONE_THREAD, "MUJOCO_GL": backend}
    arguments = [family, f"{size[0]}x{size[1]}", str(episodes), "tuned" if tuned else "untuned"]
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, *arguments], env=env, check=True, stdout=subprocess.PIPE, text=True
    )
    return float(done.stdout.split()[-1])


def wall_time(workers: int, jobs: list[Job], backend: str) -> float:
    """Seconds in which the workers simulate and write the episodes, without their start."""
    from genie_datasets.tabletop.writer import TabletopWriter

    writer = TabletopWriter(jobs[0].size)
    with tempfile.TemporaryDirectory(prefix="bench_tabletop.") as folder, WorkerPool(workers, backend) as pool:
        for _ in pool.episodes(jobs[:workers] * 2):
            pass
        start = time.monotonic()
        for _ in pool.map(jobs, lambda job, episode: writer.write(Path(folder) / str(job.index), episode)):
            pass
        return time.monotonic() - start


def run(json: bool = False, episodes: int = 24) -> dict[str, float]:
    """Print and return episodes per minute of each case, and the speedup of two workers over one."""
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
    one, two = (wall_time(workers, work, backend) for workers in (1, 2))
    result["two workers / one"] = round(one / two, 2)
    if json:
        print(jsonlib.dumps(result))
        return result
    untuned_rate = result.get(UNTUNED)
    print(f"{'episodes of 40 frames per minute of CPU time':<46}{'':>8}{'x untuned':>12}")
    for name, value in result.items():
        ratio = f"{value / untuned_rate:>12.2f}" if untuned_rate and name.startswith("easy 64x64") else ""
        print(f"{name:<46}{value:>8g}{ratio}")
    return result
