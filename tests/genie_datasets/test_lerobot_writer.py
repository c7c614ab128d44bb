"""A written LeRobotDataset is read back by our reader and by Hugging Face's `datasets`."""

import json

import numpy as np
import pyarrow.parquet as parquet
import pytest

from genie_datasets import open_source
from genie_datasets.base.errors import UserError
from genie_datasets.writers.lerobot import VERSIONS, LeRobotWriter

LENGTHS = (7, 4, 9)


def fields(length: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "action": rng.normal(size=(length, 3)).astype(np.float32),
        "latent_action": rng.integers(0, 8, length),
        "phase": np.array([f"step {t}" for t in range(length)]),
    }


@pytest.fixture(params=VERSIONS)
def written(request, tmp_path, kit):
    root = tmp_path / "set"
    with LeRobotWriter(root, hz=3, version=request.param) as writer:
        for i, length in enumerate(LENGTHS):
            frames = kit.moving_square(length, 32, 48, i)
            writer.add(frames, f"task {i % 2}", fields(length, i), "train" if i < 2 else "test")
    return root


def test_our_reader_gets_back_frames_instructions_and_splits(written, kit):
    source = open_source(written)
    assert source.kind == "lerobot"
    assert {name: split.num_frames.tolist() for name, split in source.splits.items()} == {"train": [7, 4], "test": [9]}
    for name, episodes in (("train", (0, 1)), ("test", (2,))):
        split = source.split(name)
        for local, i in enumerate(episodes):
            assert np.abs(split.frames(local).astype(int) - kit.moving_square(LENGTHS[i], 32, 48, i)).mean() < 3
            assert split.instruction(local) == f"task {i % 2}"
            assert split.hz[local] == 3


def test_the_tables_hold_the_fields_and_the_reserved_columns(written):
    tables = [parquet.read_table(path).to_pydict() for path in sorted(written.glob("data/**/*.parquet"))]
    start = 0
    for i, (table, length) in enumerate(zip(tables, LENGTHS, strict=True)):
        for name, value in fields(length, i).items():
            np.testing.assert_array_equal(np.array(table[name]), value)
        assert table["frame_index"] == list(range(length))
        assert table["index"] == list(range(start, start + length))
        assert set(table["episode_index"]) == {i}
        assert set(table["task_index"]) == {i % 2}
        np.testing.assert_allclose(table["timestamp"], np.arange(length) / 3, rtol=1e-6)
        start += length
    info = json.loads((written / "meta/info.json").read_text())
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (3, 20, 2)
    assert info["splits"] == {"train": "0:2", "test": "2:3"}
    assert info["features"]["action"] == {"dtype": "float32", "shape": [3], "names": None}
    assert info["features"]["latent_action"]["shape"] == [1]


def test_statistics_of_all_are_those_of_the_rows_together(written):
    stats = json.loads((written / "meta/stats.json").read_text())
    rows = np.concatenate([fields(length, i)["action"] for i, length in enumerate(LENGTHS)])
    for name, expected in (("mean", rows.mean(0)), ("std", rows.std(0)), ("min", rows.min(0)), ("max", rows.max(0))):
        np.testing.assert_allclose(stats["action"][name], expected, rtol=1e-5, atol=1e-6)
    assert stats["action"]["count"] == [20]
    assert np.shape(stats["observation.images.main"]["mean"]) == (3, 1, 1)
    assert "phase" not in stats


def test_hugging_face_s_datasets_reads_the_tables(written):
    datasets = pytest.importorskip("datasets")
    files = [str(path) for path in sorted(written.glob("data/**/*.parquet"))]
    table = datasets.Dataset.from_parquet(files, cache_dir=str(written.parent / "hf"))
    assert len(table) == 20
    np.testing.assert_allclose(table[8]["action"], fields(4, 1)["action"][1], rtol=1e-6)


def test_a_task_is_found_by_its_text_in_pandas(tmp_path, kit):
    pandas = pytest.importorskip("pandas")
    with LeRobotWriter(tmp_path / "set", hz=3) as writer:
        for task in ("wave", "pick the can"):
            writer.add(kit.moving_square(4, 32, 48), task)
    tasks = pandas.read_parquet(tmp_path / "set/meta/tasks.parquet")
    assert tasks.loc["pick the can"].task_index == 1


def test_an_interrupted_writer_leaves_no_data_set(tmp_path, kit):
    writer = LeRobotWriter(tmp_path / "cut", hz=3)
    writer.add(kit.moving_square(5, 32, 48))
    writer.__exit__(RuntimeError, RuntimeError(), None)
    assert not (tmp_path / "cut/meta/info.json").exists()
    assert open_source(tmp_path / "cut", hz=3).kind == "video", "what is whole in it is a folder of videos"
    with pytest.raises(UserError, match="is not empty: choose a new folder"):
        LeRobotWriter(tmp_path / "cut", hz=3)


def test_impossible_episodes_are_refused(tmp_path, kit):
    frames = kit.moving_square(5, 32, 48)
    with pytest.raises(UserError, match="unknown LeRobot version 'v1.0'"):
        LeRobotWriter(tmp_path / "a", hz=3, version="v1.0")
    with pytest.raises(UserError, match="none was added"):
        LeRobotWriter(tmp_path / "b", hz=3).finish()
    writer = LeRobotWriter(tmp_path / "c", hz=3)
    for wrong, message in (
        ((frames[:0], "", {}), "L above 0"),
        ((frames.astype(float), "", {}), "uint8"),
        ((frames[:, :31], "", {}), "even height and width"),
        ((frames, "", {"action": np.zeros(4)}), "one row per frame, 5"),
        ((frames, "", {"index": np.zeros(5)}), "is reserved"),
    ):
        with pytest.raises(UserError, match=message):
            writer.add(*wrong)
    writer.add(frames, "", {"action": np.zeros(5)})
    with pytest.raises(UserError, match="other fields or another size"):
        writer.add(frames, "", {})
    writer.add(frames, "", {"action": np.ones(5)}, split="test")
    with pytest.raises(UserError, match="split 'train' was followed by another"):
        writer.add(frames, "", {"action": np.ones(5)})
