"""The frame cache holds the frames of its source, is complete or absent, and is reused only for the same source."""

import errno
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from genie_datasets.base.errors import UserError
from genie_datasets.clips.dataset import ClipDataset
from genie_datasets.sources.frame_cache import FrameCache
from genie_datasets.sources.opening import open_source
from genie_datasets.writers import frame_cache as frame_cache_writer
from genie_datasets.writers.frame_cache import build_frame_cache

SIZE = (16, 16)


def build(split, out, size=SIZE, mode="crop"):
    return build_frame_cache(split, out, size, mode, progress=False)


@pytest.mark.parametrize("source", ["rlds_dir", "video_dir"])
@pytest.mark.parametrize("mode", ["crop", "letterbox"])
def test_a_cache_holds_the_frames_of_the_split(request, source, mode, tmp_path):
    split = open_source(request.getfixturevalue(source), hz=4).split("train")
    built = build(split, tmp_path / "deep" / "cache", mode=mode)
    cache = FrameCache.open(tmp_path / "deep" / "cache")
    assert (cache.size, cache.mode, cache.name) == (SIZE, mode, "train")
    assert cache.packed.shape == (split.num_frames.sum(), *SIZE, 3)
    assert cache.packed.dtype == np.uint8
    assert cache.hz.tolist() == split.hz.tolist()
    np.testing.assert_array_equal(cache.episode_start, np.concatenate([[0], np.cumsum(split.num_frames)]))
    for episode in range(split.num_episodes):
        expected = split.frames(episode, None, SIZE, mode)
        np.testing.assert_array_equal(cache.frames(episode), expected)
        np.testing.assert_array_equal(built.frames(episode, np.array([2, 0])), expected[[2, 0]])
        assert cache.instruction(episode) == split.instruction(episode)
        assert cache.episode_name(episode) == split.episode_name(episode)
        assert cache.truth(episode) is None
    assert cache.frames(0, size=(8, 12)).shape[1:3] == (8, 12)
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["cache"]  # no temporary files


def test_a_cache_of_the_same_source_is_reused_and_another_is_replaced(rlds_dir, tmp_path, monkeypatch):
    split = open_source(rlds_dir).split("train")
    writes = []
    original = frame_cache_writer._write
    monkeypatch.setattr(frame_cache_writer, "_write", lambda *args: writes.append(1) or original(*args))
    out = tmp_path / "cache"
    build(split, out)
    build(open_source(rlds_dir).split("train"), out)
    assert len(writes) == 1
    for changed in ({"size": (8, 8)}, {"size": (8, 8), "mode": "letterbox"}):
        assert build(split, out, **changed).size == (8, 8)
    assert build(open_source(rlds_dir).split("test"), out).name == "test"
    assert len(writes) == 4
    assert [p.name for p in tmp_path.iterdir() if p.name != "rlds"] == ["cache"]


def test_two_builds_at_once_take_turns_and_end_with_one_cache(rlds_dir, tmp_path, monkeypatch):
    split = open_source(rlds_dir).split("train")
    writes = []
    original = frame_cache_writer._write

    def slow(*args):
        writes.append(1)
        time.sleep(0.2)
        original(*args)

    monkeypatch.setattr(frame_cache_writer, "_write", slow)
    for round_ in (1, 2):  # without a cache, and where both replace one
        with ThreadPoolExecutor(3) as pool:
            caches = [job.result() for job in [pool.submit(build, split, tmp_path / "cache") for _ in range(3)]]
        assert len(writes) == 2 * round_ - 1
        for cache in caches:
            np.testing.assert_array_equal(cache.frames(0), split.frames(0, None, SIZE, "crop"))
        assert others(tmp_path) == ["cache"]
        build(split, tmp_path / "cache", size=(8, 8))


def test_a_build_starts_again_when_another_has_just_finished(rlds_dir, tmp_path, monkeypatch):
    """Another call may finish before any step of taking the lock, and before the check without the lock."""
    split = open_source(rlds_dir).split("train")
    build(split, tmp_path / "cache", size=(8, 8))
    (tmp_path / "cache" / "cache.json").rename(tmp_path / "held back")  # as if another call were replacing it
    mkdir, opened = Path.mkdir, Path.open
    lost = []

    def mkdir_beside(path, *args, **kwargs):
        mkdir(path, *args, **kwargs)
        if path.name == ".cache.partial" and not lost:
            lost.append("mkdir")
            (tmp_path / "held back").rename(tmp_path / "cache" / "cache.json")
            path.rmdir()
            raise FileExistsError(errno.EEXIST, "File exists", str(path))

    def open_beside(path, *args, **kwargs):
        if path.name == "lock" and lost == ["mkdir"]:
            lost.append("open")
            path.parent.rmdir()
        return opened(path, *args, **kwargs)

    monkeypatch.setattr(Path, "mkdir", mkdir_beside)
    monkeypatch.setattr(Path, "open", open_beside)
    cache = build(split, tmp_path / "cache")
    assert lost == ["mkdir", "open"]
    np.testing.assert_array_equal(cache.frames(0), split.frames(0, None, SIZE, "crop"))
    assert others(tmp_path) == ["cache"]


def test_a_file_in_the_place_of_the_partial_folder_is_one_line(rlds_dir, tmp_path):
    (tmp_path / ".cache.partial").write_text("mine")
    with pytest.raises(UserError, match="cannot write .*cache \\(File exists\\)"):
        build(open_source(rlds_dir).split("train"), tmp_path / "cache")
    assert (tmp_path / ".cache.partial").read_text() == "mine"


def test_a_broken_link_in_the_place_of_the_folder_is_one_line(rlds_dir, tmp_path):
    (tmp_path / "scratch").symlink_to(tmp_path / "not mounted")
    with pytest.raises(UserError, match="cannot write .*cache \\(File exists\\)"):
        build(open_source(rlds_dir).split("train"), tmp_path / "scratch" / "cache")


def others(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != "rlds")


def damage_an_image(shard):
    data, state = shard.read_bytes(), shard.stat()
    at = data.index(b"\xff\xd8\xff")
    shard.write_bytes(data[: at + 3] + bytes(200) + data[at + 203 :])
    return data, state


def restore(shard, whole):
    """Restores the content and the modification time."""
    data, state = whole
    shard.write_bytes(data)
    os.utime(shard, ns=(state.st_atime_ns, state.st_mtime_ns))


def test_a_build_that_fails_keeps_the_old_cache_and_resumes(rlds_dir, tmp_path, monkeypatch):
    split = open_source(rlds_dir).split("train")
    old = build(split, tmp_path / "cache", size=(8, 8)).frames(0)
    shard = sorted(rlds_dir.glob("*-train.*"))[1]
    whole = damage_an_image(shard)
    with pytest.raises(UserError, match="episode 0 of shard .*step 0"):
        build(split, tmp_path / "cache")
    np.testing.assert_array_equal(FrameCache.open(tmp_path / "cache").frames(0), old)
    assert others(tmp_path) == [".cache.partial", "cache"]
    restore(shard, whole)
    decoded = []
    original = type(split).frames
    monkeypatch.setattr(type(split), "frames", lambda self, e, *a: decoded.append(e) or original(self, e, *a))
    cache = build(split, tmp_path / "cache")
    assert sorted(decoded) == [2, 3]  # those of the first shard were finished
    assert others(tmp_path) == ["cache"]
    assert sorted(p.name for p in cache.folder.iterdir()) == ["cache.json", "frames.u8", "index.npz", "source.json"]
    for episode in range(4):
        np.testing.assert_array_equal(cache.frames(episode), original(split, episode, None, SIZE))


def test_an_unfinished_cache_of_other_files_is_not_used(rlds_dir, tmp_path):
    split = open_source(rlds_dir).split("train")
    shard = sorted(rlds_dir.glob("*-train.*"))[1]
    whole = damage_an_image(shard)
    with pytest.raises(UserError):
        build(split, tmp_path / "cache")
    restore(shard, whole)
    cache = build(split, tmp_path / "cache", size=(8, 12))
    np.testing.assert_array_equal(cache.frames(0), split.frames(0, None, (8, 12)))
    assert others(tmp_path) == ["cache"]


def test_nothing_is_left_where_nothing_was_decoded(rlds_dir, tmp_path):
    split = open_source(rlds_dir).split("train")
    damage_an_image(sorted(rlds_dir.glob("*-train.*"))[0])
    with pytest.raises(UserError, match="episode 0 of shard .*step 0"):
        build(split, tmp_path / "cache")
    assert others(tmp_path) == []


def test_a_killed_build_resumes_from_the_synced_episodes(rlds_dir, tmp_path, monkeypatch):
    code = f"""
import os, signal
from genie_datasets import open_source
from genie_datasets.writers import frame_cache as frame_cache_writer
frame_cache_writer.SYNC_BYTES = 1
split = open_source({str(rlds_dir)!r}).split("train")
original = frame_cache_writer.write_at
def write_at(file, images, offset):
    original(file, images, offset)
    if offset:
        os.kill(os.getpid(), signal.SIGKILL)
frame_cache_writer.write_at = write_at
frame_cache_writer.build_frame_cache(split, {str(tmp_path / "cache")!r}, (16, 16))
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    assert np.fromfile(tmp_path / ".cache.partial/done.u8", np.uint8).tolist() == [1, 0, 0, 0]
    split = open_source(rlds_dir).split("train")
    decoded = []
    original = type(split).frames
    monkeypatch.setattr(type(split), "frames", lambda self, e, *a: decoded.append(e) or original(self, e, *a))
    cache = build(split, tmp_path / "cache")
    assert sorted(decoded) == [1, 2, 3]
    for episode in range(4):
        np.testing.assert_array_equal(cache.frames(episode), original(split, episode, None, SIZE))


def test_a_full_disk_is_one_line_and_loses_nothing(rlds_dir, tmp_path, monkeypatch):
    split = open_source(rlds_dir).split("train")
    original = frame_cache_writer.write_at

    def full(file, images, offset):
        if offset:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(file, images, offset)

    monkeypatch.setattr(frame_cache_writer, "write_at", full)
    with pytest.raises(UserError, match="No space left on device.*rerun the command"):
        build(split, tmp_path / "cache")
    assert np.fromfile(tmp_path / ".cache.partial/done.u8", np.uint8).tolist() == [1, 0, 0, 0]
    monkeypatch.setattr(frame_cache_writer, "write_at", original)
    np.testing.assert_array_equal(build(split, tmp_path / "cache").frames(3), split.frames(3, None, SIZE))


def test_the_disk_space_is_checked_first(rlds_dir, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1, 1, 100))
    split = open_source(rlds_dir).split("train")
    needed = int(split.num_frames.sum()) * 16 * 16 * 3
    with pytest.raises(UserError, match=f"needs {needed} bytes.*100 free"):
        build(split, tmp_path / "cache")


def test_a_folder_with_something_else_is_not_touched(rlds_dir, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.txt").write_text("purr")
    with pytest.raises(UserError, match="is not a frame cache"):
        build(open_source(rlds_dir).split("train"), tmp_path / "photos")
    assert (tmp_path / "photos" / "cat.txt").read_text() == "purr"


def test_opening_a_folder_that_is_not_a_cache(rlds_dir, tmp_path):
    with pytest.raises(UserError, match="is not a frame cache"):
        FrameCache.open(tmp_path / "nowhere")
    cache = build(open_source(rlds_dir).split("train"), tmp_path / "cache")
    (cache.folder / "frames.u8").write_bytes(b"short")
    with pytest.raises(UserError, match="is not a frame cache"):
        FrameCache.open(tmp_path / "cache")


def test_pickling_sends_no_frames(rlds_dir, tmp_path):
    cache = build(open_source(rlds_dir).split("train"), tmp_path / "cache")
    data = pickle.dumps(cache)
    assert len(data) < cache.packed.nbytes / 4
    np.testing.assert_array_equal(pickle.loads(data).packed, cache.packed)


def test_a_cache_is_a_source(rlds_dir, tmp_path):
    for name, split in open_source(rlds_dir).splits.items():
        build(split, tmp_path / "caches" / name)
    source = open_source(tmp_path / "caches")
    assert (source.kind, list(source.splits)) == ("cache", ["train", "test"])
    assert list(open_source(tmp_path / "caches" / "test").splits) == ["test"]
    meta = json.loads((tmp_path / "caches" / "test" / "cache.json").read_text())
    assert meta["fingerprint"] in source.fingerprint


def test_a_reused_cache_has_the_rate_of_the_new_call(video_dir, tmp_path):
    """The pixels do not depend on --hz, but the distance of the frames of a clip with a gap does."""
    fingerprints = set()
    for hz, step in ((3, 1), (6, 2)):
        cache = build(open_source(video_dir, hz=hz).split("train"), tmp_path / "cache")
        clips = ClipDataset(cache, 4, gap=1 / 3)
        assert cache.hz.tolist() == [hz] * 3
        assert clips.steps.tolist() == [step] * 3
        fingerprints.add(clips.fingerprint)
    assert len(fingerprints) == 2, "the token cache must not mix them up"
