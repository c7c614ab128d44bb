"""The index of shards is built by several processes, resumes after a kill, and is memory-mapped."""

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from genie_datasets.base.cache_dir import cache_dir
from genie_datasets.base.errors import UserError
from genie_datasets.base.mapped_npz import BrokenNpz, ChunkedArray, map_npz, write_npz
from genie_datasets.sources.opening import open_source
from genie_datasets.sources.rlds import episode_index, index_workers
from genie_datasets.sources.rlds.episode_index import EpisodeIndex
from genie_datasets.sources.rlds.index_shard import IndexSpec
from genie_datasets.sources.rlds.tfrecord import DamagedRecord, frame_record

FIELDS = [name for name in EpisodeIndex.__dataclass_fields__ if name != "path"]


@pytest.fixture
def parallel(monkeypatch):
    monkeypatch.setattr(index_workers, "PARALLEL_FROM", 0)


def shards_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("*-train.*"))


def test_several_processes_find_what_one_finds(rlds_dir, monkeypatch):
    one = open_source(rlds_dir).split("train")
    monkeypatch.setattr(index_workers, "PARALLEL_FROM", 0)
    monkeypatch.setenv("GENIE_ROBOTICS_CACHE", str(rlds_dir.parent / "other"))
    many = open_source(rlds_dir).split("train")
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(one.index, name), getattr(many.index, name))
    np.testing.assert_array_equal(one.frames(2), many.frames(2))
    kept = [path.suffix for path in (rlds_dir.parent / "other/index").iterdir()]
    assert sorted(kept) == [".lock", ".lock", ".npz", ".npz"]  # one per split, and no parts


def test_the_index_is_a_memory_map_also_in_loader_workers(rlds_folder):
    rlds_folder.add("train", [rlds_folder.episode(600)])
    folder = rlds_folder.finish()
    open_source(folder)
    index = open_source(folder).split("train").index
    assert isinstance(index.frame_offset, np.memmap)
    again = pickle.loads(pickle.dumps(index))
    assert isinstance(again.frame_offset, np.memmap)
    assert len(pickle.dumps(index)) < 1000
    np.testing.assert_array_equal(again.frame_offset, index.frame_offset)
    with pytest.raises(ValueError, match="read-only"):
        index.frame_offset[0] = 1


def test_without_a_place_to_keep_it_the_index_is_in_memory(rlds_dir, parallel, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(episode_index, "build", full)
    split = open_source(rlds_dir).split("train")
    assert split.num_frames.tolist() == [5, 20, 6, 18]
    assert "cannot keep the index" in capsys.readouterr().err
    assert len(pickle.loads(pickle.dumps(split)).frames(1)) == 20


def test_parts_of_an_interrupted_build_are_used(rlds_dir, parallel, monkeypatch):
    indexed = []
    original = index_workers.Worker.index
    first = shards_of(rlds_dir)[0].name

    def interrupt(self, shard, path):
        if shard.name != first:
            raise KeyboardInterrupt
        original(self, shard, path)

    monkeypatch.setattr(index_workers, "num_cores", lambda: 1)  # in order
    monkeypatch.setattr(index_workers.Worker, "index", interrupt)
    with pytest.raises(KeyboardInterrupt):
        open_source(rlds_dir, include="*-train*")
    (parts,) = (cache_dir() / "index").glob("*.parts")
    assert [part.name for part in parts.iterdir()] == ["00000.npz"]
    monkeypatch.setattr(
        index_workers.Worker, "index", lambda self, *job: indexed.append(job[0].name) or original(self, *job)
    )
    split = open_source(rlds_dir, include="*-train*").split("train")
    assert indexed == [shards_of(rlds_dir)[1].name]
    assert split.num_frames.tolist() == [5, 20, 6, 18]
    assert not parts.exists()


def test_a_killed_build_resumes_and_leaves_no_process(rlds_folder):
    rlds_folder.add("train", *[[rlds_folder.episode(4, n)] for n in range(40)])
    folder = rlds_folder.finish()
    code = f"""
import time
from genie_datasets.sources.rlds import index_shard
from genie_datasets.sources.rlds import index_workers
from genie_datasets.sources import opening as sources
index_workers.PARALLEL_FROM = 0
index_workers.num_cores = lambda: 2
original = index_workers.Worker.index
indexed = []
def slow(self, *job):
    indexed.append(job)
    time.sleep(0.1 if len(indexed) < 10 else 600)  # 18 of 40 at most, however late the kill
    original(self, *job)
index_workers.Worker.index = slow
sources.open_source({str(folder)!r})
"""
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    deadline = time.monotonic() + 60
    while len(list((cache_dir() / "index").glob("*.parts/*.npz"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    whole = len(list((cache_dir() / "index").glob("*.parts/*.npz")))
    assert 3 <= whole < 40
    assert children
    while any(running(pid) for pid in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(running(pid) for pid in children)
    assert open_source(folder).split("train").num_episodes == 40


def running(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("processes", [1, 2])
def test_damage_is_named_and_good_shards_are_kept(rlds_dir, monkeypatch, processes):
    monkeypatch.setattr(index_workers, "PARALLEL_FROM", 0 if processes == 2 else 1 << 30)
    shard = shards_of(rlds_dir)[1]
    data = shard.read_bytes()
    shard.write_bytes(data[:-100])
    with pytest.raises(UserError, match=rf"shard .*{shard.name} is cut off at byte .*--exclude"):
        open_source(rlds_dir)
    shard.write_bytes(data)
    assert open_source(rlds_dir).split("train").num_episodes == 4


def damage_one(folder: Path, kind: str, kit) -> None:
    """Damages the second of the three episodes in the first shard."""
    shard = shards_of(folder)[0]
    frames = kit.moving_square(6, seed=1)
    images = [kit.jpeg(frame) for frame in frames]
    if kind == "image":
        images[3] = images[3][:20]
    good = kit.encode_example({kit.IMAGE: images, kit.INSTRUCTION: [b"move 1"] * 6})
    bad = frame_record(good)
    if kind == "checksum":
        bad = bad[:200] + bytes([bad[200] ^ 1]) + bad[201:]
    if kind == "example":
        bad = frame_record(good[:3] + b"\xff" + good[4:])
    if kind == "key":
        bad = frame_record(kit.encode_example({kit.INSTRUCTION: [b"move 1"]}))
    records = [kit.encode_example({kit.IMAGE: [kit.jpeg(f) for f in kit.moving_square(n)]}) for n in (5, 7)]
    shard.write_bytes(frame_record(records[0]) + bad + frame_record(records[1]))


@pytest.mark.parametrize("kind", ["image", "checksum", "example", "key"])
@pytest.mark.parametrize("processes", [1, 2])
def test_skip_damaged_leaves_out_one_episode_and_says_so(rlds_dir, kit, kind, processes, monkeypatch, capsys):
    monkeypatch.setattr(index_workers, "PARALLEL_FROM", 0 if processes == 2 else 1 << 30)
    damage_one(rlds_dir, kind, kit)
    split = open_source(rlds_dir, skip_damaged=True).split("train")
    assert split.num_frames.tolist() == [5, 7, 6, 18]
    assert split.index.record_number.tolist() == [0, 2, 0, 1]
    assert len(split.damage) == 1
    assert shards_of(rlds_dir)[0].name in split.damage[0]
    assert "byte" in split.damage[0]
    assert "skipped what is damaged" in capsys.readouterr().err
    again = open_source(rlds_dir, skip_damaged=True).split("train")  # from the index in the cache
    assert list(again.damage) == list(split.damage)
    assert "skipped what is damaged" in capsys.readouterr().err
    assert all(len(split.frames(e)) == n for e, n in enumerate(split.num_frames))


def test_skip_damaged_keeps_the_episodes_before_a_cut(rlds_dir):
    shard = shards_of(rlds_dir)[1]
    shard.write_bytes(shard.read_bytes()[:-100])
    split = open_source(rlds_dir, skip_damaged=True).split("train")
    assert split.num_frames.tolist() == [5, 20, 6]
    assert "is cut off at byte" in split.damage[0]


def test_a_shard_that_cannot_be_read_is_named(rlds_dir):
    shard = shards_of(rlds_dir)[1]
    shard.unlink()
    shard.mkdir()
    with pytest.raises(UserError, match=rf"cannot read .*{shard.name} \(Is a directory\).*--exclude"):
        open_source(rlds_dir)


ARRAYS = {
    "large": np.arange(5000, dtype=np.int64),
    "small": np.array([3.5]),
    "none": np.zeros((0, 4), np.int32),
    "scalar": np.array(7),
    "text": np.array(["a", "longer text"]),
    "image": np.arange(3 * 40 * 50, dtype=np.uint8).reshape(3, 40, 50) % 251,
}


@pytest.mark.parametrize("writer", ["numpy", "ours"])
def test_an_npz_is_mapped_as_numpy_reads_it(tmp_path, writer):
    path = tmp_path / "a.npz"
    if writer == "numpy":
        np.savez(path, **ARRAYS)
    else:
        with path.open("wb") as stream:
            pieces: dict = {name: array for name, array in ARRAYS.items()}
            pieces["large"] = ChunkedArray(np.dtype(np.int64), (5000,), iter(np.array_split(ARRAYS["large"], 7)))
            write_npz(stream, pieces)
    mapped = map_npz(path)
    with np.load(path) as loaded:
        assert set(loaded) == set(mapped) == set(ARRAYS)
        for name, array in ARRAYS.items():
            np.testing.assert_array_equal(mapped[name], array)
            np.testing.assert_array_equal(loaded[name], array)
            assert mapped[name].dtype == array.dtype
            assert mapped[name].shape == array.shape
    assert isinstance(mapped["large"], np.memmap)
    np.savez_compressed(path, **ARRAYS)
    with pytest.raises(BrokenNpz, match="compressed"):
        map_npz(path)


def test_an_array_of_another_length_is_refused(tmp_path):
    with (
        (tmp_path / "a.npz").open("wb") as stream,
        pytest.raises(ValueError, match="the chunks hold 4 values, expected"),
    ):
        write_npz(stream, {"a": ChunkedArray(np.dtype(np.int64), (5,), [np.arange(4)])})


def test_the_results_of_jobs(rlds_dir, tmp_path):
    """The results of jobs, computed in this process."""
    spec = IndexSpec("steps/observation/image")
    out = tmp_path / "part.npz"
    shard = shards_of(rlds_dir)[0]
    assert index_workers.run_job((shard, out, spec)) == (None, True)
    assert map_npz(out)["num_frames"].tolist() == [5, 20]
    error, is_read = index_workers.run_job((shard, out, IndexSpec("steps/other")))
    assert isinstance(error, DamagedRecord)
    assert not is_read
    error, is_read = index_workers.run_job((rlds_dir / "none", out, spec))
    assert isinstance(error, OSError)
    assert not is_read
    (tmp_path / "file").touch()
    error, is_read = index_workers.run_job((shard, tmp_path / "file" / "part.npz", spec))
    assert isinstance(error, OSError)
    assert is_read
