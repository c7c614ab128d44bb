"""kill -9 of the real command at any moment: after a rerun the result has the same bytes.

Starting Python and torch takes seconds, so a driver (this file, run as a program) imports everything once and forks a
process for every run of the command; one test starts a new interpreter.
"""

import importlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest

# Every stage, in every mode that trains it differently. A new one is one line.
CASES = [
    ("frozen", "tokenizer"),
    ("frozen", "latent_action"),
    ("frozen", "dynamics"),
    ("cotrain", "joint"),
    ("end_to_end", "joint"),
    ("warmup", "joint"),
]
FULL_DISKS = [("frozen", "tokenizer"), ("warmup", "joint")]
STEPS = 12  # quantization starts at the 4th; the rate decays in the last third
TIMING = {"frames_per_s"}  # entries of metrics.jsonl that differ between runs
ROOT = Path(__file__).resolve().parents[2]
PLACES = ("before the first save", "between saves", "in a save", "after the last save")


def command(run: Path, data: Path, mode: str, stage: str, sizes: list[str]) -> list[str]:
    """The words of the command; sizes: options that make preset nano tiny."""
    return [
        "train", str(run), "--data", str(data), "--mode", mode, "--stage", stage, "--preset=nano", *sizes,
        f"--steps={STEPS}", "--save-every=1", "--log-every=1", "--health-every=4", "--device=cpu",
        "--precision=float32", "--training.tokenizer.ema=0.8", "--training.latent-action.ema=0.8",
        "--training.dynamics.ema=0.8", "--training.joint.ema=0.8",
    ]  # fmt: skip


# The driver


class Driver:
    """Runs the command in forked processes, below `root`; `data` is a frame cache."""

    def __init__(self, root: Path, data: Path, seed: int, sizes: list[str]):
        importlib.import_module("tests.genie_robotics.preloaded")
        self.root, self.data, self.sizes = root, data, sizes
        self.rng = np.random.default_rng(seed)
        with patch("genie_robotics.training.run.train_run") as asked:  # every fork inherits what parsing has imported
            from genie_robotics.cli import main

            assert main(command(root / "warm", data, "frozen", "tokenizer", sizes)) == 0
        assert asked.called

    def start(self, run: Path, mode: str, stage: str) -> int:
        """Starts a process that runs the command and prints to RUN.log; returns its id."""
        pid = os.fork()
        if pid:
            return pid
        try:
            log = os.open(run.with_suffix(".log"), os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
            os.dup2(log, 1)
            os.dup2(log, 2)
            from genie_robotics.cli import main

            status = main(command(run, self.data, mode, stage, self.sizes))
        except BaseException:
            import traceback

            traceback.print_exc()
            status = 70
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

    def complete(self, run: Path, mode: str, stage: str, expected: int = 0) -> None:
        """Runs the command to its end."""
        status = os.waitstatus_to_exitcode(os.waitpid(self.start(run, mode, stage), 0)[1])
        output = run.with_suffix(".log").read_text()
        if status != expected:
            raise SystemExit(f"{mode} {stage}: exit status {status}\n{output}")

    def copy(self, source: Path, name: str) -> Path:
        target = self.root / name
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target)
        return target

    def case(self, mode: str, stage: str, kills: int) -> dict:
        """Makes an uninterrupted run, and runs with `kills` kills in all. Returns folders and places of the kills."""
        from genie_robotics.training.stages import MODES

        name = f"{mode}-{stage}"
        earlier = MODES[mode][: MODES[mode].index(stage)]
        base = self.root / f"{mode}-{earlier[-1] if earlier else 'nothing'}-whole"  # of an earlier case, if it was made
        if not base.exists():
            base.mkdir()
            for before in earlier:
                self.complete(base, mode, before)
        whole = self.copy(base, f"{name}-whole")
        self.complete(whole, mode, stage)
        places: Counter[str] = Counter()
        cut: list[Path] = []
        while places.total() < kills:
            cut.append(self.copy(base, f"{name}-cut{len(cut)}"))
            self.run_with_kills(cut[-1], mode, stage, kills, places)
        if (mode, stage) in FULL_DISKS:
            self.fill_disk(self.copy(base, f"{name}-full"), mode, stage)
        return {"whole": str(whole), "cut": [*map(str, cut)], "places": dict(places)}

    def run_with_kills(self, run, mode, stage, kills, places) -> None:
        """Starts the command again and again and kills it after a random step, until it completes."""
        state = run / "state" / stage
        for _ in range(50):
            pid = self.start(run, mode, stage)
            if places.total() < kills:  # otherwise it completes
                first = max((int(name[5:]) for name in checkpoints(state)), default=0)
                after = int(self.rng.integers(min(first, STEPS - 1), STEPS))
                while after and not has_ended(pid) and checkpoints(state)[-1:] < [f"step_{after:08d}"]:
                    time.sleep(0.001)
                if places.total() % 3 == 2:  # one of three is aimed at a save
                    until = time.monotonic() + 0.5
                    while time.monotonic() < until and not list(state.glob("*.tmp")):
                        pass
                time.sleep(self.rng.uniform(0, 0.02 if after else 0.5))
                os.kill(pid, signal.SIGKILL)
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            if status == 0:
                return
            if status != -signal.SIGKILL:
                raise SystemExit(f"{run}: exit status {status}\n{run.with_suffix('.log').read_text()}")
            places[place(state)] += 1
        raise SystemExit(f"{run} does not complete")

    def fill_disk(self, run, mode, stage) -> None:
        """The kernel refuses to write more than 20 kB to a file from the first checkpoint on; then it is rerun."""
        pid = self.start(run, mode, stage)
        while not checkpoints(run / "state" / stage):
            if has_ended(pid):
                break  # the files that the tests read tell why
            time.sleep(0.001)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (20_000, 20_000))
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        errors = [line for line in run.with_suffix(".log").read_text().splitlines() if line.startswith("error: ")]
        (run / "full.json").write_text(json.dumps({"status": status, "errors": errors, "left": listing(run)}))
        self.complete(run, mode, stage)


def has_ended(pid: int) -> bool:
    """True if a child has ended that was not waited for."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def checkpoints(state: Path) -> list[str]:
    return sorted(path.name for path in state.glob("step_*[0-9]"))


def listing(run: Path) -> list[str]:
    return sorted(str(path.relative_to(run)) for path in run.rglob("*") if path.is_file())


def place(state: Path) -> str:
    """The moment of a kill, from the files that it left."""
    if list(state.glob("*.tmp")) or list(state.glob("*.replaced")):
        return "in a save"
    saved = checkpoints(state)
    if not saved:
        return "before the first save"
    return "after the last save" if saved[-1] == f"step_{STEPS:08d}" else "between saves"


# The tests


def run_driver(root: Path, kills: int, seed: int, cases: list) -> dict:
    """{"mode-stage": what Driver.case returns}"""
    from genie_datasets import build_frame_cache
    from tests.genie_robotics.conftest import Squares, tiny_options

    build_frame_cache(Squares(), root / "data", (16, 16), progress=False)
    job = {
        "root": str(root),
        "data": str(root / "data"),
        "kills": kills,
        "seed": seed,
        "cases": cases,
        "sizes": tiny_options(),
    }
    done = subprocess.run(
        [sys.executable, __file__, json.dumps(job)], env=environment(root), capture_output=True, text=True, timeout=1500
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = json.loads((root / "found.json").read_text())
    total: Counter[str] = Counter()
    for entry in found.values():
        total.update(entry["places"])
    print("kills:", ", ".join(f"{total[where]} {where}" for where in PLACES))
    return found


def environment(root: Path) -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "GENIE_ROBOTICS_CACHE": str(root / "cache")}


def metrics(run: Path) -> list[dict]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in TIMING} for line in lines]


def assert_same_values(a, b, where: str) -> None:
    import torch

    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a.keys() - {"elapsed"}:
            assert_same_values(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same_values(x, y, f"{where}/{i}")
    elif isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype, where
        assert torch.equal(a, b), where
    else:
        assert a == b, where


def assert_same_run(whole: Path, cut: Path, stage: str) -> None:
    """Weights byte for byte, metrics line by line, the last checkpoint value by value, and no temporary files."""
    from genie_robotics.training.checkpoint import Checkpoints

    weights = sorted(path.relative_to(whole) for path in whole.glob("*/model.safetensors"))
    assert weights
    for path in weights:
        assert (whole / path).read_bytes() == (cut / path).read_bytes(), path
    assert metrics(whole) == metrics(cut)
    assert [line["step"] for line in metrics(cut) if line["stage"] == stage] == list(range(1, STEPS + 1))
    a, b = (Checkpoints(run / "state" / stage).newest() for run in (whole, cut))
    assert a is not None
    assert b is not None
    assert a[0] == b[0] == STEPS
    assert_same_values(a[1], b[1], "checkpoint")
    assert [path for path in listing(cut) if path != "full.json"] == listing(whole)


@pytest.fixture(scope="module")
def killed_once(tmp_path_factory) -> dict:
    return run_driver(tmp_path_factory.mktemp("kill"), kills=1, seed=0, cases=CASES)


@pytest.mark.parametrize(("mode", "stage"), CASES)
def test_a_killed_command_ends_as_an_uninterrupted_one(killed_once, mode, stage):
    found = killed_once[f"{mode}-{stage}"]
    assert sum(found["places"].values()) == 1
    for run in found["cut"]:
        assert_same_run(Path(found["whole"]), Path(run), stage)


@pytest.mark.parametrize(("mode", "stage"), FULL_DISKS)
def test_a_full_disk_is_one_line_and_a_rerun_continues(killed_once, mode, stage):
    whole = Path(killed_once[f"{mode}-{stage}"]["whole"])
    run = whole.with_name(f"{mode}-{stage}-full")
    left = json.loads((run / "full.json").read_text())
    assert left["status"] == 2
    assert len(left["errors"]) == 1
    assert "cannot write" in left["errors"][0]
    assert "File too large" in left["errors"][0]
    assert not [path for path in left["left"] if ".tmp" in path]
    assert_same_run(whole, run, stage)


def test_every_stage_is_killed():
    from genie_robotics.training.stages import MODES

    assert {stage for stages in MODES.values() for stage in stages} == {stage for _, stage in CASES}
    assert {mode for mode, _ in CASES} == set(MODES)


def test_a_kill_while_the_first_file_is_written(tmp_path):
    from genie_robotics.training.run import check_run_folder
    from tests.genie_robotics.conftest import tiny_config

    (tmp_path / "config.json.tmp").write_text("{")
    check_run_folder(tmp_path, tiny_config())


def test_a_kill_of_the_cold_command(killed_once, tmp_path):
    """Starts `python -m genie_robotics train ...` like a user; the result is that of the forked runs."""
    from tests.genie_robotics.conftest import tiny_options

    whole = Path(killed_once["frozen-tokenizer"]["whole"])
    root, run = whole.parent, tmp_path / "cold"
    argv = [sys.executable, "-m", "genie_robotics", *command(run, root / "data", "frozen", "tokenizer", tiny_options())]
    first = subprocess.Popen(argv, env=environment(root), stdout=subprocess.DEVNULL)
    state = run / "state" / "tokenizer"
    while first.poll() is None and len(checkpoints(state)) < 2:
        time.sleep(0.005)
    first.kill()
    assert first.wait() == -signal.SIGKILL, "it completed before it was killed"
    assert not (run / "tokenizer").exists()
    subprocess.run(argv, env=environment(root), check=True, stdout=subprocess.DEVNULL, timeout=300)
    assert_same_run(whole, run, "tokenizer")


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_twenty_kills_of_every_stage(tmp_path, case):
    mode, stage = case
    found = run_driver(tmp_path, kills=20, seed=1 + CASES.index(case), cases=[case])[f"{mode}-{stage}"]
    assert sum(found["places"].values()) >= 20
    assert found["places"].get("in a save", 0) >= 3
    assert found["places"].get("between saves", 0) >= 3
    for run in found["cut"]:
        assert_same_run(Path(found["whole"]), Path(run), stage)


if __name__ == "__main__":
    job = json.loads(sys.argv[1])
    driver = Driver(Path(job["root"]), Path(job["data"]), job["seed"], job["sizes"])
    found = {f"{mode}-{stage}": driver.case(mode, stage, job["kills"]) for mode, stage in job["cases"]}
    (driver.root / "found.json").write_text(json.dumps(found))
