"""LeRobotDataset folders, v2.1 and v3.0, with video files and with images in the table, written by hand."""

import json
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from genie_datasets import open_source
from genie_datasets.base.errors import UserError
from genie_datasets.sources.lerobot.meta import fill, find_cameras
from genie_datasets.sources.lerobot.truth import TruthColumns
from genie_datasets.writers.lerobot import LeRobotWriter

LENGTHS = (12, 20, 16)
FPS = 5
CAMERA = "observation.images.top"


def truth(episode: int, kit) -> np.ndarray:
    return kit.moving_square(LENGTHS[episode], 32, 48, episode)


def write_info(root, version: str, **more) -> None:
    three = version == "v3.0"
    file = "chunk-{chunk_index:03d}/file-{file_index:03d}" if three else "chunk-{episode_chunk:03d}/"
    info = {
        "codebase_version": version, "fps": FPS, "chunks_size": 2, "total_episodes": len(LENGTHS),
        "data_path": f"data/{file}.parquet" if three else f"data/{file}episode_{{episode_index:06d}}.parquet",
        "video_path": f"videos/{{video_key}}/{file}.mp4"
        if three
        else f"videos/{file}{{video_key}}/episode_{{episode_index:06d}}.mp4",
        "splits": {"train": "0:2", "test": "2:3"},
        "features": {CAMERA: {"dtype": "video", "shape": [32, 48, 3]}, "action": {"dtype": "float32", "shape": [7]}},
        **more,
    }  # fmt: skip
    (root / "meta").mkdir(parents=True, exist_ok=True)
    (root / "meta/info.json").write_text(json.dumps(info))


def write_table(path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.Table.from_pylist(rows), path)


@pytest.fixture
def v2(tmp_path, kit):
    root = tmp_path / "v2"
    write_info(root, "v2.1")
    lines = [{"episode_index": i, "tasks": [f"task {i}"], "length": n} for i, n in enumerate(LENGTHS)]
    (root / "meta/episodes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for i in range(3):
        kit.write_video(root / f"videos/chunk-{i // 2:03d}/{CAMERA}/episode_{i:06d}.mp4", truth(i, kit), FPS)
    return root


@pytest.fixture
def v3(tmp_path, kit):
    """Episodes 0 and 1 share the first video file, 2 has another."""
    root = tmp_path / "v3"
    write_info(root, "v3.0")
    folder = root / f"videos/{CAMERA}/chunk-000"
    kit.write_video(folder / "file-000.mp4", np.concatenate([truth(0, kit), truth(1, kit)]), FPS)
    kit.write_video(folder / "file-001.mp4", truth(2, kit), FPS)
    write_table(root / "meta/episodes/chunk-000/file-000.parquet", [row(i) for i in range(3)])
    return root


def row(i: int) -> dict:
    return {
        "episode_index": i, "length": LENGTHS[i], "tasks": [f"task {i}"], "data/chunk_index": 0, "data/file_index": 0,
        f"videos/{CAMERA}/chunk_index": 0, f"videos/{CAMERA}/file_index": i // 2,
        f"videos/{CAMERA}/from_timestamp": LENGTHS[0] / FPS if i == 1 else 0.0,
        f"videos/{CAMERA}/to_timestamp": 9.0, "stats/action/min": [0.0],
    }  # fmt: skip


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_episodes_splits_and_frames(version, request, kit):
    source = open_source(request.getfixturevalue(version))
    assert source.kind == "lerobot"
    assert {name: split.num_frames.tolist() for name, split in source.splits.items()} == {
        "train": [12, 20],
        "test": [16],
    }
    for split, first in ((source.split("train"), 0), (source.split("test"), 2)):
        for episode in range(split.num_episodes):
            frames = split.frames(episode)
            assert frames.shape == (LENGTHS[first + episode], 32, 48, 3)
            assert np.abs(frames.astype(int) - truth(first + episode, kit)).mean() < 4, "the codec's loss"
            assert split.instruction(episode) == f"task {first + episode}"
            assert split.hz[episode] == FPS
    train = pickle.loads(pickle.dumps(source.split("train")))
    some = train.frames(1, np.array([19, 0, 7]))
    np.testing.assert_array_equal(some, train.frames(1)[[19, 0, 7]])
    assert train.frames(1, np.array([3]), (16, 16)).shape == (1, 16, 16, 3)
    assert open_source(request.getfixturevalue(version), hz=2).split("train").hz[0] == 2


def test_an_episode_inside_a_file_begins_at_its_own_first_frame(v3, kit):
    """Two successive episodes have different backgrounds, which a frame too early or too late would show."""
    train = open_source(v3).split("train")
    for shown, true in ((train.frames(0)[-1], truth(0, kit)[-1]), (train.frames(1)[0], truth(1, kit)[0])):
        assert np.abs(shown.astype(int) - true).mean() < 4
        assert np.abs(shown.astype(int) - truth(2, kit)[0]).mean() > 8, "the backgrounds differ by more than the codec"


def test_images_in_the_table(tmp_path, kit):
    root = tmp_path / "images"
    write_info(
        root,
        "v2.1",
        features={"observation.image": {"dtype": "image", "shape": [32, 48, 3]}},
        splits={},
        video_path=None,
    )
    lines = [{"episode_index": i, "tasks": [f"task {i}"], "length": n} for i, n in enumerate(LENGTHS)]
    (root / "meta/episodes.jsonl").write_text("\n".join(map(json.dumps, lines)))
    for i in range(3):
        rows = [{"episode_index": i, "observation.image": {"bytes": kit.png(f), "path": None}} for f in truth(i, kit)]
        write_table(root / f"data/chunk-{i // 2:03d}/episode_{i:06d}.parquet", rows)
    split = open_source(root).split("train")
    assert split.image_size == (32, 48)
    np.testing.assert_array_equal(split.frames(1), truth(1, kit))
    np.testing.assert_array_equal(split.frames(2, np.array([5, 1])), truth(2, kit)[[5, 1]])
    write_table(root / "data/chunk-000/episode_000001.parquet", rows[:3])
    with pytest.raises(
        UserError,
        match=r"episode_000001.parquet, episode 1 cannot be read \(0 rows, expected the 20 frames of the metadata\)",
    ):
        open_source(root).split("train").frames(1)
    (root / "data/chunk-000/episode_000000.parquet").write_bytes(b"PAR1 but no more")
    with pytest.raises(UserError, match=r"episode_000000.parquet, episode 0 cannot be read"):
        open_source(root).split("train").frames(0)


def test_part_of_the_files_is_enough(v2, capsys):
    (v2 / f"videos/chunk-000/{CAMERA}/episode_000000.mp4").unlink()
    source = open_source(v2)
    assert source.split("train").num_frames.tolist() == [20]
    assert "1 of 3 episodes have no file" in capsys.readouterr().err
    for file in v2.glob("videos/**/*.mp4"):
        file.unlink()
    with pytest.raises(
        UserError, match=r"metadata of 3 episodes but none of their files: download some, such as videos/"
    ):
        open_source(v2)


def test_include_and_exclude_choose_files(v3):
    assert set(open_source(v3, exclude="*file-001.mp4").splits) == {"train"}
    assert set(open_source(v3, include="*file-001.mp4").splits) == {"test"}


def test_the_camera(v2, kit):
    info = json.loads((v2 / "meta/info.json").read_text())
    wrist = {"dtype": "video", "shape": [32, 48, 3]}
    depth = {"dtype": "video", "info": {"video.is_depth_map": True}}
    features = {"observation.images.wrist": wrist, **info["features"], "observation.images.top_depth": depth}
    ranked = [camera.key for camera in find_cameras(features, None, v2)]
    assert ranked == [CAMERA, "observation.images.wrist"]
    write_info(v2, "v2.1", features=features)
    assert CAMERA in open_source(v2).split("train").episode_name(0)
    with pytest.raises(
        UserError, match=r"no camera 'front': pass one of its cameras, observation.images.wrist, .*top$"
    ):
        open_source(v2, image_key="front")
    with pytest.raises(UserError, match="none of their files: download some, such as .*wrist"):
        open_source(v2, image_key="wrist")
    # a camera of which there are files is preferred
    features = {CAMERA.replace("top", "image"): wrist, **info["features"]}
    write_info(v2, "v2.1", features=features)
    assert CAMERA in open_source(v2).split("train").episode_name(0)


def test_inconsistent_data_sets_are_one_line(v2, v3):
    def refuses(root, message):
        with pytest.raises(UserError, match=message) as caught:
            open_source(root)
        assert "\n" not in str(caught.value)

    episodes = v2 / "meta/episodes.jsonl"
    text = episodes.read_text()
    episodes.write_text(text.replace('"length": 20', '"length": 30'))
    refuses(v2, "episode_000001.mp4 has 20 frames, expected the 30 of episode 1")
    episodes.write_text(text + "{")
    refuses(v2, "episodes.jsonl, line 4 is not an episode")
    episodes.unlink()
    refuses(v2, "episodes.jsonl cannot be read")
    for wrong, message in (
        ({"codebase_version": "v1.6"}, "unknown LeRobot layout 'v1.6'"),
        ({"codebase_version": None}, "unknown LeRobot layout 'None'"),
        ({"fps": 0}, "are not consistent"),
        ({"features": {}}, "lists no camera"),
        ({"features": [1]}, "are not consistent"),
        ({"video_path": "/etc/{video_key}"}, "leads out of the data set"),
        ({"video_path": "{video_key}/../../x"}, "leads out of the data set"),
        ({"video_path": "{nonsense}"}, "are not consistent"),
    ):
        write_info(v3, "v3.0")
        write_info(v3, **{"version": "v3.0", **wrong})
        refuses(v3, message)
    write_info(v3, "v3.0")
    write_table(v3 / "meta/episodes/chunk-000/file-000.parquet", [{"episode_index": 0, "length": 3}])
    refuses(v3, "are not consistent")
    (v3 / "meta/episodes/chunk-000/file-000.parquet").write_bytes(b"PAR1")
    refuses(v3, "is not a table of episodes")
    (v3 / "meta/info.json").write_text("[]")
    refuses(v3, "is not a JSON object")
    (v3 / "meta/info.json").write_text("{")
    refuses(v3, "is not JSON")


def test_a_path_template_is_filled_and_nothing_else():
    assert fill("a/{x:03d}/{key}.mp4", {"x": 7, "key": "k"}) == "a/007/k.mp4"
    assert fill("{x}-{x:06d}", {"x": 12}) == "12-000012"
    with pytest.raises(KeyError):
        fill("{x.__class__}/{y}", {"x": 1})


@pytest.mark.parametrize(
    ("features", "key", "columns"),
    [
        ({"observation.state": {"shape": [4], "names": ["grip", "x", "y", "z"]}}, "observation.state", (1, 2, 3)),
        ({"observation.state": {"shape": [3], "names": {"motors": ["x", "y", "z"]}}}, "observation.state", (0, 1, 2)),
        (
            {"action.eef_position": {"shape": [3]}, "state.eef_position": {"shape": [3]}},
            "state.eef_position",
            (0, 1, 2),
        ),
        ({"observation.state": {"shape": [6], "names": ["shoulder", "elbow"]}}, None, None),
        ({"action.eef_position": {"shape": [3]}}, None, None),
        ({"observation.state": {"shape": [6]}}, None, None),
    ],
)
def test_features_that_hold_the_end_effector(features, key, columns):
    found = TruthColumns.find(features)
    assert (found and (found.key, found.columns)) == (key and (key, columns))


def test_true_motion_is_read_from_the_table(tmp_path, kit):
    rng = np.random.default_rng(0)
    states = [rng.normal(size=(n, 4)).astype(np.float32) for n in LENGTHS]
    with LeRobotWriter(tmp_path / "set", hz=FPS, version="v2.1") as writer:
        for i, state in enumerate(states):
            writer.add(truth(i, kit), f"task {i}", {"observation.state": state})
    info = json.loads((tmp_path / "set/meta/info.json").read_text())
    assert open_source(tmp_path / "set").split("train").truth(1) is None, "without names nobody knows what it is"
    info["features"]["observation.state"]["names"] = ["x", "y", "z", "gripper"]
    (tmp_path / "set/meta/info.json").write_text(json.dumps(info))
    split = pickle.loads(pickle.dumps(open_source(tmp_path / "set").split("train")))
    for i, state in enumerate(states):
        np.testing.assert_allclose(split.truth(i).position, state[:, :3])
    table = tmp_path / "set/data/chunk-000/episode_000001.parquet"
    parquet.write_table(parquet.read_table(table).slice(0, 7), table)
    with pytest.raises(
        UserError,
        match=r"episode_000001.parquet: the true motion .* of episode 1 .*7 rows, expected the 20 frames",
    ):
        split.truth(1)
    table.unlink()
    with pytest.raises(UserError, match=r"episode_000001.parquet: the true motion .*download it again"):
        split.truth(1)


def test_the_path_in_a_real_set_is_in_meters(realdata):
    split = open_source(realdata / "internvla_lerobot").split("train")
    path = split.truth(0).position
    assert path.shape == (split.num_frames[0], 3)
    assert 0.1 < np.linalg.norm(path, axis=1).mean() < 0.9  # a Franka reaches 0.85 m
    assert 0 < np.abs(np.diff(path, axis=0)).max() < 0.05, "in a thirtieth of a second"
