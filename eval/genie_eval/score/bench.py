"""`python -m genie_eval.score.bench`: seconds and peak memory of `score` at 200, 400 and 800 trajectories of 40 steps.

Each size runs in its own process through the command line, as for a user.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SIZES = (200, 400, 800)
STEPS, CODES = 40, 8
CHILD = (
    "import resource, sys; from genie_robotics.cli import main; status = main(sys.argv[1:]); "
    "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss); sys.exit(status)"
)


def planted_file(path: Path, trajectories: int, steps: int = STEPS, num_codes: int = CODES, noise: float = 0.5) -> None:
    """Writes a latents.npz of planted motion, with state, scene, and k-means of noisy motion as codes."""
    from genie_eval.codes.planted import planted_transitions, quantized

    table = planted_transitions(trajectories, steps)
    motion = table.motions["base"]
    seen = motion + noise * np.random.default_rng(0).normal(size=motion.shape)
    assert table.position is not None
    assert table.scene is not None
    np.savez(
        path, codes=quantized(seen, num_codes), motion=motion, trajectory=table.trajectory, step=table.step,
        scene=table.scene, state=table.position,
    )  # fmt: skip


def measure(trajectories: int, num_codes: int = CODES) -> dict[str, float]:
    """{"trajectories", "seconds", "peak_mb"} of one run of the command."""
    with tempfile.TemporaryDirectory() as folder:
        latents = Path(folder) / "latents.npz"
        planted_file(latents, trajectories, num_codes=num_codes)
        argv = [sys.executable, "-c", CHILD, "score", str(latents), "--out", f"{folder}/out", "--trajectories", "None"]
        started = time.perf_counter()
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
        seconds = time.perf_counter() - started
    return {
        "trajectories": trajectories, "seconds": round(seconds, 1),
        "peak_mb": round(int(done.stdout.split()[-1]) / 1024),
    }  # fmt: skip


if __name__ == "__main__":
    print(json.dumps([measure(size) for size in SIZES], indent=1))
