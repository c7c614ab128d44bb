"""Tabletop data sets: bytes, keys, splits, renderers, and the errors that a user can cause."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from genie_datasets.base.errors import UserError
from genie_datasets.tabletop.episode import rollout
from genie_datasets.tabletop.factors import FAMILY_FACTORS, sample_scene
from genie_datasets.tabletop.generate import generate
from genie_datasets.tabletop.plan import apportion, count_scenes, plan
from genie_datasets.tabletop.pool import WorkerPool
from genie_datasets.tabletop.render import NO_GL, find_backend
from genie_datasets.tabletop.simulator import Simulator
from genie_datasets.tabletop.worker import Job

SIZE = (24, 32)
EASY = FAMILY_FACTORS["easy"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A small data set made by one worker: (folder, its arguments)."""
    arguments = {"episodes": 5, "seed": 3, "size": SIZE, "splits": {"train": 0.6, "test": 0.4}}
    out = tmp_path_factory.mktemp("tabletop")
    return generate(out, **arguments, workers=1, progress=False), arguments


def read(folder: Path, split: str) -> list[dict]:
    """Episodes as numpy, with stacked steps and encoded images."""
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(str(folder))
    dataset = builder.as_dataset(split=split, decoders={"steps": tfds.decode.SkipDecoding()})
    return list(tfds.as_numpy(dataset))


def decoded(jpegs) -> np.ndarray:
    import simplejpeg

    return np.stack([simplejpeg.decode_jpeg(jpeg) for jpeg in jpegs])


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)))


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_two_workers_write_the_same_bytes(made, tmp_path):
    folder, arguments = made
    again = generate(tmp_path / "again", **arguments, workers=2, progress=False)
    assert digests(again) == digests(folder)
    assert len(digests(folder)) == 5  # two shards, three json files


def test_another_seed_differs(made, tmp_path):
    folder, arguments = made
    other = generate(tmp_path, **(arguments | {"seed": 4, "episodes": 1, "splits": {"train": 1.0}}), progress=False)
    assert read(other, "train")[0]["steps"]["observation"]["image"][0] not in {
        episode["steps"]["observation"]["image"][0] for episode in read(folder, "train")
    }


def test_keys_are_those_of_fractal(made):
    import tensorflow_datasets as tfds

    features = tfds.builder_from_directory(str(made[0])).info.features
    step = features["steps"].feature
    observation = {
        "image": (*SIZE, 3),
        "natural_language_instruction": (),
        "natural_language_embedding": (512,),
        "base_pose_tool_reached": (7,),
        "gripper_closed": (1,),
        "gripper_closedness_commanded": (1,),
        "height_to_bottom": (1,),
        "orientation_box": (2, 3),
        "orientation_start": (4,),
        "robot_orientation_positions_box": (3, 3),
        "rotation_delta_to_go": (3,),
        "src_rotation": (4,),
        "vector_to_go": (3,),
        "workspace_bounds": (3, 3),
    }
    action = {
        "base_displacement_vector": (2,),
        "base_displacement_vertical_rotation": (1,),
        "gripper_closedness_action": (1,),
        "rotation_delta": (3,),
        "terminate_episode": (3,),
        "world_vector": (3,),
    }
    assert {key: feature.shape for key, feature in step["observation"].items()} == observation
    assert {key: feature.shape for key, feature in step["action"].items()} == action
    assert {"is_first", "is_last", "is_terminal", "reward", "truth"} <= set(step)
    assert {"aspects", "attributes", "episode_metadata", "steps"} == set(features)


def test_frames_open_through_the_index(made):
    from genie_datasets import open_source

    source = open_source(made[0])
    split = source.split("train")
    truth = read(made[0], "train")
    assert split.num_episodes == 3
    assert float(split.hz[0]) == 3.0
    assert split.frames(0).shape == (40, *SIZE, 3)
    np.testing.assert_array_equal(split.frames(1), decoded(truth[1]["steps"]["observation"]["image"]))
    np.testing.assert_array_equal(split.truth(1).position, truth[1]["steps"]["truth"]["ee_position"])


def test_steps_and_truth_are_coherent(made):
    folder, _ = made
    for split in ("train", "test"):
        for episode in read(folder, split):
            steps, truth = episode["steps"], episode["steps"]["truth"]
            assert steps["is_first"].tolist() == [True] + [False] * 39
            assert steps["is_last"].tolist() == [False] * 39 + [True]
            assert not steps["action"]["world_vector"][-1].any()
            assert steps["action"]["terminate_episode"][-1].tolist() == [1, 0, 0]
            position = steps["observation"]["base_pose_tool_reached"][:, :3]
            np.testing.assert_allclose(position, truth["ee_position"], atol=1e-6)
            moved = np.diff(truth["ee_position"], axis=0)
            asked = steps["action"]["world_vector"][:-1]
            assert np.sqrt(np.mean((moved - asked) ** 2)) < 0.006
            assert np.mean((truth["ee_image"] > 0) & (truth["ee_image"] < 1)) > 0.95
            assert truth["object_poses"][:, 0].any()
            assert not truth["object_poses"][:, 5].any()  # at most five objects


def test_states_are_float64_in_tfds(made):
    """TFDS stores float64 features as float32; states are stored as bytes."""
    import tensorflow_datasets as tfds

    from genie_datasets import open_source
    from genie_datasets.tabletop import read_recording

    recording = read_recording(open_source(made[0]).split("train"), 0)
    episode = next(iter(tfds.builder_from_directory(str(made[0])).as_dataset(split="train")))
    states = np.stack([step["truth"]["state"].numpy() for step in episode["steps"]])
    assert states.dtype == np.float64
    np.testing.assert_array_equal(states, recording.states)
    assert np.any(states != states.astype(np.float32))


def test_no_scene_is_in_two_splits(made):
    scenes = [{e["episode_metadata"]["scene"] for e in read(made[0], split)} for split in ("train", "test")]
    assert scenes[0]
    assert scenes[1]
    assert not scenes[0] & scenes[1]


def test_metadata_has_rate_and_renderer(made):
    metadata = json.loads((made[0] / "metadata.json").read_text())
    assert metadata["hz"] == 3.0
    assert metadata["renderer"] == ("raycast" if find_backend() == NO_GL else f"gl-{find_backend()}")


def test_play_is_unpredictable():
    """A linear prediction of play's next translation from the last two explains less than 30 % of it."""
    scenes = [Simulator(sample_scene("easy", scene), None) for scene in range(3)]
    moves = [rollout(scenes[i % 3], 50 + i, "play").actions[:-1, :3] for i in range(8)]
    past = np.concatenate([np.concatenate([m[1:-1], m[:-2]], axis=1) for m in moves])
    future = np.concatenate([m[2:] for m in moves])
    residual = future - past @ np.linalg.lstsq(past, future, rcond=None)[0]
    assert 1 - (residual**2).sum() / (future**2).sum() < 0.3
    sizes = np.linalg.norm(future, axis=1)
    assert np.mean((sizes > 0.02) & (sizes < 0.056)) > 0.7


def test_ray_caster_agrees_with_opengl():
    """The frames of both renderers are the same except for edges."""
    job = Job(0, "train", "easy", 1, 9, (64, 64), EASY)
    with WorkerPool(1, NO_GL) as pool:
        (raycast,) = pool.episodes([job])
    assert raycast.renderer == "raycast"
    frames = decoded(raycast.jpegs)
    assert frames.std() > 30
    if find_backend() == NO_GL:
        pytest.skip("OpenGL does not work here")
    with WorkerPool(1, find_backend()) as pool:
        (opengl,) = pool.episodes([job])
    np.testing.assert_array_equal(opengl.position, raycast.position)
    assert psnr(decoded(opengl.jpegs), frames) > 29


def test_environment_can_disable_opengl():
    """MUJOCO_GL=disable is obeyed, in a script without `if __name__ == "__main__"`."""
    code = """
from genie_datasets.tabletop.factors import FAMILY_FACTORS
from genie_datasets.tabletop.pool import WorkerPool
from genie_datasets.tabletop.render import find_backend
from genie_datasets.tabletop.worker import Job
with WorkerPool(1, find_backend()) as pool:
    print(*(e.renderer for e in pool.episodes([Job(0, "train", "easy", 1, 0, (16, 16), FAMILY_FACTORS["easy"])])))
"""
    env = {**os.environ, "MUJOCO_GL": "disable"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "raycast\n"), done.stderr


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"size": (8, 64)}, "8x64"),
        ({"size": (64, 5000)}, "64x5000"),
        ({"splits": {"train": 0.5, "test": 0.4}}, "add up to 1"),
        ({"splits": {"train": 1.2, "test": -0.2}}, "above 0"),
        ({"splits": {"tr ain": 1.0}}, "tr ain"),
        ({"splits": {}}, "train=0.8,test=0.2"),
        ({"episodes": 1}, "at least 2"),
        ({"seed": -1}, "got -1"),
        ({"seed": 10**20}, "from 0 to 1000000000"),
        ({"family": "hard"}, "unknown tabletop family 'hard'"),
        ({"scenes": 1}, "from 2 .* to 4"),
        ({"scenes": 5}, "from 2 .* to 4"),
        ({"episodes": 10**9, "size": (1024, 1024)}, "not enough disk space"),
    ],
)
def test_invalid_arguments(tmp_path, change, says):
    arguments = {"episodes": 4, "seed": 0, "progress": False} | change
    with pytest.raises(UserError, match=says):
        generate(tmp_path / "out", **arguments)


def test_invalid_folders(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="not an empty folder"):
        generate(tmp_path, 2, 0)
    with pytest.raises(UserError, match="not an empty folder"):
        generate(tmp_path / "file", 2, 0)
    with pytest.raises(UserError, match="cannot write to"):
        generate(tmp_path / "file" / "below", 2, 0)


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    from genie_datasets.tabletop.writer import TabletopWriter

    def full(self, path, episode):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(TabletopWriter, "write", full)
    with pytest.raises(UserError, match="No space left on device"):
        generate(tmp_path, 2, 0, (16, 16), workers=1, progress=False)
    assert not list(tmp_path.iterdir())


def test_a_worker_that_dies_is_named(tmp_path):
    """A job that ends every worker raises an error that names the episode."""
    with WorkerPool(1, NO_GL) as pool, pytest.raises(UserError, match="episode 7 "):
        list(pool.episodes([Job(7, "train", "no such family", 0, 0, (16, 16), EASY)]))


def test_apportioned_counts_add_up():
    assert apportion(600, [0.8, 0.2]) == [480, 120]
    assert apportion(3, [0.98, 0.01, 0.01]) == [1, 1, 1]
    assert apportion(7, [0.5, 0.5]) in ([4, 3], [3, 4])
    for total in range(3, 40):
        counts = apportion(total, [0.7, 0.2, 0.1])
        assert sum(counts) == total
        assert min(counts) >= 1


@pytest.mark.parametrize("scenes", [20, 60])
def test_each_scene_is_compiled_once(scenes):
    """A worker that keeps the latest 20 scenes compiles each scene once."""
    kept: dict[int, None] = {}
    compiled = 0
    for job in plan(240, 5, (64, 64), {"train": 1.0}, "easy", scenes=scenes):
        if job.scene not in kept:
            compiled += 1
        kept.pop(job.scene, None)
        kept[job.scene] = None
        while len(kept) > 20:
            del kept[next(iter(kept))]
    assert compiled == scenes


@pytest.mark.parametrize("family", FAMILY_FACTORS)
@pytest.mark.parametrize("episodes", [2, 7, 120])
def test_plans(family, episodes):
    jobs = plan(episodes, 5, (64, 64), {"train": 0.7, "test": 0.3}, family)
    assert [job.index for job in jobs] == list(range(episodes))
    assert len({job.seed for job in jobs}) == episodes
    train, test = ({job.scene for job in jobs if job.split == split} for split in ("train", "test"))
    assert train
    assert test
    assert not train & test
    assert len(train | test) == count_scenes(family, episodes, 2)
    assert not {job.seed for job in jobs} & {job.seed for job in plan(episodes, 6, (64, 64), {"a": 1.0}, family)}
