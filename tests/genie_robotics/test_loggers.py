"""Loggers and console: the right numbers in the right place; a failure is one line, and training continues."""

import importlib.machinery
import importlib.util
import inspect
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from genie_datasets.base.errors import UserError
from genie_robotics.training import loggers as package
from genie_robotics.training.monitor import Monitor, duration

COLLAPSE = SimpleNamespace(
    name="code_use", severity="warning", message="2 of 8 codes are used.", remedy="Raise --revive-below."
)


def tell(monitor: Monitor, step: int, findings=(), progress=0.1, **values) -> None:
    monitor.step(
        step=step,
        progress=progress,
        seconds_left=125,
        num_frames=32,
        rate=0.5,
        values={name: torch.tensor(value) for name, value in ({"loss": 1.0 / step} | values).items()},
        findings=findings,
    )


def lines(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


# metrics.jsonl


def test_every_log_step_and_the_last_is_one_line(tmp_path):
    monitor = Monitor(tmp_path, "tokenizer", 5, quiet=True)
    for step in range(1, 13):
        tell(monitor, step, progress=step / 12)
    assert [line["step"] for line in lines(tmp_path)] == [5, 10, 12]
    assert list(lines(tmp_path)[0]) == ["stage", "step", "loss", "rate", "frames_per_s"]
    assert lines(tmp_path)[0] | {"frames_per_s": 0} == {
        "stage": "tokenizer", "step": 5, "loss": pytest.approx(0.2), "rate": 0.5, "frames_per_s": 0,
    }  # fmt: skip
    assert lines(tmp_path)[0]["frames_per_s"] > 0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_json_cannot_express_is_null(tmp_path, value):
    tell(Monitor(tmp_path, "tokenizer", 1, quiet=True), 1, psnr=value)
    assert lines(tmp_path)[0]["psnr"] is None


def test_values_become_numbers_only_if_they_are_shown_or_logged(tmp_path):
    class Counted:
        asked = 0

        def __float__(self):
            Counted.asked += 1
            return 1.0

    monitor = Monitor(tmp_path, "tokenizer", 10, quiet=True)
    for step in range(1, 21):
        monitor.step(step, 0.1, 1.0, 1, 1.0, {"loss": Counted()})
    assert Counted.asked == 2


def test_a_resumed_run_replaces_the_lines_after_its_checkpoint(tmp_path):
    first = Monitor(tmp_path, "latent_action", 1, quiet=True)
    tell(first, 7)
    cut = Monitor(tmp_path, "tokenizer", 1, quiet=True)
    for step in range(1, 9):
        tell(cut, step)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"stage": "tokenizer", "st')  # killed while writing
    resumed = Monitor(tmp_path, "tokenizer", 1, quiet=True)
    for step in range(5, 9):
        tell(resumed, step, loss=-1.0)
    told = lines(tmp_path)
    assert [line["step"] for line in told] == [7, 1, 2, 3, 4, 5, 6, 7, 8]
    assert [line["loss"] for line in told if line["stage"] == "tokenizer"][4:] == [-1.0] * 4


def test_a_metrics_file_that_cannot_be_written_stops_training_with_one_line(tmp_path, monkeypatch):
    monitor = Monitor(tmp_path, "tokenizer", 1, quiet=True)
    tell(monitor, 1)
    (tmp_path / "metrics.jsonl").unlink()
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"cannot write .*metrics.jsonl: No space left on device; free disk space"):
        tell(monitor, 2)


# Findings


def test_a_finding_is_stored_at_once_with_all_values_of_its_step(tmp_path):
    monitor = Monitor(tmp_path, "joint", 10, quiet=True)
    tell(monitor, 3, findings=[COLLAPSE], perplexity=2.0)
    tell(monitor, 4)
    tell(monitor, 10)
    assert [line["step"] for line in lines(tmp_path)] == [3, 10]
    assert lines(tmp_path)[0]["findings"] == [vars(COLLAPSE)]
    assert lines(tmp_path)[0]["perplexity"] == 2.0
    assert "findings" not in lines(tmp_path)[1]


def test_a_finding_is_a_line_of_its_own_on_a_terminal_even_after_a_status_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monitor = Monitor(tmp_path, "joint", 10)
    tell(monitor, 1)
    tell(monitor, 2, findings=[COLLAPSE])
    monitor.say("checkpoint written")
    tell(monitor, 3, progress=1)
    shown = screen(capsys.readouterr().out)
    assert shown[0] == "warning: joint, step 2: 2 of 8 codes are used. Raise --revive-below."
    assert shown[1] == "checkpoint written"
    assert shown[2].startswith("joint         step      3  100%  loss 0.3333")
    assert shown[3:] == [""]


def screen(output: str) -> list[str]:
    """Lines that a terminal shows: a carriage return and ESC[K empty a line."""
    return [line.split("\r\x1b[K")[-1] for line in output.split("\n")]


def test_a_finding_is_printed_even_if_training_is_quiet(tmp_path, capsys):
    monitor = Monitor(tmp_path, "joint", 10, quiet=True)
    tell(monitor, 2, findings=[COLLAPSE])
    assert capsys.readouterr().out == "warning: joint, step 2: 2 of 8 codes are used. Raise --revive-below.\n"


# The console


def test_the_status_line_is_redrawn_on_a_terminal_and_printed_now_and_then_to_a_file(tmp_path, capsys, monkeypatch):
    monitor = Monitor(tmp_path, "tokenizer", 100)
    for step in range(1, 6):
        tell(monitor, step)
    out = capsys.readouterr().out
    assert out.count("\n") == 1, "a file gets one in 15 seconds"
    assert "\r" not in out
    assert "step      1   10%  loss 1" in out
    assert "left 2m05s" in out
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    for step in range(6, 10):
        tell(monitor, step)
    out = capsys.readouterr().out
    assert out.count("\r\x1b[K") == 4
    assert "\n" not in out


def test_a_closed_pipe_does_not_stop_training(tmp_path, monkeypatch):
    def broken(*_args, **_kwargs):
        raise BrokenPipeError

    monkeypatch.setattr(sys.stdout, "write", broken)
    monitor = Monitor(tmp_path, "tokenizer", 1)
    for step in (1, 2):
        tell(monitor, step, findings=[COLLAPSE])
    assert len(lines(tmp_path)) == 2


def test_durations_are_written_in_hours_minutes_and_seconds():
    assert [duration(s) for s in (0, 59.6, 3599, 3600, 90000)] == ["0m00s", "1m00s", "59m59s", "1h00m", "25h00m"]


# Extras


def test_an_unknown_logger_is_named_before_training_starts(tmp_path):
    with pytest.raises(UserError, match="unknown logger 'mlflow'; expected tensorboard or wandb"):
        Monitor(tmp_path, "tokenizer", 1, ("mlflow",))


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
@pytest.mark.parametrize(
    "found", [None, importlib.machinery.ModuleSpec("wandb", None)]
)  # absent; a folder without code
def test_an_extra_that_is_not_installed_is_named_with_its_remedy_before_training_starts(
    tmp_path, monkeypatch, name, found
):
    monkeypatch.setattr(package, "find_spec", lambda _: found)
    with pytest.raises(UserError, match=rf"{name}: {name} is not installed; pip install 'genie-robotics\[{name}\]'$"):
        Monitor(tmp_path, "tokenizer", 1, (name,))


class Broken:
    def __init__(self, at: int):
        self.at = at
        self.told: list[int] = []

    def log(self, step, stage, values, findings=()):
        if step == self.at:
            raise ConnectionError("the network is gone\nand more")
        self.told.append(step)

    def close(self):
        raise ConnectionError("still gone")


def with_extra(monkeypatch, make) -> None:
    monkeypatch.setitem(package.EXTRAS, "extra", make)
    monkeypatch.setattr(package, "find_spec", lambda name: importlib.machinery.ModuleSpec(name, None, origin="here"))


def test_a_logger_that_fails_is_switched_off_with_one_line_and_training_continues(tmp_path, monkeypatch, capsys):
    broken = Broken(at=2)
    with_extra(monkeypatch, lambda *_: broken)
    monitor = Monitor(tmp_path, "tokenizer", 1, ("extra",), quiet=True)
    for step in range(1, 5):
        tell(monitor, step)
    monitor.close()
    assert broken.told == [1]
    assert len(lines(tmp_path)) == 4
    said = "extra failed (the network is gone) and is switched off; metrics.jsonl continues\n"
    assert capsys.readouterr().out == said


def test_a_logger_that_fails_at_the_end_is_one_line_too(tmp_path, monkeypatch, capsys):
    with_extra(monkeypatch, lambda *_: Broken(at=-1))
    monitor = Monitor(tmp_path, "tokenizer", 1, ("extra",), quiet=True)
    tell(monitor, 1)
    monitor.close()
    assert capsys.readouterr().out.startswith("extra failed (still gone)")


def test_a_logger_that_cannot_be_opened_is_one_line(tmp_path, monkeypatch):
    def refuse(*_):
        raise RuntimeError("api_key not configured\nmore")

    with_extra(monkeypatch, refuse)
    with pytest.raises(UserError, match=r"^extra cannot be opened \(api_key not configured\); fix this, or leave"):
        tell(Monitor(tmp_path, "tokenizer", 1, ("extra",)), 1)


def test_nothing_heavy_is_imported_for_the_monitor_alone():
    code = (
        "import sys; import genie_robotics.training.monitor\n"
        "print([m for m in ('tensorflow', 'tensorboard', 'wandb', 'sklearn') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# TensorBoard

needs_tensorboard = pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None, reason="tensorboard is not installed"
)


@needs_tensorboard
def test_tensorboard_reads_back_what_was_logged_and_a_resumed_run_continues(tmp_path):
    for first, loss in ((1, 1.0), (5, 2.0)):  # the second time from step 5, after 8 were logged
        monitor = Monitor(tmp_path, "tokenizer", 1, ("tensorboard",), quiet=True)
        for step in range(first, first + 8):
            tell(monitor, step, loss=loss, findings=[COLLAPSE] if step == 6 else [])
        monitor.close()
    other = Monitor(tmp_path, "dynamics", 1, ("tensorboard",), quiet=True)
    tell(other, 1)
    other.close()

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard" / "tokenizer"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"loss", "rate", "frames_per_s"}
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [
        (step, 1.0 if step < 5 else 2.0) for step in range(1, 13)
    ]
    said = events.Tensors("findings/text_summary")
    assert {e.step for e in said} == {6}
    assert b"2 of 8 codes are used." in said[0].tensor_proto.string_val[0]
    assert (tmp_path / "tensorboard" / "dynamics").is_dir()


@needs_tensorboard
def test_tensorboard_is_written_without_tensorflow(tmp_path):
    code = (
        "import sys, pathlib; from genie_robotics.training.loggers import EXTRAS\n"
        "logger = EXTRAS['tensorboard'](pathlib.Path(sys.argv[1]), 'tokenizer', 1)\n"
        "logger.log(1, 'tokenizer', {'loss': 1.0}); logger.close(); print('tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


# wandb


class FakeRun:
    """Records calls like those of wandb 0.31's Run; `test_the_real_wandb_...` makes them if wandb is installed."""

    def __init__(self, **kwargs):
        self.kwargs = kwargs
        self.calls: list[tuple] = []

    def define_metric(self, name, step_metric=None):
        self.calls.append(("define_metric", name, step_metric))

    def log(self, data):
        self.calls.append(("log", data))

    def alert(self, title, text):
        self.calls.append(("alert", title, text))

    def finish(self):
        self.calls.append(("finish",))


@pytest.fixture
def wandb(monkeypatch) -> list[FakeRun]:
    """The runs that were opened with a fake of the package."""
    runs: list[FakeRun] = []
    module = ModuleType("wandb")
    module.__spec__ = importlib.machinery.ModuleSpec("wandb", None, origin="fake")
    module.init = lambda **kwargs: runs.append(FakeRun(**kwargs)) or runs[-1]
    module.Settings = lambda **kwargs: kwargs
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    return runs


def test_wandb_gets_every_value_under_its_stage_and_a_resumed_run_is_the_same_run(tmp_path, wandb):
    run = tmp_path / "nano"
    run.mkdir()
    (run / "config.json").write_text('{"model": {"preset": "nano"}}')
    for _ in range(2):
        monitor = Monitor(run, "tokenizer", 1, ("wandb",), quiet=True)
        tell(monitor, 3, findings=[COLLAPSE])
        monitor.close()
    first, second = wandb
    assert first.kwargs == second.kwargs
    assert first.kwargs["id"] == (run / "state" / "wandb_id").read_text()
    assert len(first.kwargs["id"]) == 8
    assert first.kwargs["resume"] == "allow"
    assert (first.kwargs["project"], first.kwargs["name"]) == ("genie-robotics", "nano")
    assert first.kwargs["config"] == {"model": {"preset": "nano"}}
    calls = dict((c[0], c[1:]) for c in first.calls)
    assert calls["define_metric"] == ("tokenizer/*", "tokenizer/step")
    assert set(calls["log"][0]) == {f"tokenizer/{name}" for name in ("step", "loss", "rate", "frames_per_s")}
    assert calls["log"][0]["tokenizer/step"] == 3
    assert calls["alert"] == (
        "warning: code_use",
        "tokenizer, step 3: 2 of 8 codes are used. Raise --revive-below.",
    )
    assert calls["finish"] == ()


real_wandb = pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb is not installed")


@real_wandb
def test_the_real_wandb_accepts_the_same_calls(tmp_path, monkeypatch):
    import wandb

    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("define_metric", "log", "alert", "finish"):
        inspect.signature(getattr(wandb.Run, name)).bind(
            None, *[None] * (len(inspect.signature(getattr(FakeRun, name)).parameters) - 1)
        )
    for first in (1, 4):
        monitor = Monitor(tmp_path, "tokenizer", 1, ("wandb",), quiet=True)
        for step in range(first, first + 4):
            tell(monitor, step, findings=[COLLAPSE] if step == 2 else [])
        monitor.close()
    name = (tmp_path / "state" / "wandb_id").read_text()
    stored = sorted((tmp_path / "wandb").glob(f"offline-run-*-{name}/run-{name}.wandb"))
    assert len(stored) == 2, "two processes, one run"
    assert all(b"tokenizer/loss" in path.read_bytes() for path in stored)
    assert b"2 of 8 codes are used" in stored[0].read_bytes()
    assert len(lines(tmp_path)) == 7, "no logger was switched off"
