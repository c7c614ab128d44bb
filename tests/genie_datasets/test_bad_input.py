"""Mistakes of users end in one line on standard error, which names the cause and the remedy, and exit status 2."""

import json

import pytest

from genie_datasets.base.errors import UserError
from genie_datasets.sources.opening import open_source
from genie_robotics.cli import main


def truncate(rlds_dir, kit):
    shard = sorted(rlds_dir.glob("*-train.*"))[1]
    shard.write_bytes(shard.read_bytes()[:-500])
    return rlds_dir, ["train.tfrecord-00001-of-00002", "cut off", "--exclude"]


def truncate_between_records(rlds_dir, kit):
    from genie_datasets.sources.rlds.tfrecord import record_spans

    shard = sorted(rlds_dir.glob("*-train.*"))[0]
    data = shard.read_bytes()
    shard.write_bytes(data[: next(record_spans(data))[1] + 4])
    return rlds_dir, ["train.tfrecord-00000-of-00002", "holds 1 episodes", "expected the 2 of dataset_info.json"]


def garbage_shard(rlds_dir, kit):
    shard = sorted(rlds_dir.glob("*-train.*"))[0]
    shard.write_bytes(b"<html>404 not found</html>" * 100)
    return rlds_dir, ["train.tfrecord-00000-of-00002", "not a TFRecord", "--exclude"]


def no_features_json(rlds_dir, kit):
    (rlds_dir / "features.json").unlink()
    return rlds_dir, ["no features.json", str(rlds_dir)]


def broken_features_json(rlds_dir, kit):
    (rlds_dir / "features.json").write_text('{"half": ')
    return rlds_dir, ["features.json", "is not a TFDS features.json"]


def no_episodes_in_features_json(rlds_dir, kit):
    (rlds_dir / "features.json").write_text(json.dumps(kit.leaf("image")))
    return rlds_dir, ["features.json", "no feature 'steps'"]


def no_image_key(rlds_dir, kit):
    text = (rlds_dir / "features.json").read_text()
    (rlds_dir / "features.json").write_text(text.replace('"image": {"shape"', '"tensor": {"shape"'))
    return rlds_dir, ["no image feature", "steps/observation/natural_language_instruction"]


def no_shards(rlds_dir, kit):
    for shard in rlds_dir.glob("*.tfrecord*"):
        shard.unlink()
    return rlds_dir, ["no shard", "download"]


def no_episode_in_the_shards(rlds_dir, kit):
    (rlds_dir / "dataset_info.json").unlink()
    for shard in rlds_dir.glob("*.tfrecord*"):
        shard.write_bytes(b"")
    return rlds_dir, ["holds no episode"]


def corrupt_jpeg(rlds_dir, kit):
    shard = sorted(rlds_dir.glob("*-test.*"))[0]
    data = bytearray(shard.read_bytes())
    at = data.index(b"\xff\xd8\xff")
    data[at : at + 40] = bytes(40)
    shard.write_bytes(bytes(data))
    return rlds_dir, ["episode 0 of shard ", "step 0", "test.tfrecord-00000-of-00001", "--exclude"]


def array_record(rlds_dir, kit):
    for shard in rlds_dir.glob("*.tfrecord*"):
        shard.rename(shard.with_name(shard.name.replace("tfrecord", "array_record")))
    return rlds_dir, ["is not a complete array_record file", "download it again"]


def two_data_sets(rlds_dir, kit):
    root = rlds_dir.parent.parent
    (root / "other" / "0.1.0").mkdir(parents=True)
    (root / "other" / "0.1.0" / "features.json").write_text("{}")
    return root, ["several data sets", "other/0.1.0"]


def not_a_video(rlds_dir, kit):
    folder = rlds_dir / "videos"
    kit.write_video(folder / "good.mp4", kit.moving_square(4))
    (folder / "bad.mp4").write_text("I am text")
    return folder, ["bad.mp4", "--exclude 'bad.mp4'"]


def cut_video(rlds_dir, kit):
    folder = rlds_dir / "videos"
    kit.write_video(folder / "cut.mp4", kit.moving_square(20))
    (folder / "cut.mp4").write_bytes((folder / "cut.mp4").read_bytes()[:-1000])
    return folder, ["cut.mp4", "--exclude 'cut.mp4'"]


def empty_folder(rlds_dir, kit):
    (rlds_dir / "empty").mkdir()
    return rlds_dir / "empty", ["holds no robot video"]


def missing_path(rlds_dir, kit):
    return rlds_dir / "typo", ["there is no", "typo"]


def a_file(rlds_dir, kit):
    return sorted(rlds_dir.glob("*.tfrecord*"))[0], ["is a file", "folder"]


CASES = [
    truncate,
    truncate_between_records,
    garbage_shard,
    no_features_json,
    broken_features_json,
    no_episodes_in_features_json,
    no_image_key,
    no_shards,
    no_episode_in_the_shards,
    corrupt_jpeg,
    array_record,
    two_data_sets,
    not_a_video,
    cut_video,
    empty_folder,
    missing_path,
    a_file,
]


@pytest.mark.parametrize("spoil", CASES, ids=lambda spoil: spoil.__name__)
def test_a_bad_source_is_one_line_and_status_2(spoil, rlds_dir, kit, tmp_path, capsys):
    path, words = spoil(rlds_dir, kit)
    assert main(["data", "cache", str(path), str(tmp_path / "out"), "--size", "16x16"]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1
    for word in words:
        assert word in lines[0]
    assert "Traceback" not in lines[0]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["inspec", "SRC"], "unknown command 'data inspec'; expected one of inspect, cache, tabletop"),
        (["inspect", "SRC", "--reader", "fast"], "index, rlds"),
        (["inspect", "SRC", "--hz", "0"], "--hz must be positive frames per second, got 0"),
        (["inspect", "SRC", "--image-key", "wrist"], "steps/observation/image"),
        (["inspect", "SRC", "--include", "*.mp4"], "leaves none"),
        (["cache", "SRC", "OUT", "--size", "64"], "HEIGHTxWIDTH"),
        (["cache", "SRC", "OUT", "--fit", "squash"], "crop, letterbox"),
        (["cache", "SRC", "SRC"], "is not a frame cache"),
        (["tabletop", "OUT", "--episodes", "0"], "--episodes must be at least 1"),
        (["tabletop", "OUT", "--episodes", "4", "--size", "big"], "HEIGHTxWIDTH"),
        (["tabletop", "OUT", "--episodes", "4", "--workers", "0"], "--workers must be at least 1"),
        (["tabletop", "OUT", "--episodes", "4", "--split", "train"], "NAME=SHARE"),
        (["tabletop", "OUT", "--episodes", "4", "--split", "train=0.5,test=0.2"], "add up to 1"),
        (["tabletop", "OUT", "--episodes", "4", "--split", "train=1.5,test=-0.5"], "above 0"),
        (["tabletop", "OUT", "--episodes", "4", "--split", "a=0.5,a=0.5"], "once"),
    ],
)
def test_bad_options_are_one_line_and_status_2(argv, words, rlds_dir, tmp_path, capsys):
    (rlds_dir / "train").mkdir()
    (rlds_dir / "train" / "notes.txt").write_text("mine")  # where `cache SRC SRC` would write
    places = {"SRC": str(rlds_dir), "OUT": str(tmp_path / "out")}
    assert main(["data", *(places.get(word, word) for word in argv)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert words in error


def test_a_missing_split_names_those_there_are(rlds_dir):
    with pytest.raises(UserError, match="no split 'val': choose one of train, test"):
        open_source(rlds_dir).split("val")
