"""Folders of videos, with one file per episode."""

import pickle

import numpy as np
import pytest

from genie_datasets.base.errors import UserError
from genie_datasets.sources import file_split
from genie_datasets.sources.file_split import instruction_of
from genie_datasets.sources.opening import open_source
from genie_datasets.sources.video import source as video_source
from genie_datasets.sources.video.file import _decode


def test_the_view_of_a_folder(video_dir, kit):
    source = open_source(video_dir, hz=3)
    assert (source.name, source.kind, list(source.splits)) == ("videos", "video", ["train"])
    split = source.split("train")
    names = [split.episode_name(e) for e in range(3)]
    assert names == ["scene1/open-drawer.mp4", "scene1/pick_can_2.mp4", "scene2/push it.mp4"]
    assert [split.instruction(e) for e in range(3)] == ["open drawer", "pick can", "push it"]
    assert split.num_frames.tolist() == [20, 12, 16]
    assert split.hz.tolist() == [3.0] * 3
    assert split.image_size == (32, 48)
    assert split.truth(0) is None
    frames = split.frames(0)
    original = kit.moving_square(20, 32, 48, seed=1)
    assert np.abs(frames.astype(int) - original).mean() < 4  # the codec is lossy
    np.testing.assert_array_equal(split.frames(0, np.array([19, 0, 7])), frames[[19, 0, 7]])
    assert split.frames(0, np.array([1]), (16, 16)).shape == (1, 16, 16, 3)
    assert split.frames(0, np.array([], int), (16, 16)).shape == (0, 16, 16, 3)


def test_clips_in_order_decode_each_file_once(video_dir, monkeypatch):
    split = open_source(video_dir, hz=3).split("train")
    decoded = []
    original = video_source.fitted
    monkeypatch.setattr(video_source, "fitted", lambda path, *rest: decoded.append(path) or original(path, *rest))
    for episode in range(3):
        for start in range(8):
            split.frames(episode, np.arange(start, start + 4), (16, 16))
    assert decoded == split.files


def test_a_video_too_long_to_keep_still_reads(video_dir, monkeypatch):
    split = open_source(video_dir, hz=3).split("train")
    expected = split.frames(0, np.array([5, 2]))
    monkeypatch.setattr(file_split, "KEEP_BYTES", 1000)
    fresh = pickle.loads(pickle.dumps(split))
    np.testing.assert_array_equal(fresh.frames(0, np.array([5, 2])), expected)
    assert not fresh._decoded


def test_frames_are_counted_once(video_dir, monkeypatch):
    open_source(video_dir, hz=3)
    monkeypatch.setattr(video_source, "probe", None)
    assert open_source(video_dir, hz=3).split("train").num_frames.tolist() == [20, 12, 16]


@pytest.mark.parametrize(
    ("globs", "left"),
    [
        ({"include": "scene1/*"}, 2),
        ({"exclude": "scene1/*"}, 1),
        ({"include": "*drawer*,*push*"}, 2),
        ({"include": "*.mp4", "exclude": ["push*", "pick*"]}, 1),
    ],
)
def test_files_can_be_chosen(video_dir, globs, left):
    assert open_source(video_dir, hz=3, **globs).split("train").num_episodes == left


def test_without_hz_the_containers_rate_comes_with_a_warning(video_dir, kit, capsys):
    assert open_source(video_dir).split("train").hz.tolist() == [12.0] * 3
    assert "assuming the 12 frames/s" in capsys.readouterr().err
    kit.write_video(video_dir / "fractal20220817_eps_00001.mp4", kit.moving_square(4))
    chosen = open_source(video_dir, include="fractal*").split("train")
    assert chosen.hz.tolist() == [3.0]
    assert "assuming 3 Hz for " in capsys.readouterr().err


def test_folders_named_like_splits_are_splits(tmp_path, kit):
    for name in ("train/a.mp4", "train/b.mp4", "test/c.mp4"):
        kit.write_video(tmp_path / name, kit.moving_square(4))
    source = open_source(tmp_path, hz=3)
    assert {name: split.num_episodes for name, split in source.splits.items()} == {"train": 2, "test": 1}


def test_one_video_is_a_source(video_dir):
    assert open_source(video_dir / "scene1" / "pick_can_2.mp4", hz=3).split("train").num_frames.tolist() == [12]


def test_instruction_is_the_name_without_the_take(tmp_path):
    assert instruction_of(tmp_path / "move_7up_can-near apple_12.mp4") == "move 7up can near apple"
    assert instruction_of(tmp_path / "00012.mp4") == "00012"


def test_one_bad_file_among_several_is_named(video_dir):
    (video_dir / "scene1" / "broken.mp4").write_bytes(b"this is no video" * 50)
    with pytest.raises(UserError, match=r"broken.mp4 cannot be read.*--exclude 'scene1/broken.mp4'"):
        open_source(video_dir, hz=3)
    assert open_source(video_dir, hz=3, exclude="scene1/broken.mp4").split("train").num_episodes == 3


def test_a_file_that_ends_early_is_named_when_it_is_read(video_dir, monkeypatch):
    split = open_source(video_dir, hz=3).split("train")
    monkeypatch.setattr("genie_datasets.sources.video.file._decode", lambda *a: iter(list(_decode(*a))[:9]))
    with pytest.raises(UserError, match=r"open-drawer.mp4.*frame 9 of 20 cannot be decoded.*--exclude"):
        split.frames(0)
