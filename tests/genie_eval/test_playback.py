"""Playback: the chain from code to robot, checked with recorded actions, planted perfect codes, and shuffled codes."""

import dataclasses
import json
import shutil
import subprocess
import sys
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

from genie_datasets import open_source
from genie_datasets.base.errors import UserError
from genie_datasets.clips.labels import Labels, draw_labels, read_actions
from genie_eval.playback import PlaybackConfig, play_back
from genie_eval.playback.codes import check_gap, episode_codes, transition_codes
from genie_eval.playback.drift import Oracle, donors
from genie_eval.playback.label_curve import label_curve, translation_r2
from genie_eval.playback.labeled import LabeledTransitions, draw
from genie_eval.playback.starts import choose_starts
from genie_eval.playback.summary import answer, row_at
from genie_robotics.cli import main
from genie_robotics.labeling import ActionMap
from tests.genie_robotics.conftest import random_genie, tiny_config

QUICK = ["--num-labels", "60", "--horizon", "5", "--curve-draws", "5", "--curve-rollouts", "1", "--videos", "1"]


@pytest.fixture(autouse=True)
def no_opengl(monkeypatch):
    """Other tests of this process may load TensorFlow, which crashes together with Mesa's OpenGL."""
    monkeypatch.setenv("MUJOCO_GL", "disable")


@pytest.fixture
def source(tabletop_rlds):
    return open_source(str(tabletop_rlds))


@pytest.fixture
def genie():
    return random_genie(tiny_config("add"))


class PerfectModel:
    """Infers the k-means cluster of the true action, which it looks up by the two frames of a transition."""

    def __init__(self, source, num_codes: int = 8):
        self.config = SimpleNamespace(image_size=(16, 16), fit="crop", gap=None, clip_length=6, num_actions=num_codes)
        true, keys = [], []
        for split in source.splits.values():
            for episode in range(split.num_episodes):
                keys += self.keys(split.frames(episode, size=(16, 16)))
                true.append(read_actions(split, episode)[:-1])
        true = np.concatenate(true)
        self.codes = dict(zip(keys, Oracle(true, num_codes, seed=0).assign(true).tolist(), strict=True))

    @staticmethod
    def keys(frames):
        return [a.tobytes() + b.tobytes() for a, b in pairwise(frames)]

    def infer_actions(self, frames):
        return np.array([[self.codes[key] for key in self.keys(clip)] for clip in frames])

    def generate(self, frames, codes, seed=0):
        return np.repeat(frames[:, -1:], codes.shape[1], axis=1)


def planted(count: int, seed: int, noise: float = 0.01):
    """Codes of 4 known mean actions, with noise: (codes, actions, means)."""
    rng = np.random.default_rng(seed)
    means = np.zeros((4, 7))
    means[:3, :3] = 0.04 * np.eye(3)
    means[3, 3:] = [0.2, 0, -0.1, 1]
    codes = rng.integers(4, size=count)
    actions = means[codes]
    actions[:, :6] += noise * rng.normal(size=(count, 6))
    return codes, actions, means


# The map


def test_the_map_recovers_the_means():
    codes, actions, means = planted(4000, seed=0)
    table = ActionMap.fit(codes, actions, num_codes=5)
    np.testing.assert_allclose(table.mean[:4], means, atol=0.002)
    assert table.count.sum() == 4000
    assert table.unlabeled == [4]
    np.testing.assert_array_equal(table.decode([4, 3])[0], np.zeros(7))
    assert table.decode([4, 3])[1, 6] == 1, "the gripper command is the most frequent one, never a mean"
    assert table.rows()[3]["gripper"] == "closes"


def test_gripper_takes_the_most_frequent_command_and_keeps_on_a_tie():
    actions = np.zeros((5, 7))
    actions[:, 6] = [1, 1, -1, 0, 0]
    assert ActionMap.fit(np.zeros(5, int), actions, 1).mean[0, 6] == 0
    actions[3, 6] = 1
    assert ActionMap.fit(np.zeros(5, int), actions, 1).mean[0, 6] == 1


def test_mode_sample_decodes_to_labels_of_the_code():
    codes, actions, _ = planted(50, seed=1)
    table = ActionMap.fit(codes, actions, 5, mode="sample")
    drawn = table.decode(np.array([2] * 30 + [4]), np.random.default_rng(0))
    assert {tuple(row) for row in drawn[:30]} <= {tuple(row) for row in actions[codes == 2]}
    assert len(np.unique(drawn[:30], axis=0)) > 3
    assert not drawn[30].any()


@pytest.mark.parametrize(
    ("codes", "shape", "mode", "message"),
    [
        ([0, 1], (2, 6), "mean", "actions must be (2, 7)"),
        ([0, 8], (2, 7), "mean", "code 8 does not exist; this model has codes 0 to 7"),
        ([0.5, 1], (2, 7), "mean", "(n,) integers"),
        ([0, 1], (2, 7), "median", "mean, sample"),
    ],
)
def test_invalid_maps_are_refused(codes, shape, mode, message):
    with pytest.raises(UserError) as error:
        ActionMap.fit(codes, np.zeros(shape), 8, mode)
    assert message in str(error.value)


# Codes, starts and labels


def test_codes_of_labeled_transitions_equal_those_of_whole_episodes(genie, source):
    split = source.split("test")
    whole = [episode_codes(genie, split, e) for e in range(split.num_episodes)]
    assert len(np.unique(np.concatenate(whole))) > 1
    labels = draw_labels(split, 40, seed=0)
    order = np.random.default_rng(0).permutation(40)
    found = transition_codes(genie, split, labels.episode[order], labels.step[order])
    expected = [whole[e][t] for e, t in zip(labels.episode[order], labels.step[order], strict=True)]
    assert found.tolist() == expected


def test_a_code_must_be_one_step(source):
    genie = SimpleNamespace(config=SimpleNamespace(gap=1.0))
    with pytest.raises(UserError, match=r"spans 1.0 s, 3 steps at 3 Hz"):
        check_gap(genie, source.split("test"))
    genie.config.gap = 1 / 3
    check_gap(genie, source.split("test"))


def test_starts_are_shortened_or_refused():
    split = SimpleNamespace(name="test", num_frames=np.array([9, 9, 40]), num_episodes=3)
    starts = choose_starts(split, 10, 15, seed=0)
    assert {s.horizon for s in starts} == {8}
    assert sorted(s.episode for s in starts) == [0, 1, 2]
    assert all(s.step + s.horizon < split.num_frames[s.episode] for s in starts)
    split.num_frames = np.array([2, 2, 2])
    with pytest.raises(UserError, match="no episodes long enough"):
        choose_starts(split, 10, 15, seed=0)


def test_shuffled_codes_are_from_another_episode_and_each_is_used_once():
    donor = donors(7, seed=3)
    assert sorted(donor) == list(range(7))
    assert (donor != np.arange(7)).all()


def test_labels_of_a_single_split_are_from_other_episodes(source):
    alone = dataclasses.replace(source, splits={"test": source.split("test")})
    labels = draw(alone, "test", {0, 2}, 1000, seed=0)
    assert labels.split == "test"
    assert set(labels.episode) == {1, 3}
    actions = read_actions(source.split("test"), 3)
    row = int(np.flatnonzero(labels.episode == 3)[5])
    np.testing.assert_array_equal(labels.action[row], actions[labels.step[row]])


# The label curve


def test_more_labels_are_better_and_have_a_narrower_interval():
    codes, actions, _ = planted(1000, seed=2, noise=0.02)
    held, true, means = planted(500, seed=3, noise=0.02)
    curve = label_curve(LabeledTransitions(codes, actions), held, true, 4, draws=50, seed=0)
    assert [row["labels"] for row in curve] == [10, 20, 50, 100, 200, 500, 1000]
    assert curve[-1]["r2"]["mean"] > curve[0]["r2"]["mean"] + 0.1
    assert abs(curve[-1]["r2"]["mean"] - translation_r2(means[held], true)) < 0.01, "that of the true means"
    widths = [row["interval95"]["mean"][1] - row["interval95"]["mean"][0] for row in curve]
    assert widths[0] > 3 * widths[3] > 3 * widths[6] > 0
    assert curve[-1]["r2"]["sample"] < curve[-1]["r2"]["mean"] - 0.1


def test_the_curve_ends_at_the_number_of_labels():
    codes, actions, _ = planted(60, seed=2)
    curve = label_curve(LabeledTransitions(codes, actions), codes, actions, 4, 3, 0)
    assert [row["labels"] for row in curve] == [10, 20, 50]


# The robot


def test_perfect_codes_drive_the_robot_and_shuffled_ones_do_not(source, tmp_path):
    config = PlaybackConfig(num_labels=150, fit_labels=150, horizon=8, curve_draws=3, curve_rollouts=1, videos=0)
    result = play_back(PerfectModel(source), source, tmp_path, config, progress=False)
    drift = {name: row_at(result["drift"], 8, control=name)["drift_cm"] for name in result["controls"]}
    assert max(r["drift_cm"] for r in result["drift"] if r["control"] == "true") < 1e-4, "cm: the chain is exact"
    assert drift["decoded"] < 0.6 * drift["zero"]
    assert drift["decoded"] < 0.6 * drift["shuffled"]
    assert drift["decoded"] < 1.5 * drift["oracle"]
    assert result["translation_r2"]["value"] > 0.7
    assert result["data"]["trajectories"] == 4
    assert result["answer"].startswith("Too few episodes for an answer")


def rows(**cm):
    """A result with these drifts and, against each control, their difference with a narrow interval."""
    return {
        "headline_horizon": 8, "data": {"hz": 3.0, "trajectories": 50}, "map": [{}] * 8,
        "drift": [{"control": n, "horizon": 8, "drift_cm": v, "ci95": [v - 0.1, v + 0.1]} for n, v in cm.items()],
        "differences": [
            {"minus": n, "horizon": 8, "difference_cm": cm["decoded"] - cm[n],
             "ci95": [cm["decoded"] - cm[n] - 0.5, cm["decoded"] - cm[n] + 0.5]}
            for n in ("zero", "shuffled")
        ],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("cm", "words"),
    [
        ({"true": 0, "oracle": 2, "decoded": 3, "zero": 10, "shuffled": 12}, "Yes: "),
        (
            {"true": 0, "oracle": 2, "decoded": 6, "zero": 10, "shuffled": 12},
            "In part: decoded latent actions remove 50%",
        ),
        ({"true": 0, "oracle": 2, "decoded": 10, "zero": 10, "shuffled": 12}, "In part: the codes are better"),
        (
            {"true": 0, "oracle": 2, "decoded": 8, "zero": 10, "shuffled": 8},
            "No: decoded codes are better than",
        ),
        ({"true": 0, "oracle": 2, "decoded": 12, "zero": 10, "shuffled": 12}, "No: decoded codes are no better"),
        ({"true": 1, "oracle": 2, "decoded": 3, "zero": 10, "shuffled": 12}, "The chain is broken"),
    ],
)
def test_the_answer_follows_the_numbers(cm, words):
    assert answer(rows(**cm)).startswith(words)


# The command


@pytest.fixture
def run(tmp_path, genie):
    genie.save_pretrained(tmp_path / "run")
    return tmp_path / "run"


def video_shape(path):
    import av

    with av.open(str(path)) as container:
        assert container.streams.video[0].average_rate == 3
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]).shape


def test_the_command_writes_all_files(run, tmp_path, tabletop_rlds, capsys):
    out = tmp_path / "out"
    assert main(["playback", str(run), "--data", str(tabletop_rlds), "--out", str(out), *QUICK]) == 0
    said = capsys.readouterr().out
    assert f"the true actions of 60 transitions, drawn from split 'train' (seed 0) and written to {out}" in said
    assert "recorded actions" in said
    result = json.loads((out / "playback.json").read_text())
    kept = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert set(result["files"]) == kept
    film = next(name.removesuffix(".mp4") for name in kept if name.endswith(".mp4"))
    assert {"figures/drift.png", "figures/labels.png", "labels.npz", "playback.md", f"{film}.png"} < kept
    assert video_shape(out / f"{film}.mp4") == (6, 256 + 56, 3 * 256 + 16, 3)
    assert result["answer"] in (out / "playback.md").read_text()
    assert len(result["map"]) == 4
    assert sum(entry["labels"] for entry in result["map"]) == 60
    assert {row["horizon"] for row in result["drift"]} == set(range(1, 6))
    assert len(Labels.load(out / "labels.npz")) == 60

    again = tmp_path / "again"  # the same labels from a file give the same numbers
    labels = ["--labels", str(out / "labels.npz"), "--episode", "2", "--start", "30"]
    assert main(["playback", str(run), "--data", str(tabletop_rlds), "--out", str(again), *QUICK, *labels]) == 0
    second = json.loads((again / "playback.json").read_text())
    for name in ("map", "drift", "differences", "curve", "translation_r2"):
        assert second[name] == result[name], name
    assert not (again / "labels.npz").exists()
    assert (again / "videos/episode_0002_from_030.mp4").exists()


def test_typed_codes(run, tmp_path, tabletop_rlds, capsys):
    out = tmp_path / "out"
    command = ["playback", str(run), "--data", str(tabletop_rlds), "--out", str(out), "--num-labels", "40"]
    # from the last frame: nothing has to follow in the recording
    assert main([*command, "--codes", "3, 3,0", "--episode", "1", "--start", "39"]) == 0
    assert "gripper" in capsys.readouterr().out
    result = json.loads((out / "playback.json").read_text())
    assert result["codes"] == [3, 3, 0]
    assert np.shape(result["path"]["position_m"]) == (4, 3)
    assert np.shape(result["actions"]) == (3, 7)
    assert result["actions"][0] == result["map"][3]["mean_action"]
    assert video_shape(out / "videos/typed.mp4") == (4, 256 + 56, 2 * 256 + 8, 3)
    assert set(result["files"]) == {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}


def test_user_errors_are_one_line_and_status_2(run, tmp_path, tabletop_rlds, capsys):
    def refused(*options: str, data=tabletop_rlds, where=run, out=tmp_path / "out") -> str:
        assert main(["playback", str(where), "--data", str(data), "--out", str(out), *options]) == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1
        return lines[0]

    def labels_file(split="train", episode=0, step=0, width=7) -> str:
        path = tmp_path / "labels.npz"
        Labels(split, np.array([episode]), np.array([step]), np.zeros((1, width))).save(path)
        return str(path)

    file = tmp_path / "file"
    file.write_text("no folder")
    assert "it is a file" in refused(out=file)
    assert "no run folder" in refused(where=tmp_path / "nothing")
    assert "code 4 does not exist; this model has codes 0 to 3" in refused("--codes", "3,4")
    for codes in ("", "3,x", "3,,3", "-1"):
        assert "must be integers from 0" in refused(f"--codes={codes}")
    assert "episodes 0 to 3" in refused("--codes", "3", "--episode", "4")
    assert "can be started from frames 0 to 38" in refused("--episode", "1", "--start", "39")
    assert "--episode" in refused("--start", "3")
    assert "--fit-labels must be at least 1" in refused("--fit-labels", "0")
    assert "--mode median" in refused("--mode", "median")
    assert "no split 'validation'" in refused("--split", "validation")
    assert "is not a labels file" in refused("--labels", str(file))
    assert "labels split 'other'" in refused("--labels", labels_file(split="other"))
    assert "row 0 labels episode 9" in refused("--labels", labels_file(episode=9))
    assert "row 0 labels step 39" in refused("--labels", labels_file(step=39))
    assert "actions have 6 numbers" in refused("--labels", labels_file(width=6))
    assert "labels only episodes that are measured" in refused("--labels", labels_file(split="test"))


def test_video_without_simulator_states_is_refused(run, tmp_path, tabletop_rlds, capsys):
    out = tmp_path / "out"
    assert main(["playback", str(run), "--data", str(tabletop_rlds), "--out", str(out), "--codes", "1,2,3"]) == 0
    videos = tmp_path / "videos"
    shutil.copytree(out / "videos", videos)
    assert main(["playback", str(run), "--data", str(videos), "--hz", "3", "--out", str(out)]) == 2
    assert "keeps no simulator state; pass a data set made with `data tabletop`" in capsys.readouterr().err


def test_heavy_modules_are_imported_on_demand():
    code = (
        "import sys, genie_robotics; assert 'genie_eval.playback' not in sys.modules;"
        "import genie_eval.playback.commands; assert 'torch' not in sys.modules;"
        "from genie_eval.playback import play_back;"
        "print([m for m in ('mujoco', 'matplotlib', 'av', 'sklearn', 'tensorflow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout.splitlines() == ["[]"], done.stderr
