"""Speed of two checkouts, step by step in turn, so that other load on the machine affects both.

    python tools/compare_speed.py OLD NEW [--rounds 20] [--jobs tokenizer,play] [--compile]

OLD and NEW are checkouts of this repository (`git worktree add ../old COMMIT`). Each runs in its own process with one
thread; a row is a job, with CPU milliseconds per step of both and the median of their ratios (above 1: NEW is faster).

`ONEDNN_MAX_CPU_ISA=AVX2` makes a CPU with bfloat16 compute like one without it: float32 keeps its speed, and bfloat16
products fall to a hundredth.
"""

import argparse
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path

JOBS = ("tokenizer", "latent_action", "dynamics", "sample_1", "sample_8", "play")
REPEATS = {"play": 4, "sample_1": 2}


def prepare_jobs(checkout: str, names: list[str], compiled: bool) -> dict:
    sys.path[:0] = [checkout, f"{checkout}/datasets", f"{checkout}/eval"]
    import numpy as np
    import torch

    torch.set_num_threads(1)
    from genie_robotics import Genie
    from genie_robotics.benchmarks.training import StepBench
    from genie_robotics.models.presets import preset
    from genie_robotics.training.config import LoopConfig
    from genie_robotics.training.distributed import set_up

    def player(genie: Genie, batch_size: int, maskgit_steps: int | None):
        pictures = np.random.default_rng(0).integers(0, 255, (batch_size, 1, 64, 64, 3), dtype=np.uint8)
        if compiled:
            genie.compile_dreams()
        world = genie.start(pictures, maskgit_steps=maskgit_steps)
        return lambda: world.step(len(world.states) % 8)

    jobs = {}
    for name in names:
        if name.startswith("sample"):
            torch.manual_seed(0)
            jobs[name] = player(Genie(preset("nano")).eval(), int(name[-1]), 25)
        elif name == "play":
            jobs[name] = player(Genie.from_pretrained("nano-tabletop"), 1, None)
        else:
            loop = LoopConfig(compile="yes") if compiled else LoopConfig()
            jobs[name] = StepBench(preset("nano"), name, 4, loop, set_up()).step
    return jobs


def serve(checkout: str, names: list[str], compiled: bool) -> None:
    jobs = prepare_jobs(checkout, names, compiled)
    for job in jobs.values():
        for _ in range(8):
            job()
    print("ready", flush=True)
    for line in sys.stdin:
        began = time.process_time()
        jobs[line.strip()]()
        print(time.process_time() - began, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkouts", nargs="+", metavar="OLD NEW")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--jobs", default=",".join(JOBS))
    parser.add_argument("--compile", action="store_true", help="NEW compiles its training steps and its dreams")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    names = options.jobs.split(",")
    if options.serve:
        serve(options.checkouts[0], names, options.compile)
        return
    children = []
    for number, checkout in enumerate(options.checkouts):
        words = [sys.executable, __file__, "--serve", "--jobs", options.jobs, str(Path(checkout).resolve())]
        words += ["--compile"] if options.compile and number else []
        children.append(subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
    for child in children:
        assert child.stdout is not None
        while (line := child.stdout.readline().strip()) != "ready":
            if not line and child.poll() is not None:
                raise SystemExit("a checkout did not start")

    def ask(child: subprocess.Popen, job: str) -> float:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(f"{job}\n")
        child.stdin.flush()
        return 1000 * float(child.stdout.readline())

    times: dict[str, list[list[float]]] = {}
    for _ in range(options.rounds):
        for job in names:
            for _ in range(REPEATS.get(job, 1)):
                order = random.sample(range(len(children)), len(children))
                found = {number: ask(children[number], job) for number in order}
                times.setdefault(job, []).append([found[number] for number in range(len(children))])
    print("CPU ms per step; in brackets, about 95 % of the ratio's median")
    for job, rows in times.items():
        ratios = sorted(row[0] / row[-1] for row in rows)
        middle, spread = len(ratios) / 2, len(ratios) ** 0.5
        low, high = ratios[max(0, int(middle - spread))], ratios[min(len(ratios) - 1, int(middle + spread))]
        old, new = (statistics.median(row[i] for row in rows) for i in (0, -1))
        print(
            f"{job:<14}{old:9.1f} {new:9.1f}   {statistics.median(ratios):6.2f} [{low:.2f}, {high:.2f}]  n={len(rows)}"
        )
    for child in children:
        child.terminate()


if __name__ == "__main__":
    main()
