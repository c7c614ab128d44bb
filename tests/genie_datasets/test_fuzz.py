"""Readers of mutated files; see `fuzzing`. All 10,000 cases are slow, a tenth of them is not."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from genie_datasets import build_frame_cache, open_source
from genie_datasets.writers.lerobot import LeRobotWriter

CASES = {"rlds": 5600, "lerobot": 1200, "video": 1200, "cache": 1400, "arrays": 600}


def make_rlds(folder: Path, kit) -> None:
    rlds = kit.RldsFolder(folder, "bridge_fuzz")
    rlds.leaves["steps/observation/state"] = kit.leaf("tensor", (7,))
    state = np.ones((4, 7), np.float32)
    episodes = [rlds.episode(4, seed, **{"steps/observation/state": state}) for seed in range(3)]
    episodes[1] = rlds.episode(4, 1, encode=kit.png, **{"steps/observation/state": state})
    rlds.add("train", episodes[:2], episodes[2:])
    rlds.finish()


def make_lerobot(folder: Path, kit) -> None:
    with LeRobotWriter(folder, hz=3) as writer:
        for i in range(2):
            writer.add(kit.moving_square(4, 32, 48, i), f"task {i}", {"action": np.zeros((4, 2), np.float32)})


def make_video(folder: Path, kit) -> None:
    for i in range(2):
        kit.write_video(folder / f"pick_{i}.mp4", kit.moving_square(5, 32, 48, i))


def make_cache(folder: Path, kit) -> None:
    make_video(folder.with_name("source"), kit)
    build_frame_cache(open_source(folder.with_name("source"), hz=3).split("train"), folder, (16, 16), progress=False)


def make_arrays(folder: Path, kit) -> None:
    folder.mkdir()
    np.savez(folder / "pick_0.npz", image=kit.moving_square(5), action=np.zeros((5, 2)))
    np.savez_compressed(folder / "pick_1.npz", image=kit.moving_square(5).astype(np.int16))
    np.save(folder / "pick_2.npy", kit.moving_square(5))


MAKE = {"arrays": make_arrays, "rlds": make_rlds, "lerobot": make_lerobot, "video": make_video, "cache": make_cache}


def fuzz(kind: str, cases: int, tmp_path: Path, kit) -> None:
    MAKE[kind](tmp_path / kind, kit)
    script = Path(__file__).with_name("fuzzing.py")
    command = [sys.executable, str(script), kind, str(cases), "0", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    tally = json.loads(done.stdout.splitlines()[-1])
    assert sum(tally.values()) == cases
    assert min(tally["error"], tally["frames"]) > cases / 20, f"mutations that do nothing, or nothing else: {tally}"


@pytest.mark.parametrize("kind", CASES)
def test_mutated_files_end_in_frames_or_one_line(kind, tmp_path, kit):
    fuzz(kind, CASES[kind] // 20, tmp_path, kit)


@pytest.mark.slow
@pytest.mark.parametrize("kind", CASES)
def test_ten_thousand_mutated_files(kind, tmp_path, kit):
    fuzz(kind, CASES[kind], tmp_path, kit)
