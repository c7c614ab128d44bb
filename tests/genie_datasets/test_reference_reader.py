"""The index gives bit for bit the frames of TFDS and rlds.transformations."""

import numpy as np
import pytest
import simplejpeg

from genie_datasets.base.errors import UserError
from genie_datasets.base.fit import crop_box
from genie_datasets.sources.decode import decode_image
from genie_datasets.sources.opening import open_source

BRIDGE = "octo_bridge_rlds"


@pytest.fixture(scope="module")
def both_bridge(realdata, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GENIE_ROBOTICS_CACHE", str(tmp_path_factory.mktemp("cache")))
        return open_source(realdata / BRIDGE), open_source(realdata / BRIDGE, reader="rlds")


def check_equal(index, reference, episodes, size):
    np.testing.assert_array_equal(index.num_frames, reference.num_frames)
    np.testing.assert_array_equal(index.hz, reference.hz)
    for episode in episodes:
        np.testing.assert_array_equal(index.frames(episode), reference.frames(episode))
        np.testing.assert_array_equal(index.frames(episode, size=size), reference.frames(episode, size=size))
        assert index.instruction(episode) == reference.instruction(episode)


def test_real_bridge_shards_read_the_same_both_ways(both_bridge):
    index, reference = both_bridge
    assert list(index.splits) == list(reference.splits) == ["train", "val"]
    for name in index.splits:
        assert index.split(name).num_episodes == 25
        assert index.split(name).num_frames.tolist() == [10] * 25
        check_equal(index.split(name), reference.split(name), [0, 1, 24, 7], (32, 32))


def test_tabletop_reads_the_same_both_ways(tabletop_rlds):
    index, reference = open_source(tabletop_rlds), open_source(tabletop_rlds, reader="rlds")
    assert list(index.splits) == list(reference.splits)
    for name in index.splits:
        check_equal(index.split(name), reference.split(name), range(index.split(name).num_episodes), (24, 24))


def test_hand_written_rlds_reads_the_same_both_ways_also_shrunk(rlds_dir):
    index, reference = open_source(rlds_dir), open_source(rlds_dir, reader="rlds")
    check_equal(index.split("train"), reference.split("train"), [3, 0], (8, 8))  # decoded at half size


def test_batches_of_rlds_transformations_are_our_clips(both_bridge):
    index, reference = (source.split("train") for source in both_bridge)
    windows = list(reference.clips(4, shift=3, gap_frames=2, size=(64, 64)))
    assert len(windows) == 25 * 2
    for number, window in enumerate(windows):
        ids = np.arange(0, 8, 2) + 3 * (number % 2)
        np.testing.assert_array_equal(window, index.frames(number // 2, ids))


def test_a_resized_frame_is_the_antialiased_one(realdata):
    """Mean within 0.5 of 255 of TensorFlow's area average of the fully decoded image, on an RT-1 episode."""
    import tensorflow as tf

    episode = np.load(realdata / "ivideogpt/inference/samples/fractal_sample.npz")["image"]
    for frame in episode.astype(np.uint8)[::5]:
        data = simplejpeg.encode_jpeg(np.ascontiguousarray(frame), 95)
        full = tf.io.decode_jpeg(data, dct_method="INTEGER_ACCURATE").numpy()
        np.testing.assert_array_equal(decode_image(data), full)
        top, left, height, width = crop_box(*full.shape[:2], (64, 64))
        cut = full[top : top + height, left : left + width].astype(np.float32)
        reference = tf.image.resize(cut, (64, 64), method="area", antialias=True).numpy()
        assert np.abs(decode_image(data, (64, 64)) - reference).mean() < 0.5


def test_truth_of_the_real_shards_is_a_path_in_meters(both_bridge):
    truth = both_bridge[0].split("train").truth(3)
    assert truth.position.shape == (10, 3)
    assert 0.1 < np.linalg.norm(truth.position, axis=1).mean() < 0.6  # a WidowX reaches 0.55 m
    assert np.abs(truth.motion(np.arange(10))["base"]).max() < 0.1
    assert both_bridge[1].split("train").truth(3) is None


def test_truth_of_the_tabletop_is_complete(tabletop_rlds):
    split = open_source(tabletop_rlds).split("train")
    truth = split.truth(0)
    length = split.num_frames[0]
    shapes = [a.shape for a in (truth.position, truth.image_position, truth.rotation, truth.gripper)]
    assert shapes == [(length, 3), (length, 2), (length, 3), (length,)]
    assert isinstance(truth.scene, int)
    motion = truth.motion(np.arange(length))
    assert set(motion) == {"base", "image", "rotation", "gripper"}
    np.testing.assert_allclose(motion["base"].sum(0), truth.position[-1] - truth.position[0], atol=1e-9)


def test_the_reference_reader_names_what_it_cannot_open(tmp_path, rlds_dir):
    with pytest.raises(UserError, match="--include cannot be used here: --reader rlds reads whole splits"):
        open_source(rlds_dir, reader="rlds", include="*")
    (rlds_dir / "dataset_info.json").unlink()
    with pytest.raises(UserError, match="TFDS cannot open"):
        open_source(rlds_dir, reader="rlds")
