"""Checkpoints: a kill at any line of a save, damage, a full disk, retention; and metrics.jsonl after a kill."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from genie_datasets.base.errors import UserError
from genie_robotics.genie import Genie
from genie_robotics.training import checkpoint
from genie_robotics.training.checkpoint import Checkpoints, load_module_state, module_state
from genie_robotics.training.config import LoopConfig, check_loop
from genie_robotics.training.loggers.json_lines import truncate_metrics
from genie_robotics.training.optimizer import Optimizers


def content(step: int) -> dict:
    return {"weights": torch.full((200,), float(step)), "step": step, "names": ["a", ("b", None)], "on": True}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def assert_holds(box: Checkpoints, step: int) -> None:
    found = box.newest(say=pytest.fail)
    assert found is not None
    assert found[0] == step
    assert torch.equal(found[1]["weights"], torch.full((200,), float(step)))
    assert found[1]["names"] == ["a", ("b", None)]


def flip(path: Path, place: int, by: int = 1) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= by
    path.write_bytes(data)


@pytest.fixture
def box(tmp_path) -> Checkpoints:
    return Checkpoints(tmp_path / "state" / "tokenizer", keep=2)


# Content and retention


def test_a_saved_checkpoint_is_read_back_and_sha256sum_agrees(box):
    assert box.newest() is None
    path = box.save(500, content(500))
    assert path == box.folder / "step_00000500"
    assert names(path) == ["SHA256SUMS", "state.pt"]
    subprocess.run(["sha256sum", "--strict", "-c", "SHA256SUMS"], cwd=path, check=True, capture_output=True)
    assert_holds(box, 500)
    assert torch.load(path / "state.pt", weights_only=True)["step"] == 500


def test_the_newest_and_every_nth_are_kept(tmp_path):
    box = Checkpoints(tmp_path / "s", keep=2, keep_every=30)
    for step in range(10, 101, 10):
        box.save(step, content(step))
    assert names(box.folder) == [f"step_{step:08d}" for step in (30, 60, 90, 100)]
    few = Checkpoints(tmp_path / "few", keep=1)
    for step in (5, 10, 15):
        few.save(step, content(step))
    assert names(few.folder) == ["step_00000015"]
    for name, least in (("keep", 1), ("keep_every", 0)):
        with pytest.raises(UserError, match=f"--{name.replace('_', '-')} must be at least {least}, got {least - 1}"):
            check_loop(LoopConfig(**{name: least - 1}))


def test_a_step_of_more_digits_is_newer(box):
    box.save(99_999_999, content(1))
    box.save(100_000_000, content(2))
    found = box.newest()
    assert found is not None
    assert found[0] == 100_000_000


def test_an_existing_step_is_replaced(box):
    box.save(3, content(3))
    box.save(3, content(3) | {"on": False})
    assert names(box.folder) == ["step_00000003"]
    found = box.newest()
    assert found is not None
    assert found[1]["on"] is False


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ({"rate": np.float64(1)}, r"content\['more'\]\['rate'\] is a float64"),
        ([0, Path("x")], r"content\['more'\]\[1\] is a PosixPath"),
        (defaultdict(int), r"content\['more'\] is a defaultdict"),
    ],
)
def test_content_that_could_not_be_read_back_is_not_saved(box, value, where):
    with pytest.raises(TypeError, match=where):
        box.save(1, {"more": value})
    assert box.newest() is None


# Kills


IDLE = {"check_plain", "paths", "format_sums"}  # functions that change nothing on the disk


def killer(line: int):
    """A trace function that kills its own process at the given line (counted from 1) of checkpoint.py and shutil."""

    def trace(frame, event, _):
        nonlocal line
        code = frame.f_code
        if code.co_filename not in (checkpoint.__file__, shutil.__file__) or code.co_name in IDLE:
            return None
        line -= event == "line"
        if not line:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace

    return trace


def at_lines(job, before, check, stride: int) -> int:
    """Kills forked processes, with SIGKILL, at every `stride`-th line of `job` that may change the disk.

    `before()` prepares the folder, `check()` examines it after each kill. Returns the number of kills.
    """
    kills = 0
    while True:
        before()
        pid = os.fork()
        if pid == 0:
            signal.alarm(300)  # a lock that a thread of the parent held is never released here
            try:
                sys.settrace(killer(1 + kills * stride))
                job()
                os._exit(0)
            except BaseException:
                os._exit(1)
        status = os.waitpid(pid, 0)[1]
        check()
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0, "the job failed"
            return kills
        assert os.WTERMSIG(status) == signal.SIGKILL
        kills += 1


# Forking pytest is slow: every line in the slow suite, every 9th in the fast one.
STRIDES = [9, pytest.param(1, marks=pytest.mark.slow)]


@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize(("saved", "there", "keep"), [(30, (10, 20), 2), (20, (10, 20), 2), (10, (10,), 1)])
def test_a_kill_at_any_line_of_a_save_leaves_the_old_or_the_new(tmp_path, saved, there, keep, stride):
    """A new step with an old one to delete; a step that is replaced; the only one replaced."""
    start, folder = tmp_path / "start", tmp_path / "state" / "dynamics"
    for step in there:
        Checkpoints(start).save(step, content(step))
    seen = set()

    def prepare():
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(start, folder)

    def check():
        found = Checkpoints(folder).newest(say=pytest.fail)
        assert found is not None
        step, values = found
        assert step in (there[-1], saved)
        assert torch.equal(values["weights"], torch.full((200,), float(step)))
        seen.add((step, values["on"]))
        # Rerun: it saves, and no temporary folder remains.
        Checkpoints(folder, keep=keep).save(saved, content(saved) | {"on": False})
        kept = sorted({*there, saved})[-keep:]
        assert names(folder) == [f"step_{step:08d}" for step in kept]
        again = Checkpoints(folder).newest(say=pytest.fail)
        assert again is not None
        assert again[0] == saved
        assert again[1]["on"] is False

    job = Checkpoints(folder, keep=keep)
    kills = at_lines(lambda: job.save(saved, content(saved) | {"on": False}), prepare, check, stride)
    print(f"{kills} kills")
    assert kills > 100 / stride
    assert seen == {(there[-1], True), (saved, False)}, "kills before and after it was renamed"


@pytest.mark.parametrize("stride", STRIDES)
def test_the_first_save_killed_at_any_line_leaves_nothing_or_all(tmp_path, stride):
    folder = tmp_path / "state" / "dynamics"
    seen = set()

    def check():
        found = Checkpoints(folder).newest(say=pytest.fail)
        seen.add(None if found is None else found[0])

    job = Checkpoints(folder)
    at_lines(lambda: job.save(7, content(7)), lambda: shutil.rmtree(folder, ignore_errors=True), check, stride)
    assert seen == {None, 7}


# Damage


def test_any_changed_byte_is_noticed_and_the_checkpoint_before_is_used(box, capsys):
    for step in (1, 2):
        box.save(step, content(step))
    newest = box.folder / "step_00000002"
    rng = np.random.default_rng(0)
    for name in ("state.pt", "SHA256SUMS"):
        size = (newest / name).stat().st_size
        for place in sorted({0, size - 1, *rng.integers(size, size=60).tolist()}):
            by = int(rng.integers(1, 256))
            flip(newest / name, place, by)
            found = box.newest()
            assert found is not None
            assert found[0] == 1
            assert torch.equal(found[1]["weights"], torch.ones(200))
            told = capsys.readouterr().out
            assert told.count("\n") == 1
            assert f"{newest} is damaged (the SHA-256 of state.pt differs from SHA256SUMS)" in told
            assert "from step 1" in told
            flip(newest / name, place, by)
    assert_holds(box, 2)


def cut(path: Path) -> None:
    (path / "state.pt").write_bytes((path / "state.pt").read_bytes()[:-100])


def pickle_of_a_function(path: Path) -> None:
    """Has the right digest, but weights_only=True does not read it."""
    import hashlib

    torch.save({"run": os.system}, path / "state.pt")
    digest = hashlib.sha256((path / "state.pt").read_bytes()).hexdigest()
    (path / "SHA256SUMS").write_text(f"{digest}  state.pt\n")


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (cut, "the SHA-256 of state.pt differs"),
        (lambda path: (path / "state.pt").unlink(), "state.pt is missing"),
        (lambda path: (path / "SHA256SUMS").unlink(), "SHA256SUMS is missing"),
        (lambda path: (path / "state.pt").write_bytes(b""), "the SHA-256 of state.pt differs"),
        (lambda path: [(path / "state.pt").unlink(), (path / "state.pt").mkdir()], "state.pt cannot be read: Is a dir"),
        (pickle_of_a_function, "state.pt cannot be read: Weights only load failed"),
        (lambda path: shutil.rmtree(path) or path.mkdir(), "state.pt is missing"),
    ],
)
def test_a_damaged_checkpoint_is_named_skipped_and_not_counted(box, capsys, damage, why):
    for step in (1, 2):
        box.save(step, content(step))
    damage(box.folder / "step_00000002")
    again = Checkpoints(box.folder, keep=2)
    found = again.newest()
    assert found is not None
    assert found[0] == 1
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert why in out
    again.save(3, content(3))
    assert names(box.folder) == ["step_00000001", "step_00000003"], (
        "the damaged one is not one of the two that are kept"
    )
    assert_holds(Checkpoints(box.folder), 3)


def test_if_all_are_damaged_the_newest_and_the_remedy_are_named(box):
    for step in (1, 2):
        box.save(step, content(step))
        cut(box.folder / f"step_{step:08d}")
    for _ in range(2):  # the second time too: training must not start again by itself
        with pytest.raises(UserError, match=r"2 is damaged .* no other .* usable; delete .*retrain") as caught:
            Checkpoints(box.folder).newest()
        assert "\n" not in str(caught.value)
        assert str(box.folder) in str(caught.value)


def test_other_files_in_the_folder_are_left_alone(box):
    box.save(1, content(1))
    (box.folder / "notes.txt").write_text("mine")
    (box.folder / "step_by_step").mkdir()
    box.save(2, content(2))
    assert_holds(box, 2)
    assert {"notes.txt", "step_by_step"} <= set(names(box.folder))


# A full disk


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_a_failed_write_is_one_line_and_keeps_the_last_checkpoint(box, share):
    """A real failing write: the kernel refuses bytes past RLIMIT_FSIZE, as a full disk would."""
    path = box.save(1, content(1))
    limit = int(share * (path / "state.pt").stat().st_size)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(300)
        try:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            try:
                box.save(2, content(2))
                told = "no error"
            except UserError as error:
                told = str(error)
            os.write(writing, told.encode())
        finally:
            os._exit(0)
    os.close(writing)
    assert os.waitpid(pid, 0)[1] == 0, "torch ends the process when a write fails inside it"
    with os.fdopen(reading) as pipe:
        told = pipe.read()
    assert told.startswith(f"cannot write checkpoint {box.folder / 'step_00000002'}: File too large; earlier")
    assert names(box.folder) == ["step_00000001"]
    assert_holds(box, 1)


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "state").write_text("a file")
    with pytest.raises(UserError, match=r"cannot write checkpoint .*step_00000001: Not a directory"):
        Checkpoints(tmp_path / "state" / "tokenizer").save(1, content(1))


# Modules


def test_a_trained_module_is_restored_with_all_its_counters(box, config, clips):
    """Also while the quantizer collects latents for its start, whose number differs from a new module's."""
    from genie_robotics.training.config import StageConfig

    def trained(num_steps):
        torch.manual_seed(0)
        module = Genie(config).latent_action.train()
        optimizers = Optimizers(module, StageConfig(learning_rate=1e-3, muon_learning_rate=0.01))
        for step in range(num_steps):
            torch.manual_seed(step)
            module(clips.batch([step, step + 1]))[0].backward()
            optimizers.step(1.0)
        return module, optimizers

    for num_steps in (2, 6):
        module, optimizers = trained(num_steps)
        box.save(num_steps, {"module": module_state(module), "optimizers": optimizers.state_dict()})
        other, others = trained(0)
        found = box.newest()
        assert found is not None
        load_module_state(other, found[1]["module"])
        others.load_state_dict(found[1]["optimizers"])
        mine, theirs = dict(module.named_buffers()), dict(other.named_buffers())
        assert mine.keys() == theirs.keys()
        assert any(name.endswith("recent") for name in mine)
        for name, value in [*module.state_dict().items(), *mine.items()]:
            assert torch.equal(value, {**other.state_dict(), **theirs}[name]), name
        for a, b in zip(optimizers.parameters, others.parameters, strict=True):
            for x, y in zip(optimizers.optimizers, others.optimizers, strict=True):
                for key, value in x.state.get(a, {}).items():
                    assert torch.equal(value, y.state[b][key]), key


class Parts(nn.Module):
    def __init__(self, width=3, bias=True, extra=False):
        super().__init__()
        self.line = nn.Linear(width, 2, bias=bias)
        self.register_buffer("count", torch.zeros(4), persistent=False)
        self.register_buffer("table", torch.zeros(0, width), persistent=False)
        if extra:
            self.register_buffer("more", torch.zeros(1), persistent=False)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (Parts(width=5), r"line.weight is \(2, 5\) float32, in the model \(2, 3\) float32"),
        (Parts(bias=False), "line.bias is missing"),
        (Parts(extra=True), "more is not in the model"),
        (Parts().double(), "float64, in the model"),
    ],
)
def test_the_state_of_another_module_is_refused(tmp_path, other, message):
    module = Parts()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(UserError, match=f"state/x does not fit the model .*{message}.*delete it to retrain") as caught:
        load_module_state(module, module_state(other), tmp_path / "state" / "x")
    assert "\n" not in str(caught.value)
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items()), "partly loaded"


def test_counters_must_fit_and_tables_may_grow():
    grown = Parts()
    grown.table = torch.ones(7, 3)
    module = Parts()
    load_module_state(module, module_state(grown))
    assert torch.equal(module.table, torch.ones(7, 3))
    load_module_state(module, module_state(Parts()))
    assert module.table.shape == (0, 3)
    grown.count = torch.zeros(5)
    with pytest.raises(UserError, match=r"count is \(5,\) float32"):
        load_module_state(module, module_state(grown))


def test_loaded_tensors_share_no_memory_and_a_view_is_saved_without_its_storage():
    module = Parts()
    module.table = torch.arange(3000.0).reshape(1000, 3)[-2:]
    state = module_state(module)
    assert state["buffers"]["table"].untyped_storage().nbytes() == 24
    other = Parts()
    load_module_state(other, state)
    other.count += 1
    assert not module.count.any()


# metrics.jsonl


def line(stage: str, step: int) -> bytes:
    return json.dumps({"stage": stage, "step": step, "loss": 0.5}).encode() + b"\n"


def test_metrics_go_back_to_the_checkpoint(tmp_path):
    path = tmp_path / "metrics.jsonl"
    head = [line("tokenizer", step) for step in range(1, 7)]
    odd = [b"not json\n", b'{"stage": "dynamics"}\n', b'{"stage":"dynamics","step":null}\n', b"[1, 2]\n", b"\xff\xfe\n"]
    mine = [line("dynamics", step) for step in range(1, 6)]
    for tail in (b"", b'{"stage": "dynamics", "st', b"\xff", line("dynamics", 6)[:-1]):
        path.write_bytes(b"".join([*head, *odd, *mine]) + tail)
        assert truncate_metrics(path, "dynamics", 3) == 2 + bool(tail)
        assert path.read_bytes() == b"".join([*head, *odd, *mine[:3]])
        assert names(tmp_path) == ["metrics.jsonl"]


def test_metrics_without_a_change_are_not_written(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert truncate_metrics(path, "dynamics", 3) == 0
    assert not path.exists()
    path.write_bytes(line("dynamics", 3))
    before = path.stat()
    assert truncate_metrics(path, "dynamics", 3) == 0
    assert path.stat().st_ino == before.st_ino
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def test_a_complete_line_without_its_line_end_gets_one(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(line("dynamics", 2) + line("dynamics", 3)[:-1])
    assert truncate_metrics(path, "dynamics", 3) == 0
    assert path.read_bytes() == line("dynamics", 2) + line("dynamics", 3)
    assert truncate_metrics(path, "dynamics", 0) == 2
    assert path.read_bytes() == b""
