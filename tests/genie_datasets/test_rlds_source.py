"""RLDS folders through the index: frames, episodes, truth, and the cached index."""

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import simplejpeg
from scipy.spatial.transform import Rotation

from genie_datasets.base.errors import UserError
from genie_datasets.sources.opening import open_source
from genie_datasets.sources.rlds import episode_index


def test_the_view_of_a_data_set(rlds_dir, kit):
    source = open_source(rlds_dir)
    assert (source.name, source.kind, list(source.splits)) == ("fractal_test", "rlds", ["train", "test"])
    train = source.split("train")
    assert train.num_frames.tolist() == [5, 20, 6, 18]
    assert train.hz.tolist() == [3.0] * 4  # the rate of names that begin with fractal
    assert train.image_size == (32, 40)
    assert train.instruction(2) == "move 2"
    assert train.episode_name(3) == "fractal_test-train.tfrecord-00001-of-00002#1"
    for episode, seed in enumerate([0, 1, 2, 3]):
        stored = [simplejpeg.decode_jpeg(kit.jpeg(f)) for f in kit.moving_square(train.num_frames[episode], seed=seed)]
        np.testing.assert_array_equal(train.frames(episode), stored)
    np.testing.assert_array_equal(train.frames(1, np.array([7, 3, 3])), train.frames(1)[[7, 3, 3]])
    assert train.frames(1, np.array([], int)).shape == (0, 32, 40, 3)
    with pytest.raises(IndexError):
        train.frames(0, np.array([5]))


def test_folders_above_open_too_and_the_newest_version_wins(rlds_dir):
    mark = open_source(rlds_dir).fingerprint
    assert open_source(rlds_dir.parent).fingerprint == open_source(rlds_dir.parent.parent).fingerprint == mark
    newer = rlds_dir.parent / "1.10.0"
    newer.mkdir()
    for file in rlds_dir.iterdir():
        (newer / file.name).write_bytes(file.read_bytes())
    assert open_source(rlds_dir.parent).path == str(newer)


def test_a_name_is_looked_up_in_the_tfds_data_dir(rlds_dir, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(rlds_dir.parent.parent))
    assert open_source("fractal_test").path == str(rlds_dir)


def test_png_images_are_read(rlds_folder, kit):
    rlds_folder.add("train", [rlds_folder.episode(4, encode=kit.png)])
    frames = open_source(rlds_folder.finish()).split("train").frames(0)
    np.testing.assert_array_equal(frames, kit.moving_square(4))


def test_the_index_is_kept_and_follows_the_content(rlds_dir, monkeypatch):
    built = []
    original = episode_index.build
    monkeypatch.setattr(episode_index, "build", lambda *args: built.append(1) or original(*args))
    first = open_source(rlds_dir)
    assert len(built) == 2  # one per split
    again = open_source(rlds_dir)
    assert len(built) == 2
    assert again.fingerprint == first.fingerprint
    np.testing.assert_array_equal(again.split("train").frames(1), first.split("train").frames(1))
    shard = next(rlds_dir.glob("*-test.*"))
    assert b"move 4" in shard.read_bytes()
    shard.write_bytes(shard.read_bytes().replace(b"move 4", b"move 9"))  # the same name and size
    changed = open_source(rlds_dir)
    assert changed.split("test").instruction(0) == "move 9"
    assert len(built) == 3
    assert changed.fingerprint != first.fingerprint
    assert changed.split("train").fingerprint == first.split("train").fingerprint


def test_a_half_written_index_is_built_again(rlds_dir, monkeypatch, tmp_path):
    monkeypatch.setenv("GENIE_ROBOTICS_CACHE", str(tmp_path / "cache"))
    first = open_source(rlds_dir).split("train")
    for file in (tmp_path / "cache").rglob("*.npz"):
        file.write_bytes(file.read_bytes()[:200])
    np.testing.assert_array_equal(open_source(rlds_dir).split("train").num_frames, first.num_frames)


def test_the_index_path_does_not_import_tensorflow(rlds_dir):
    code = (
        "import sys; from genie_datasets import ClipDataset, open_source;"
        f"clips = ClipDataset(open_source({str(rlds_dir)!r}).split('train'), 16, size=(16, 16));"
        "clips[0]; assert not {'tensorflow', 'tensorflow_datasets', 'rlds', 'av'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_split_travels_to_workers(rlds_dir):
    split = open_source(rlds_dir).split("train")
    split.frames(0)
    copy = pickle.loads(pickle.dumps(split))
    np.testing.assert_array_equal(copy.frames(3), split.frames(3))


def test_which_image_key(rlds_folder, kit):
    other = kit.leaf("image", (32, 40, 3), "uint8")
    rlds_folder.leaves = {"steps/observation/wrist": other, "steps/observation/image_0": other}
    new = rlds_folder.episode(4, 0)
    frames = new.pop(kit.IMAGE)
    rlds_folder.add("train", [{**new, "steps/observation/image_0": frames, "steps/observation/wrist": frames[::-1]}])
    folder = rlds_folder.finish()
    front = open_source(folder).split("train")
    wrist = open_source(folder, image_key="wrist").split("train")
    np.testing.assert_array_equal(front.frames(0), wrist.frames(0)[::-1])
    assert front.fingerprint != wrist.fingerprint
    with pytest.raises(UserError, match=r"no image feature 'side'.*image_0.*wrist"):
        open_source(folder, image_key="side")


def test_shards_can_be_left_out(rlds_dir):
    kept = open_source(rlds_dir, exclude="*-00001-of-00002").split("train")
    assert kept.num_frames.tolist() == [5, 20]
    only = open_source(rlds_dir, include="*-test*")
    assert list(only.splits) == ["test"]
    with pytest.raises(UserError, match="leaves none of the 3 files"):
        open_source(rlds_dir, include="*.zip")


def test_part_of_the_shards_is_read_with_a_note(rlds_dir, capsys):
    next(rlds_dir.glob("*train*00000-of-00002")).unlink()
    assert open_source(rlds_dir).split("train").num_frames.tolist() == [6, 18]
    assert "1 of the 2 shards" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "metadata", "asked", "expected"),
    [
        ("unheard_of", None, None, 3.0),
        ("unheard_of", {"hz": 7.0}, None, 7.0),
        ("kuka_x", None, None, 10.0),
        ("kuka_x", {"hz": 7.0}, 2.5, 2.5),
    ],
)
def test_the_control_rate(tmp_path, rlds_folder, capsys, name, metadata, asked, expected):
    folder = type(rlds_folder)(tmp_path / "other", name)
    folder.add("train", [folder.episode(3)])
    path = folder.finish()
    if metadata:
        (path / "metadata.json").write_text(json.dumps(metadata))
    assert open_source(path, hz=asked).split("train").hz.tolist() == [expected]
    guessed = name == "unheard_of" and metadata is None
    assert ("--hz" in capsys.readouterr().err) == guessed


def test_truth_of_rt1(rlds_folder, kit):
    rlds_folder.leaves["steps/observation/base_pose_tool_reached"] = kit.leaf("tensor", (7,))
    rlds_folder.leaves["steps/observation/gripper_closed"] = kit.leaf("tensor", (1,))
    turns = Rotation.from_rotvec(np.array([0.0, 0.1, 0.3, 0.6])[:, None] * [0, 0, 1])
    pose = np.concatenate([np.arange(12.0).reshape(4, 3), turns.as_quat()], axis=1)
    extra = {
        "steps/observation/base_pose_tool_reached": pose.ravel(),
        "steps/observation/gripper_closed": np.array([0, 0, 0.5, 1.0]),
    }
    rlds_folder.add("train", [rlds_folder.episode(4, **extra)])
    truth = open_source(rlds_folder.finish()).split("train").truth(0)
    np.testing.assert_allclose(truth.position, pose[:, :3])
    motion = truth.motion(np.array([0, 2, 3]))
    np.testing.assert_allclose(motion["base"], [[6, 6, 6], [3, 3, 3]])
    np.testing.assert_allclose(motion["rotation"], [[0, 0, 0.3], [0, 0, 0.3]], atol=1e-6)
    np.testing.assert_allclose(motion["gripper"], [[0.5], [0.5]])
    assert "image" not in motion
    assert truth.state.shape == (4, 7)


def test_truth_of_bridge_and_of_data_that_only_has_a_state(tmp_path, rlds_folder, kit):
    state = np.array([[0.1, 0.2, 0.3, 0, 0, 0, 1], [0.2, 0.2, 0.1, 0, 0, 0.5, 0]], "f4")
    truths = {}
    for name in ("bridge_dataset", "some_robot"):
        folder = type(rlds_folder)(tmp_path / "other", name)
        folder.leaves["steps/observation/state"] = kit.leaf("tensor", (7,))
        folder.add("train", [folder.episode(2, **{"steps/observation/state": state.ravel()})])
        truths[name] = open_source(folder.finish(), hz=5).split("train").truth(0)
    assert truths["some_robot"] is None
    motion = truths["bridge_dataset"].motion(np.arange(2))
    np.testing.assert_allclose(motion["base"], [[0.1, 0, -0.2]], atol=1e-6)
    np.testing.assert_allclose(motion["rotation"], [[0, 0, 0.5]], atol=1e-6)
    np.testing.assert_allclose(motion["gripper"], [[1.0]])  # Bridge stores the opening


def test_the_instruction_of_language_table_is_a_row_of_codes(rlds_folder, kit):
    rlds_folder.leaves[kit.INSTRUCTION] = kit.leaf("tensor", (512,), "int32")
    codes = np.zeros((2, 512), np.int64)
    codes[:, :9] = list(b"push left")
    rlds_folder.add("train", [{**rlds_folder.episode(2), kit.INSTRUCTION: codes}])
    assert open_source(rlds_folder.finish()).split("train").instruction(0) == "push left"
