"""Interrupted runs of `data tabletop`: they lose no finished episode, and a rerun gives the same bytes."""

import hashlib
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from genie_datasets import open_source
from genie_datasets.base import child_process
from genie_datasets.base.errors import UserError
from genie_datasets.tabletop import generate as generate_module
from genie_datasets.tabletop import shards
from genie_datasets.tabletop.generate import generate
from genie_datasets.tabletop.pool import _Worker
from genie_datasets.tabletop.unfinished import UnfinishedDataset, count_finished
from genie_datasets.tabletop.worker import EncodedEpisode, Job
from genie_datasets.tabletop.writer import TabletopWriter

ARGUMENTS = {"episodes": 10, "seed": 0, "size": (16, 16), "splits": {"train": 0.7, "test": 0.3}, "progress": False}
HANGS_AT = 4  # in the second shard of `train`
HANGING = f"""
import time
from genie_datasets.tabletop import shards
from genie_datasets.tabletop.generate import generate
from genie_datasets.tabletop.unfinished import UnfinishedDataset

add_to_shard = UnfinishedDataset.add_to_shard

def hang(self, index):
    if index == {HANGS_AT}:
        time.sleep(600)
    add_to_shard(self, index)

UnfinishedDataset.add_to_shard = hang
shards.EPISODES_PER_SHARD = 3
generate(OUT, workers=2, **{ARGUMENTS!r})
"""


@pytest.fixture(scope="module", autouse=True)
def small_and_without_opengl():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MUJOCO_GL", "disable")
        patch.setattr(shards, "EPISODES_PER_SHARD", 3)
        yield


simulate, simulated = _Worker._ask, dict[Job, EncodedEpisode]()


def ask_once(self: _Worker, job: Job) -> EncodedEpisode:
    if job not in simulated:
        simulated[job] = simulate(self, job)
    return simulated[job]


@pytest.fixture
def simulated_once(monkeypatch):
    """For tests of files: no worker simulates an episode that one has simulated for another such test."""
    monkeypatch.setattr(_Worker, "_ask", ask_once)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, str]:
    """The digests of a data set that was made without interruption."""
    return digests(generate(tmp_path_factory.mktemp("whole"), **ARGUMENTS, workers=1))


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> Path:
    """The folder after kill -9 of the parent: four episodes in shards, and others that wait for their turn."""
    out = tmp_path_factory.mktemp("killed") / "out"
    process = subprocess.Popen([sys.executable, "-c", HANGING.replace("OUT", repr(str(out)), 1)])
    try:
        wait_until(lambda: count_finished(out) >= HANGS_AT + 3 or process.poll() is not None)
        assert process.poll() is None
        with pytest.raises(UserError, match=f"another process is already writing to {out}"):
            generate(out, **ARGUMENTS)
    finally:
        process.kill()
        process.wait()
    return out


@pytest.fixture
def out(killed, tmp_path) -> Path:
    """A copy of the folder of `killed`."""
    return shutil.copytree(killed, tmp_path / "out")


def wait_until(condition, seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def partial(out: Path) -> Path:
    return out / "tabletop" / "1.0.0.incomplete"


@pytest.fixture
def made(monkeypatch) -> list[str]:
    """The names of the files that are written from now on."""
    names = []
    write = TabletopWriter.write

    def record(self, path, episode):
        names.append(path.name)
        write(self, path, episode)

    monkeypatch.setattr(TabletopWriter, "write", record)
    return names


def finish(out: Path, whole: dict[str, str], workers: int = 1) -> None:
    """Rerun the command; the folder must then hold the same as after an uninterrupted run, and nothing else."""
    folder = generate(out, **ARGUMENTS, workers=workers)
    assert folder == out / "tabletop" / "1.0.0"
    assert digests(folder) == whole
    assert [path.name for path in (out / "tabletop").iterdir()] == ["1.0.0"]


def test_kill_of_the_parent_loses_nothing(out, whole, made):
    kept = count_finished(out)
    assert len(whole) == 4 + 3  # shards of 3, 3, 1 and 3 episodes, three json files
    finish(out, whole)
    assert len(made) == 10 - kept


def test_incomplete_and_damaged_episodes_are_made_again(out, whole, made):
    kept = count_finished(out)
    shard = partial(out) / "1.0.0" / "tabletop-train.tfrecord-00001-of-00003"
    # an episode may have been half written when the process was killed
    waiting = sorted(path for path in (partial(out) / "finished").iterdir() if path.suffix != ".tmp")
    assert len(waiting) >= 3
    assert waiting[0].name == f"episode.tfrecord-{HANGS_AT:08d}"
    with shard.open("ab") as file:  # the next episode, half written
        file.write(waiting[0].read_bytes()[:1000])
    waiting[1].write_bytes(waiting[1].read_bytes()[:-1])
    damaged = bytearray(waiting[2].read_bytes())
    damaged[500] ^= 1
    waiting[2].write_bytes(damaged)
    (partial(out) / "finished" / "episode.tfrecord-00000009.tmp").write_bytes(b"half")
    finish(out, whole, workers=3)
    assert len(made) == 10 - kept + 2


@pytest.mark.usefixtures("simulated_once")
def test_a_shard_is_cut_at_its_first_damaged_record(out, whole, made):
    shard = partial(out) / "1.0.0" / "tabletop-train.tfrecord-00000-of-00003"
    damaged = bytearray(shard.read_bytes())
    damaged[len(damaged) // 2] ^= 1  # in the second of three
    shard.write_bytes(damaged)
    missing = [i for i in range(HANGS_AT, 10) if not (partial(out) / "finished" / f"episode.tfrecord-{i:08d}").exists()]
    finish(out, whole)
    assert sorted(int(name[-8:]) for name in made) == [1, 2, 3, *missing]


@pytest.mark.usefixtures("simulated_once")
def test_an_episode_in_its_shard_and_in_its_own_file_counts_once(out, whole):
    first = partial(out) / "finished" / f"episode.tfrecord-{HANGS_AT:08d}"
    with (partial(out) / "1.0.0" / "tabletop-train.tfrecord-00001-of-00003").open("ab") as file:
        file.write(first.read_bytes())
    finish(out, whole)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"episodes": 11}, r"--episodes 10 \(here 11\); rerun that command"),
        ({"seed": 2, "size": (16, 32)}, r"--seed 0 \(here 2\), --size 16x16 \(here 16x32\)"),
        ({"splits": {"train": 0.8, "test": 0.2}}, r"train=0.7,test=0.3 \(here train=0.8,test=0.2\)"),
        ({"family": "rt1"}, r"--family easy \(here rt1\)"),
    ],
)
def test_other_arguments_do_not_continue(out, change, says):
    before = {path: path.stat().st_size for path in out.rglob("*")}
    with pytest.raises(UserError, match=f"{out} holds an unfinished data set .* with other arguments: .*{says}"):
        generate(out, **(ARGUMENTS | change))
    assert before == {path: path.stat().st_size for path in out.rglob("*")}


def test_another_renderer_does_not_continue(out, monkeypatch):
    monkeypatch.setattr(generate_module, "find_backend", lambda: "egl")
    with pytest.raises(UserError, match=r"renderer raycast \(here gl-egl\)"):
        generate(out, **ARGUMENTS)


@pytest.mark.usefixtures("simulated_once")
def test_without_a_finished_episode_other_arguments_start(out, whole):
    for path in partial(out).rglob("*.tfrecord-*"):
        path.write_bytes(b"half")
    plan = partial(out) / "plan.json"
    plan.write_text(json.dumps(json.loads(plan.read_text()) | {"arguments": {}}))
    finish(out, whole)


@pytest.mark.usefixtures("simulated_once")
def test_other_files_stay(out, whole):
    (out / "log.txt").write_text("mine")
    (partial(out) / "mine.txt").write_text("mine")
    assert digests(generate(out, **ARGUMENTS, workers=1)) == whole
    assert (out / "log.txt").exists()
    assert [path.name for path in partial(out).iterdir()] == ["mine.txt"]


def test_a_folder_with_an_unreadable_plan_is_not_changed(out):
    plan = partial(out) / "plan.json"
    for damage in (lambda: plan.write_text("{"), plan.unlink):
        damage()
        kept = count_finished(out)
        with pytest.raises(UserError, match=f"plan.json is missing or unreadable; remove {partial(out)}"):
            generate(out, **ARGUMENTS)
        assert count_finished(out) == kept


@pytest.mark.usefixtures("simulated_once")
def test_interruption_between_the_last_two_steps(out, whole, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(UnfinishedDataset, "_remove_folders", lambda self: None)
        generate(out, **ARGUMENTS, workers=2)
    assert partial(out).exists()
    with pytest.raises(UserError, match="already holds a finished data set"):
        generate(out, **(ARGUMENTS | {"seed": 1}))
    finish(out, whole)
    with pytest.raises(UserError, match="already holds a finished data set"):
        generate(out, **ARGUMENTS)


def test_an_episode_that_kills_its_workers_loses_no_others(tmp_path, whole, monkeypatch):
    ask = _Worker._ask
    later = partial(tmp_path) / "finished" / "episode.tfrecord-00000006"

    def deadly(self, job):
        if job.index == 2:
            wait_until(later.exists)
            self.process.kill()
        return ask(self, job)

    with monkeypatch.context() as patch:
        patch.setattr(_Worker, "_ask", deadly)
        with pytest.raises(UserError) as caught:
            generate(tmp_path, **ARGUMENTS, workers=2)
    message = str(caught.value)
    kept = count_finished(tmp_path)
    assert kept >= 6  # 0 and 1 in their shard, 3 to 6 in their own files
    assert message.startswith("simulation workers ended 3 times (exit status -9) in episode 2 (scene 2, seed 2)")
    assert f"; {kept} of 10 episodes are kept in {tmp_path}: rerun the command, with fewer" in message
    assert "\n" not in message
    finish(tmp_path, whole)


@pytest.mark.usefixtures("simulated_once")
@pytest.mark.parametrize("full", ["an episode", "a shard"])
def test_a_full_disk_keeps_what_is_finished(tmp_path, whole, monkeypatch, full):
    blocked = []

    def block(path: Path) -> None:
        path.symlink_to("/dev/full")  # every write fails as on a full disk
        blocked.append(path)

    write, append = TabletopWriter.write, shards.Shards.append

    def full_write(self, path, episode):
        if full == "an episode" and path.name.endswith("5"):
            block(path.with_name(f"{path.name}.tmp"))
        write(self, path, episode)

    def full_append(self, record):
        if full == "a shard" and self.episodes == 3:
            block(partial(tmp_path) / "1.0.0" / "tabletop-train.tfrecord-00001-of-00003")
        append(self, record)

    with monkeypatch.context() as patch:
        patch.setattr(TabletopWriter, "write", full_write)
        patch.setattr(shards.Shards, "append", full_append)
        with pytest.raises(UserError) as caught:
            generate(tmp_path, **ARGUMENTS, workers=1)
    assert len(blocked) == 1
    for path in blocked:
        path.unlink(missing_ok=True)
    kept = count_finished(tmp_path)
    assert kept >= 3
    message = str(caught.value)
    assert message.startswith(f"cannot write to {tmp_path}: ")
    assert "No space left on device" in message
    assert message.endswith(f"free some space and rerun the command: {kept} of 10 episodes are kept in {tmp_path}")
    finish(tmp_path, whole)


@pytest.mark.usefixtures("simulated_once")
def test_disk_space_is_checked_for_missing_episodes_only(out, whole, monkeypatch):
    each = 40 * (16 * 16 + 3000)
    missing = 10 - count_finished(out)
    usage = shutil.disk_usage(out)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=each * missing - 1))
    with pytest.raises(UserError, match=f"not enough disk space in {out}: {missing} episodes of 16x16 need"):
        generate(out, **ARGUMENTS)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=each * missing))
    finish(out, whole)


def test_ctrl_c_keeps_finished_episodes_and_ends_the_workers(tmp_path, whole, monkeypatch):
    workers = []
    start, add_to_shard = _Worker._start, UnfinishedDataset.add_to_shard

    def record(self):
        workers.append(start(self))
        return workers[-1]

    def interrupted(self, index):
        if index == 3:
            raise KeyboardInterrupt
        add_to_shard(self, index)

    with monkeypatch.context() as patch:
        patch.setattr(child_process, "GRACE_PERIOD", 60.0)
        patch.setattr(_Worker, "_start", record)
        patch.setattr(UnfinishedDataset, "add_to_shard", interrupted)
        with pytest.raises(KeyboardInterrupt):
            generate(tmp_path, **ARGUMENTS, workers=2)
    assert len(workers) == 2
    assert [worker.poll() for worker in workers] == [0, 0]  # each ended normally after its episode
    assert count_finished(tmp_path) >= 4
    finish(tmp_path, whole)


def test_nothing_finished_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(self, path, episode):
        raise KeyboardInterrupt

    monkeypatch.setattr(TabletopWriter, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path, **ARGUMENTS, workers=1)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("simulated_once")
def test_a_run_continues_after_one_that_ended_at_its_very_start(tmp_path, whole):
    (tmp_path / "a" / "tabletop").mkdir(parents=True)
    finish(tmp_path / "a", whole)
    partial(tmp_path / "b").mkdir(parents=True)
    (partial(tmp_path / "b") / "lock").touch()
    finish(tmp_path / "b", whole)


def test_an_unfinished_data_set_is_not_opened(out):
    with pytest.raises(UserError, match=r"1\.0\.0\.incomplete.*data tabletop"):
        open_source(out)


def test_a_missing_file_has_no_records(tmp_path):
    assert shards.count_records(tmp_path / "episode.tfrecord-00000006.tmp") == 0
