"""array_record shards give the same as TFRecord shards of the same records; damage is named."""

import json
import pickle

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from genie_datasets import open_source
from genie_datasets.base.errors import UserError
from genie_datasets.sources.rlds.tfrecord import record_spans


@pytest.fixture
def pair(rlds_dir, tmp_path):
    """(TFRecord folder, the same as array_record)."""
    other = tmp_path / "array" / rlds_dir.parent.name / "1.0.0"
    other.mkdir(parents=True)
    for shard in rlds_dir.glob("*.tfrecord*"):
        data = shard.read_bytes()
        writer = ArrayRecordWriter(str(other / shard.name.replace("tfrecord", "array_record")), "group_size:1")
        for start, end in record_spans(data):
            writer.write(data[start:end])
        writer.close()
    for name in ("features.json", "dataset_info.json"):
        text = (rlds_dir / name).read_text()
        info = json.loads(text)
        if "fileFormat" in info:
            text = json.dumps({**info, "fileFormat": "array_record"})
        (other / name).write_text(text)
    return rlds_dir, other


def test_the_same_episodes_frames_and_records(pair):
    plain, packed = (open_source(folder) for folder in pair)
    assert list(plain.splits) == list(packed.splits) == ["train", "test"]
    for name, split in plain.splits.items():
        other = pickle.loads(pickle.dumps(packed.split(name)))
        assert other.num_frames.tolist() == split.num_frames.tolist()
        for episode in range(split.num_episodes):
            np.testing.assert_array_equal(other.frames(episode), split.frames(episode))
            assert other.instruction(episode) == split.instruction(episode)
            assert other.record(episode) == split.record(episode)
    again = open_source(pair[1]).split("train")  # from the index in the cache
    np.testing.assert_array_equal(
        again.frames(3, np.array([2, 0]), (16, 16)), plain.split("train").frames(3, np.array([2, 0]), (16, 16))
    )


def test_the_reference_reader_says_that_it_cannot(pair):
    pytest.importorskip("tensorflow")
    with pytest.raises(UserError, match="which TFDS cannot read in order: leave out --reader rlds"):
        open_source(pair[1], reader="rlds")


@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_a_shard_cut_off_is_named(pair, keep):
    shard = sorted(pair[1].glob("*-train.*"))[1]
    data = shard.read_bytes()
    shard.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(UserError, match=rf"shard .*{shard.name} .*: download it again, or leave it out with --exclude"):
        open_source(pair[1])
    assert open_source(pair[1], exclude=shard.name).split("train").num_episodes == 2


def test_a_shard_that_loses_records_after_it_was_indexed(pair):
    split = open_source(pair[1]).split("test")
    (shard,) = pair[1].glob("*-test.*")
    shard.write_bytes(b"")
    with pytest.raises(UserError, match=r"is not a complete array_record file: download it again"):
        split.frames(0)


def test_two_formats_in_one_folder(pair):
    shard = next(pair[0].glob("*-test.*"))
    (pair[1] / shard.name).write_bytes(shard.read_bytes())
    with pytest.raises(UserError, match="shards of several formats, .*array_record.* and .*tfrecord"):
        open_source(pair[1])
