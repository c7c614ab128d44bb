"""Links are followed, each folder is read once, and everything that is left out is noted."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genie_datasets import open_source
from genie_datasets.base.errors import UserError
from genie_datasets.base.folders import walk
from tests.genie_datasets.conftest import RldsFolder, examples
from tests.genie_datasets.numbered import frame, numbers, write
from tests.genie_datasets.test_lerobot_frames import make


def array(path: Path, first: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.stack([frame(first + n) for n in range(3)]))


def firsts(place, **more) -> list[int]:
    """The first frame of every episode that is read, sorted."""
    return sorted(
        numbers(split.frames(e, np.array([0])))[0]
        for split in open_source(place, **more).splits.values()
        for e in range(split.num_episodes)
    )


@settings(max_examples=examples(40), suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=8),  # the folder of each episode
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 8)), max_size=5),  # links: from folder, to folder
)
def test_any_tree_of_links_reads_every_reachable_episode_once(tmp_path_factory, episodes, links):
    """Folders 0-3 lie in the tree one in another or side by side, 4 and 5 outside; 7 is the root, 8 its parent."""
    base = tmp_path_factory.mktemp("links")
    root = base / "here" / "root"
    places = [root / "0", root / "0/1", root / "2", root / "2/3", base / "away/4", base / "away/5", root, root, base]
    for place in places:
        place.mkdir(parents=True, exist_ok=True)
    for number, folder in enumerate(episodes):
        array(places[folder] / f"e{number}.npy", 4 * number)
    for number, (where, to) in enumerate(links):
        (places[where] / f"link{number}").symlink_to(places[to])
    reachable, new = set(), {root.resolve()}
    while new:  # by hand: folders below, and where links lead, but never back above the root
        folder = new.pop()
        reachable.add(folder)
        for entry in folder.iterdir():
            target = entry.resolve()
            if entry.is_dir() and target not in reachable and target not in root.resolve().parents:
                new.add(target)
    expected = [4 * n for n, folder in enumerate(episodes) if places[folder].resolve() in reachable]
    if expected:
        assert firsts(root, hz=3) == expected
    else:
        with pytest.raises(UserError, match="holds no robot video"):
            open_source(root, hz=3)
    shutil.rmtree(base)


def test_episodes_behind_a_link_and_a_link_in_a_circle(tmp_path, capsys):
    """Two episodes in the folder, three behind a link, and a link to a parent folder."""
    root, away = tmp_path / "data", tmp_path / "disk2/more"
    for n in range(2):
        write(root / f"a{n}.mp4", 4, first=10 * n)
    for n in range(3):
        write(away / f"b{n}.mp4", 4, first=100 + 10 * n)
    (root / "more").symlink_to(away)
    (root / "round").symlink_to(root)
    assert firsts(root, hz=3) == [0, 10, 100, 110, 120]
    assert "data/round in " in capsys.readouterr().err
    only = tmp_path / "only"
    only.mkdir()
    (only / "link").symlink_to(away)
    assert firsts(only, hz=3) == [100, 110, 120]


@pytest.mark.parametrize("depth", [0, 1])
def test_every_kind_of_source_is_found_behind_a_link(tmp_path, depth):
    rlds = RldsFolder(tmp_path / "real/rlds")
    rlds.add("train", [rlds.episode(5)])
    rlds.finish()
    make(tmp_path / "real/lerobot/set", [5], version="v3.0")
    array(tmp_path / "real/arrays/a.npy")
    write(tmp_path / "real/video/a.mp4", 5)
    for name in ("rlds", "lerobot", "arrays", "video"):
        link = tmp_path / f"{name}_link" if not depth else tmp_path / f"{name}_outer" / "link"
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(tmp_path / "real" / name)
        place = link if not depth else link.parent
        assert open_source(place, hz=3).split("train").num_episodes == 1


def test_folders_of_a_set_may_be_links(tmp_path):
    """The cache of a hub: every file is a link, and whole folders are on another disk."""
    make(tmp_path / "set", [5, 6], version="v3.0")
    for name in ("meta/episodes", "data", "videos"):
        (tmp_path / "away").mkdir(exist_ok=True)
        shutil.move(tmp_path / "set" / name, tmp_path / "away" / name.replace("/", "_"))
        (tmp_path / "set" / name).symlink_to(tmp_path / "away" / name.replace("/", "_"))
    split = open_source(tmp_path / "set").split("train")
    assert numbers(split.frames(1)) == list(range(5, 11))
    shutil.move(tmp_path / "away/meta_episodes/chunk-000", tmp_path / "away/chunk")
    (tmp_path / "away/meta_episodes/chunk-000").symlink_to(tmp_path / "away/chunk")
    assert open_source(tmp_path / "set").split("train").num_episodes == 2


def test_what_is_left_out_is_said(tmp_path, capsys):
    root = tmp_path / "data"
    write(root / "a.mp4", 4)
    array(root / "b.npy")
    (root / "c.wmv").write_bytes(b"video")
    (root / "d.mp4").symlink_to(tmp_path / "nowhere.mp4")
    (root / ".hidden").mkdir()
    shutil.copy(root / "a.mp4", root / ".hidden/e.mp4")
    shutil.copy(root / "a.mp4", root / "copy.mp4")
    os.link(root / "a.mp4", root / "hard.mp4")
    assert firsts(root, hz=3) == [0, 0, 0]
    said = capsys.readouterr().err
    assert "the 1 numpy files are left out" in said
    assert "c.wmv is left out" in said
    assert "d.mp4 in " in said
    assert "the link is broken" in said
    assert "a.mp4 and " in said
    assert "seem to be the same file" in said


def test_what_lies_beside_a_set_is_said(tmp_path, capsys):
    rlds = RldsFolder(tmp_path / "data")
    rlds.add("train", [rlds.episode(5)])
    folder = rlds.finish()
    shutil.copytree(folder, folder.with_name("0.9.0"))
    array(tmp_path / "data/other/a.npy")
    open_source(tmp_path / "data")
    said = capsys.readouterr().err
    assert "holds several versions: reading 1.0.0; pass the folder of another (0.9.0)" in said
    assert "other/a.npy is left out" in said
    open_source(folder)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("option", [{"include": "*"}, {"exclude": "x"}, {"image_key": "top"}])
def test_options_that_a_source_cannot_follow_are_refused(tmp_path, option):
    write(tmp_path / "a.mp4", 4)
    with pytest.raises(UserError, match="cannot be used here"):
        open_source(tmp_path / "a.mp4" if "image_key" not in option else tmp_path, hz=3, **option)


def test_walking_can_be_cut_short(tmp_path):
    for name in ("a/x", "b/y", ".h/z"):
        (tmp_path / name).mkdir(parents=True)
    seen = []
    for folder, subfolders, _ in walk(tmp_path):
        seen.append(folder.relative_to(tmp_path).as_posix())
        subfolders[:] = [name for name in subfolders if name != "a"]
    assert seen == [".", "b", "b/y"]


def test_files_beside_split_folders_are_said(tmp_path, capsys):
    for name in ("train/a.npy", "test/b.npy", "extra/c.npy"):
        array(tmp_path / name)
    assert list(open_source(tmp_path, hz=3).splits) == ["train"]
    assert "is in the folder of a split," in capsys.readouterr().err
    shutil.rmtree(tmp_path / "extra")
    assert list(open_source(tmp_path, hz=3).splits) == ["train", "test"]


@pytest.mark.parametrize("above", ["", "data/"])
def test_split_folders_in_capitals_and_from_above(tmp_path, above):
    for first, name in enumerate(("Train/a.npy", "Test/b.npy")):
        array(tmp_path / above / name, 4 * first)
    assert list(open_source(tmp_path, hz=3).splits) == ["train", "test"]


def test_globs_without_a_match_are_said(tmp_path, capsys):
    array(tmp_path / "a.npy")
    open_source(tmp_path, hz=3, exclude="typo*,b.npy", include="*")
    said = capsys.readouterr().err
    assert "--exclude 'typo*' matches none of the 1 files" in said
    assert "--exclude 'b.npy' matches none" in said
    assert "--include" not in said


@pytest.mark.parametrize("text", ["", " ", "DIR:0.5,", ",DIR"])
def test_a_source_without_a_name(tmp_path, text):
    array(tmp_path / "a.npy")
    with pytest.raises(UserError, match="empty text|has an empty entry"):
        open_source(text.replace("DIR", str(tmp_path)), hz=3)


def test_arrays_of_other_names_and_members_that_are_none(tmp_path, capsys):
    import zipfile

    frames = np.stack([frame(n) for n in range(3)])
    np.savez(tmp_path / "a.npz", frames=frames)
    np.savez(tmp_path / "b.npz", mask=frames)
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive:
        archive.writestr("README.txt", "notes")
    assert open_source(tmp_path, hz=3).split("train").num_episodes == 2
    assert "reading arrays of several names: 'frames' of " in capsys.readouterr().err
