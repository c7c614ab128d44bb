"""After a change of any file of any kind of source, nothing that was made from it is reused silently."""

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from genie_datasets import ClipDataset, build_frame_cache, open_source
from genie_datasets.base.errors import UserError
from genie_datasets.commands import main
from tests.genie_datasets.conftest import RldsFolder
from tests.genie_datasets.numbered import frame, write
from tests.genie_datasets.test_lerobot_frames import make, write_episodes

KINDS = ("rlds", "tfds", "lerobot v2", "lerobot v3", "images in a table", "video", "npy", "npz", "cache", "mixture")


def make_source(kind: str, root: Path) -> Path | str:
    if kind in ("rlds", "tfds"):
        rlds = RldsFolder(root)
        rlds.add("train", [rlds.episode(6, 0)], [rlds.episode(7, 1)])
        folder = rlds.finish()
        (folder / "metadata.json").write_text('{"hz": 3}')
        return folder
    if kind.startswith("lerobot"):
        make(root / "set", [8, 9], version=f"{kind[-2:]}.0", options={"g": "1"})
        return root / "set"
    if kind == "images in a table":
        return images_in_a_table(root / "set")
    if kind == "video":
        for first, name in enumerate(("train/a.mp4", "train/b.mp4")):
            write(root / name, 12, options={"g": "1"}, first=first)
        return root
    if kind in ("npy", "npz"):
        (root / "train").mkdir(parents=True)
        for first, name in enumerate(("a", "b")):
            frames = np.stack([frame(first + n) for n in range(9)])
            path = root / "train" / f"{name}.{kind}"
            np.save(path, frames) if kind == "npy" else np.savez(path, frames=frames)
        return root
    if kind == "cache":
        source = open_source(make_source("video", root / "video"), hz=3)
        build_frame_cache(source.split("train"), root / "made" / "train", (16, 16), progress=False)
        return root / "made"
    return f"{make_source('video', root / 'one')}:0.5,{make_source('npy', root / 'two')}:0.5"


def images_in_a_table(root: Path) -> Path:
    import json

    import pyarrow as pa
    import pyarrow.parquet as parquet

    from tests.genie_datasets.conftest import png
    from tests.genie_datasets.test_lerobot_frames import KEY

    make(root, [8, 9])
    info = json.loads((root / "meta/info.json").read_text())
    info["features"][KEY]["dtype"] = "image"
    (root / "meta/info.json").write_text(json.dumps(info))
    shutil.rmtree(root / "videos")
    for path in sorted((root / "data").rglob("*.parquet")):
        table = parquet.read_table(path)
        images = [{"bytes": png(frame(n)), "path": None} for n in range(len(table))]
        parquet.write_table(table.append_column(KEY, pa.array(images)), path)
    return root


def files_of(place: Path | str) -> list[Path]:
    roots = [Path(part.partition(":")[0]) for part in str(place).split(",")]
    return sorted(path for root in roots for path in root.rglob("*") if path.is_file() and path.name != "source.json")


def open_train(kind: str, place: Path | str):
    hz = None if kind in ("rlds", "tfds", "cache") or kind.startswith(("lerobot", "images")) else 3
    return open_source(place, hz=hz, reader="rlds" if kind == "tfds" else "index").split("train")


def touch_inside(path: Path) -> None:
    """Changes a byte in the middle, which is not sampled, and keeps the size."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    later = time.time_ns() + 1_000_000_000  # a second write within the clock's tick would have the same time
    os.utime(path, ns=(later, later))


@pytest.mark.parametrize("kind", KINDS)
def test_a_change_of_any_file_changes_the_key(tmp_path, kind):
    """`fingerprint` and `stamp` are the key of frame caches, token caches and motion tables."""
    if kind == "images in a table":
        pytest.importorskip("pyarrow")
    place = make_source(kind, tmp_path / "source")
    before = open_train(kind, place)
    again = open_train(kind, place)
    assert (before.fingerprint, before.stamp) == (again.fingerprint, again.stamp)
    tried = 0
    for path in files_of(place):
        kept = path.read_bytes(), path.stat()
        touch_inside(path)
        said = ""
        try:
            after = open_train(kind, place)
        except UserError as error:
            said = str(error)
        if said:
            assert str(tmp_path) in said
        else:
            assert after.stamp != before.stamp, path
        path.write_bytes(kept[0])
        os.utime(path, ns=(kept[1].st_atime_ns, kept[1].st_mtime_ns))
        tried += 1
    assert tried >= 2
    assert open_train(kind, place).stamp == before.stamp


@pytest.mark.parametrize("kind", KINDS)
def test_copies_and_moves_keep_the_keys(tmp_path, kind):
    """The fingerprint in labels and reports is the same for a copy."""
    if kind == "mixture":
        return
    place = make_source(kind, tmp_path / "source")
    before = open_train(kind, place)
    shutil.copytree(place, tmp_path / "copy" / Path(place).name)
    copied = open_train(kind, tmp_path / "copy" / Path(place).name)
    assert copied.fingerprint == before.fingerprint
    assert copied.stamp == before.stamp, "copytree keeps the times, as cp -p and rsync -t do"
    for path in files_of(tmp_path / "copy"):
        os.utime(path)
    touched = open_train(kind, tmp_path / "copy" / Path(place).name)
    assert touched.fingerprint == before.fingerprint
    assert touched.stamp != before.stamp


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("mixture", "cache")])
def test_a_frame_cache_is_made_again_and_says_so(tmp_path, capsys, kind):
    place = make_source(kind, tmp_path / "source")
    out = tmp_path / "out"

    def made() -> tuple[int, str]:
        cache = build_frame_cache(open_train(kind, place), out, (32, 40), progress=False)
        return cache.folder.stat().st_ino, capsys.readouterr().err

    first, _ = made()
    again, said = made()
    assert again == first, "the same files: used again"
    assert "is made again" not in said
    path = files_of(place)[-1]
    os.utime(path)
    second, said = made()
    assert second != first
    assert f"{out} is made again: its source, or how it is read, has changed" in said
    assert made()[0] == second


def test_a_corrected_table_gives_new_frames_and_instructions(tmp_path, capsys):
    """`data cache` before and after the publisher corrects starts and instructions of episodes."""
    root, out = tmp_path / "set", tmp_path / "out"
    make(root, [20, 20], version="v3.0", gap=20)
    assert main(["cache", str(root), str(out), "--size", "64x80"]) == 0
    write_episodes(root, [20, 20], [2.0, 6.0], lambda e: [f"new {e}"])
    assert main(["cache", str(root), str(out), "--size", "64x80"]) == 0
    assert "is made again" in capsys.readouterr().err
    from tests.genie_datasets.numbered import numbers

    split = open_source(out).split("train")
    assert [numbers(split.frames(e)) for e in range(2)] == [list(range(20, 40)), list(range(60, 80))]
    assert [split.instruction(e) for e in range(2)] == ["new 0", "new 1"]


def test_a_frame_cache_whose_source_changed_says_so_when_it_is_opened(tmp_path, capsys):
    place = make_source("video", tmp_path / "source")
    build_frame_cache(open_train("video", place), tmp_path / "out", (16, 16), progress=False)
    capsys.readouterr()
    open_source(tmp_path / "out")
    assert capsys.readouterr().err == ""
    touch_inside(files_of(place)[0])
    open_source(tmp_path / "out")
    assert "train/a.mp4 has changed since" in capsys.readouterr().err
    shutil.rmtree(place)
    open_source(tmp_path / "out")
    assert capsys.readouterr().err == "", "a cache may outlive its source"


def test_an_index_is_not_used_for_a_shard_that_changed_inside(tmp_path):
    """The name, the size and both ends of the shard stay the same."""
    rlds = RldsFolder(tmp_path)
    episodes = [rlds.episode(60, n) for n in range(3)]
    (shard,) = rlds.add("train", episodes)
    folder = rlds.finish()
    before = open_source(folder).split("train")
    told = episodes[1]["steps/observation/natural_language_instruction"][0]
    data = shard.read_bytes()
    assert told == b"move 1"
    assert 4096 < data.index(told) < len(data) - 4096
    shard.write_bytes(data.replace(told, b"MOVE 1"))
    os.utime(shard, ns=(1, 1))
    after = open_source(folder).split("train")
    assert before.instruction(1) == "move 1"
    assert after.instruction(1) == "MOVE 1"
    assert after.fingerprint != before.fingerprint


def test_motion_flags_of_a_cache_that_was_made_again(tmp_path):
    from genie_datasets.clips.filters import ClipFilter

    still = np.repeat(frame(0)[None], 12, 0)
    moving = np.random.default_rng(0).integers(0, 256, still.shape, np.uint8)
    (tmp_path / "src").mkdir()
    for frames, kept in ((still, 0), (moving, 1)):
        np.save(tmp_path / "src/a.npy", frames)
        np.save(tmp_path / "src/b.npy", moving)
        split = open_source(tmp_path / "src", hz=3).split("train")
        cache = build_frame_cache(split, tmp_path / "out", (32, 40), progress=False)
        clips = ClipDataset(cache, 12, drop=ClipFilter(static=0.5))
        assert len(clips) == 1 + kept


def test_a_cache_of_an_earlier_version_is_replaced(tmp_path, capsys):
    import json

    split = open_train("video", make_source("video", tmp_path / "source"))
    out = tmp_path / "out"
    build_frame_cache(split, out, (16, 16), progress=False)
    meta = json.loads((out / "cache.json").read_text())
    del meta["version"]
    (out / "cache.json").write_text(json.dumps(meta))
    with pytest.raises(UserError, match="an earlier version made it"):
        open_source(out)
    build_frame_cache(split, out, (16, 16), progress=False)
    assert "is made again" in capsys.readouterr().err
    assert open_source(out).split("train").num_episodes == 2


def test_a_cache_folder_never_mixes_two_sources(tmp_path):
    one, other = make_source("video", tmp_path / "one"), make_source("npy", tmp_path / "other")
    for name in ("a", "b"):
        shutil.copy(one / f"train/{name}.mp4", tmp_path / f"{name}.mp4")
    (one / "test").mkdir()
    shutil.move(one / "train/b.mp4", one / "test/b.mp4")
    out = tmp_path / "out"
    assert main(["cache", str(one), str(out), "--size", "16x16", "--hz", "3"]) == 0
    with pytest.raises(UserError, match=r"out/test is a frame cache of another source"):
        main(["cache", str(other), str(out), "--size", "16x16", "--hz", "3"])
    shutil.copytree(out / "train", out / "train again")
    with pytest.raises(UserError, match="both hold the split 'train'"):
        open_source(out)


def test_hz_is_declared_for_a_cache_too(tmp_path):
    build_frame_cache(open_train("video", make_source("video", tmp_path / "s")), tmp_path / "out", (16, 16))
    assert open_source(tmp_path / "out").split("train").hz.tolist() == [3, 3]
    assert open_source(tmp_path / "out", hz=10).split("train").hz.tolist() == [10, 10]


def test_a_rate_given_later_is_that_of_the_cache(tmp_path):
    place, out = make_source("video", tmp_path / "source"), tmp_path / "out"
    for hz in ("3", "12"):
        assert main(["cache", str(place), str(out), "--size", "16x16", "--hz", hz]) == 0
        assert open_source(out).split("train").hz.tolist() == [float(hz)] * 2


@pytest.mark.parametrize("name", ["cache.json", "index.npz", "frames.u8", "source.json"])
@pytest.mark.parametrize("content", [b"[]", b"x"])
def test_a_broken_cache_is_made_again_by_the_command_that_its_error_names(tmp_path, name, content):
    place, out = make_source("video", tmp_path / "source"), tmp_path / "out"
    again = ["cache", str(place), str(out), "--size", "16x16", "--hz", "3"]
    assert main(again) == 0
    (out / "train" / name).write_bytes(content)
    if name != "source.json":
        with pytest.raises(UserError, match="is not a frame cache .*make one with `data cache SRC OUT`"):
            open_source(out)
    assert main(again) == 0
    assert open_source(out).split("train").num_episodes == 2


def test_videos_next_to_a_cache_are_noted(tmp_path, capsys):
    place = make_source("video", tmp_path / "source")
    for path in files_of(place):
        path.rename(place / path.name)
    (place / "train").rmdir()
    assert main(["cache", str(place), str(place), "--size", "16x16", "--hz", "3"]) == 0
    capsys.readouterr()
    assert open_source(place).kind == "cache"
    assert "a.mp4 (and 1 more) is left out" in capsys.readouterr().err
