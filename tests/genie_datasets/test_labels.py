"""`genie-robotics labels` draws true actions of a few transitions over all episodes."""

import numpy as np
import pytest

from genie_datasets import open_source
from genie_datasets.base.errors import UserError
from genie_datasets.clips.labels import Labels, check_places
from genie_datasets.label_command import main

LENGTHS = {"train": (9, 21, 31), "test": (12,)}


@pytest.fixture
def folder(rlds_folder, kit):
    """RLDS with a flat action of 3 numbers: (episode, frame, 100 in the test split)."""
    rlds_folder.leaves["steps/action"] = kit.leaf("tensor", (3,))
    for split, lengths in LENGTHS.items():
        episodes = [
            rlds_folder.episode(
                length,
                number,
                **{
                    "steps/action": np.array(
                        [(number, t, 100 * (split == "test")) for t in range(length)], float
                    ).ravel()
                },
            )
            for number, length in enumerate(lengths)
        ]
        rlds_folder.add(split, episodes)
    return rlds_folder.finish()


def test_the_command_draws_true_actions_over_all_episodes(folder, tmp_path, capsys):
    out = tmp_path / "labels" / "some.npz"
    assert main([str(folder), "--share", "0.5", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "the true actions of 29 of 58 transitions (50.00%)" in said
    assert "[train], in 3 of 3 episodes" in said
    labels = Labels.load(out)
    assert labels.digest in said
    assert labels.split == "train"
    np.testing.assert_array_equal(labels.action, np.stack([labels.episode, labels.step, 0 * labels.step], 1))
    assert len(set(zip(labels.episode, labels.step, strict=True))) == 29
    for episode, length in enumerate(LENGTHS["train"]):
        steps = labels.step[labels.episode == episode]
        assert len(steps) > 0
        assert steps.max() <= length - 2, "the last frame's action leads nowhere"
    check_places(labels, open_source(str(folder)).split("train"), "some.npz")


def test_the_draw_is_a_function_of_its_seed_and_all_may_be_drawn(folder, tmp_path):
    digests = []
    for name, more in {"a": [], "b": [], "c": ["--seed", "1"]}.items():
        main([str(folder), "--count", "10", "--out", str(tmp_path / f"{name}.npz"), *more])
        digests.append(Labels.load(tmp_path / f"{name}.npz").digest)
    assert digests[0] == digests[1] != digests[2]
    main([str(folder), "--share", "1", "--split", "test", "--out", str(tmp_path / "all.npz")])
    labels = Labels.load(tmp_path / "all.npz")
    assert labels.split == "test"
    np.testing.assert_array_equal(labels.step, np.arange(11))
    assert (labels.action[:, 2] == 100).all()


def test_labels_belong_to_the_files_that_they_were_drawn_from(folder, tmp_path):
    main([str(folder), "--out", str(tmp_path / "l.npz")])
    labels = Labels.load(tmp_path / "l.npz")
    assert len(labels) == 1, "a share is rounded up"
    with pytest.raises(UserError, match="labels split 'train', not 'test'"):
        check_places(labels, open_source(str(folder)).split("test"), "l.npz")
    mixed = open_source(f"{folder}:0.5,{folder}:0.5").split("train")
    with pytest.raises(UserError, match="drawn from other video"):
        check_places(labels, mixed, "l.npz")
    main([f"{folder}:0.5,{folder}:0.5", "--share", "1", "--out", str(tmp_path / "mixed.npz")])
    labels = Labels.load(tmp_path / "mixed.npz")
    check_places(labels, mixed, "mixed.npz")
    np.testing.assert_array_equal(labels.action[:, 0], labels.episode % 3)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--share", "0"], "--share must be above 0 and at most 1"),
        (["--share", "5"], "--share must be above 0 and at most 1"),
        (["--share", "nan"], "--share must be above 0 and at most 1"),
        (["--share", "0.1", "--count", "3"], "--share cannot be combined with --count"),
        (["--count", "0"], "--count must be at least 1"),
        (["--seed", "-1"], "--seed must be at least 0"),
        (["--split", "val"], "has no split 'val'"),
        (["--out", "labels.csv"], "--out must be the name of an .npz file, got labels.csv"),
    ],
)
def test_mistakes_are_one_line(folder, tmp_path, monkeypatch, more, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        main([str(folder), *more])
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("*.npz"))


def test_video_keeps_no_actions(video_dir, tmp_path):
    with pytest.raises(UserError, match="keeps no robot actions"):
        main([str(video_dir), "--hz", "3", "--out", str(tmp_path / "l.npz")])
