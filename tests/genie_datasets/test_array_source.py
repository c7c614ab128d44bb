"""Folders of numpy files."""

import pickle

import numpy as np
import pytest

from genie_datasets import build_frame_cache, open_source
from genie_datasets.base.errors import UserError


@pytest.fixture
def folder(tmp_path, kit):
    root = tmp_path / "arrays"
    root.mkdir()
    np.savez(root / "pick_can_1.npz", image=kit.moving_square(5, seed=0), wrist=kit.moving_square(5, seed=9),
             action=np.zeros((5, 3, 2, 3)))  # fmt: skip
    np.savez_compressed(root / "pick_can_2.npz", whatever=kit.moving_square(7, seed=1).astype(np.int64))
    np.save(root / "wipe.npy", kit.moving_square(9, seed=2))
    return root


def test_frames_words_and_caches(folder, tmp_path, kit):
    source = open_source(folder, hz=5)
    assert source.kind == "arrays"
    split = pickle.loads(pickle.dumps(source.split("train")))
    assert split.num_frames.tolist() == [5, 7, 9]
    assert split.hz.tolist() == [5] * 3
    assert split.image_size == (32, 40)
    for episode, length in enumerate((5, 7, 9)):
        np.testing.assert_array_equal(split.frames(episode), kit.moving_square(length, seed=episode))
    np.testing.assert_array_equal(split.frames(2, np.array([8, 0])), kit.moving_square(9, seed=2)[[8, 0]])
    assert [split.instruction(e) for e in range(3)] == ["pick can", "pick can", "wipe"]
    cache = build_frame_cache(split, tmp_path / "cache", (16, 16), progress=False)
    np.testing.assert_array_equal(cache.frames(1), split.frames(1, None, (16, 16)))
    assert open_source(folder, hz=5, exclude="*.npy", include="*1.npz").split("train").num_episodes == 1


def test_another_camera(folder, kit):
    split = open_source(folder, hz=5, include="*1.npz", image_key="wrist").split("train")
    np.testing.assert_array_equal(split.frames(0), kit.moving_square(5, seed=9))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"image": np.zeros((4, 8, 8, 3))}, r"bad.npz .*no frames .*image \(4, 8, 8, 3\) float64.*--exclude"),
        ({"a": np.zeros((4, 8, 8, 3), int), "b": np.zeros((4, 8, 8, 3), int)}, "several arrays of frames"),
        ({}, "it holds nothing"),
    ],
)
def test_files_without_frames_are_named(folder, content, message):
    np.savez(folder / "bad.npz", **content)
    with pytest.raises(UserError, match=message):
        open_source(folder, hz=5)


def test_values_that_are_not_pixels_are_named(folder):
    np.savez(folder / "bad.npz", image=np.full((4, 8, 8, 3), 256))
    with pytest.raises(UserError, match=r"bad.npz .*values from 256 to 256, expected pixels from 0 to 255"):
        open_source(folder, hz=5).split("train").frames(0)


def test_real_samples_of_two_robots(realdata):
    split = open_source(realdata / "ivideogpt", hz=3).split("train")
    assert split.num_frames.tolist() == [30, 22]
    assert split.frames(1).shape == (22, 256, 320, 3)
    assert split.frames(0, None, (64, 64)).std() > 20
