"""Written RLDS is read back by TFDS, by `rlds` and by our reader."""

import numpy as np
import pytest

from genie_datasets import open_source
from genie_datasets.base.errors import UserError
from genie_datasets.writers import rlds as rlds_writer
from genie_datasets.writers.rlds import RldsWriter

LENGTHS = (7, 4, 9)


def fields(length: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "action": rng.normal(size=(length, 3)),
        "latent_action": rng.integers(0, 8, length),
        "observation/state": rng.normal(size=(length, 2, 2)).astype(np.float32),
        "observation/touches": rng.random(length) < 0.5,
        "phase": np.array([f"step {t}" for t in range(length)]),
    }


@pytest.fixture(params=["jpeg", "png"])
def written(request, tmp_path, kit, monkeypatch):
    monkeypatch.setattr(rlds_writer, "SHARD_BYTES", 1)
    with RldsWriter(tmp_path / "out", "my_robot", hz=4, image_format=request.param, citation="me") as writer:
        for i, length in enumerate(LENGTHS):
            metadata = {"success": i == 1, "operator": f"nobody {i}", "seed": i}
            split = "train" if i < 2 else "test"
            writer.add(kit.moving_square(length, seed=i), f"task {i}", fields(length, i), split, metadata)
        assert not writer.folder.exists()
    assert [path.name for path in (tmp_path / "out/my_robot").iterdir()] == ["1.0.0"]
    return writer.folder


def test_tfds_reads_every_field_back(written, kit):
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(str(written))
    assert builder.info.splits["train"].num_examples == 2
    assert builder.info.splits["test"].num_examples == 1
    assert builder.info.metadata["hz"] == 4
    assert builder.info.citation == "me"
    episodes = [*builder.as_dataset("train", shuffle_files=False), *builder.as_dataset("test")]
    for i, episode in enumerate(episodes):
        metadata = episode["episode_metadata"]
        assert bool(metadata["success"]) == (i == 1)
        assert metadata["operator"].numpy().decode() == f"nobody {i}"
        assert int(metadata["seed"]) == i
        steps = list(episode["steps"].as_numpy_iterator())
        expected = fields(LENGTHS[i], i)
        for name in ("action", "latent_action", "phase"):
            got = np.stack([step[name] for step in steps])
            if name == "phase":
                assert [text.decode() for text in got] == expected[name].tolist()
            else:
                np.testing.assert_allclose(got, expected[name], rtol=1e-6)
        for name in ("state", "touches"):
            got = np.stack([step["observation"][name] for step in steps])
            np.testing.assert_array_equal(got, expected[f"observation/{name}"])
        frames = np.stack([step["observation"]["image"] for step in steps]).astype(int)
        error = np.abs(frames - kit.moving_square(LENGTHS[i], seed=i)).mean()
        stored = builder.info.features["steps"]["observation"]["image"].encoding_format
        assert error == 0 if stored == "png" else error < 3
        flags = [(bool(s["is_first"]), bool(s["is_last"]), bool(s["is_terminal"])) for s in steps]
        last = LENGTHS[i] - 1
        assert flags == [(t == 0, t == last, t == last) for t in range(last + 1)]


def test_our_readers_get_the_same(written, kit):
    source, reference = open_source(written), open_source(written, reader="rlds")
    assert {name: split.num_frames.tolist() for name, split in source.splits.items()} == {"train": [7, 4], "test": [9]}
    for name, first in (("train", 0), ("test", 2)):
        split = source.split(name)
        assert split.hz.tolist() == [4.0] * split.num_episodes
        for episode in range(split.num_episodes):
            assert split.instruction(episode) == f"task {first + episode}"
            np.testing.assert_array_equal(split.frames(episode), reference.split(name).frames(episode))
    assert len(list(written.glob("*-train.tfrecord-*-of-00002"))) == 2  # a shard is full after SHARD_BYTES


def test_the_same_episodes_give_the_same_bytes(tmp_path, kit):
    for out in ("a", "b"):
        with RldsWriter(tmp_path / out, "twin", hz=3) as writer:
            writer.add(kit.moving_square(5), "go", fields(5, 0))
    shards = [next((tmp_path / out).rglob("*.tfrecord-*")).read_bytes() for out in ("a", "b")]
    assert shards[0] == shards[1]


def test_an_interrupted_writer_leaves_nothing(tmp_path, kit):
    writer = RldsWriter(tmp_path, "cut", hz=3)
    writer.add(kit.moving_square(5))
    writer.__exit__(RuntimeError, RuntimeError(), None)
    assert not any(path.is_file() for path in tmp_path.rglob("*"))
    writer = RldsWriter(tmp_path, "cut", hz=3)
    writer.add(kit.moving_square(5))  # and then killed
    with pytest.raises(UserError, match="holds no robot video|there is no|not finished"):
        open_source(tmp_path / "cut")
    with RldsWriter(tmp_path, "cut", hz=3) as writer:
        writer.add(kit.moving_square(6))
    assert open_source(tmp_path / "cut").split("train").num_frames.tolist() == [6]


def test_impossible_episodes_are_refused(tmp_path, kit):
    frames = kit.moving_square(5)
    for name, more, message in (
        ("My Robot", {}, "is not a TFDS name"),
        ("robot", {"image_format": "gif"}, "expected jpeg or png"),
    ):
        with pytest.raises(UserError, match=message):
            RldsWriter(tmp_path, name, hz=3, **more)
    with pytest.raises(UserError, match="none was added"):
        RldsWriter(tmp_path, "none", hz=3).finish()
    writer = RldsWriter(tmp_path, "robot", hz=3)
    for arguments, message in (
        ((frames[:0],), "L above 0"),
        ((frames.astype(float),), "uint8"),
        ((frames, "", {"action": np.zeros(4)}), "one row per frame, 5"),
        ((frames, "", {"is_first": np.zeros(5)}), "cannot be a field"),
        ((frames, "", {"a/": np.zeros(5)}), "cannot be a field"),
        ((frames, "", {}, "a-b"), "split 'a-b' is not a name"),
        ((frames, "", {}, "train", {"x": np.zeros(3)}), "one number or text"),
    ):
        with pytest.raises(UserError, match=message):
            writer.add(*arguments)
    writer.add(frames, "", {"action": np.zeros((5, 2))})
    for arguments in ((frames, "", {}), (frames[:, :16], "", {"action": np.zeros((5, 2))})):
        with pytest.raises(UserError, match="other fields or another size"):
            writer.add(*arguments)
    writer.finish()
    with pytest.raises(UserError, match="exists: choose another folder"):
        RldsWriter(tmp_path, "robot", hz=3)


def test_an_unfinished_data_set_is_named(tmp_path, kit):
    writer = RldsWriter(tmp_path / "out", "my_robot", hz=4)
    writer.add(kit.moving_square(5, seed=0), "task", fields(5, 0))  # and the process is killed
    with pytest.raises(
        UserError, match=r"my_robot/1\.0\.0\.incomplete is not finished, because its writer was stopped"
    ):
        open_source(tmp_path / "out")
