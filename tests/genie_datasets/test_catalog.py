"""The catalog finds a data set by its name, and its entries decide how the data set is read."""

from pathlib import Path

import numpy as np
import pytest

from genie_datasets import open_source
from genie_datasets.base.errors import UserError
from genie_datasets.clips.labels import draw_labels
from genie_datasets.sources.catalog import CATALOG, MIXES, catalog_table, known
from genie_datasets.sources.opening import find_path, seconds_of_video

README = Path(__file__).parents[2] / "datasets" / "README.md"


def test_the_page_shows_the_table():
    assert catalog_table() in README.read_text(), (
        "run `python -m genie_datasets.sources.catalog` and paste what it prints"
    )


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("fractal20220817_data", "fractal20220817_data"), ("fractal_test", "fractal20220817_data"),
        ("bridge_dataset", "bridge_dataset"), ("bridge", "bridge"), ("bridge_orig", "bridge"), ("Kuka", "kuka"),
        ("my_kuka", None), ("videos", None),
    ],
)  # fmt: skip
def test_the_longest_name_counts(name, row):
    found = known(name)
    assert (found and found.name) == row


def test_mixtures_are_of_known_data_sets():
    names = {row.name for row in CATALOG}
    assert all(member in names for members in MIXES.values() for member in members)


@pytest.fixture
def kuka(tmp_path, kit):
    """Episodes of 5, 6, 7 frames; the second failed."""
    folder = kit.RldsFolder(tmp_path, "kuka")
    folder.leaves["success"] = kit.leaf("tensor", (), "bool")
    episodes = [{**folder.episode(n, n), "success": np.array([n != 6])} for n in (5, 6, 7)]
    folder.add("train", episodes)
    return folder.finish()


def test_only_successful_episodes_of_kuka_are_read(kuka, capsys):
    from genie_datasets.commands import main

    train = open_source(kuka).split("train")
    assert train.num_frames.tolist() == [5, 7]
    assert train.num_filtered == 1
    assert train.hz.tolist() == [10, 10]
    assert [train.episode_name(e)[-2:] for e in (0, 1)] == ["#0", "#2"]
    whole = open_source(kuka, unfiltered=True).split("train")
    assert whole.num_frames.tolist() == [5, 6, 7]
    assert whole.fingerprint != train.fingerprint
    np.testing.assert_array_equal(train.frames(1), whole.frames(2))
    again = open_source(kuka).split("train")  # from the index in the cache
    assert again.num_frames.tolist() == [5, 7]
    assert again.num_filtered == 1
    main(["inspect", str(kuka)])
    assert "1 episodes left out (--unfiltered)" in capsys.readouterr().out


def test_the_reference_reader_filters_equally(kuka):
    pytest.importorskip("tensorflow")
    train, reference = open_source(kuka).split("train"), open_source(kuka, reader="rlds").split("train")
    assert reference.num_frames.tolist() == train.num_frames.tolist()
    assert reference.num_filtered == 1
    np.testing.assert_array_equal(reference.frames(1), train.frames(1))


def test_a_data_set_without_kept_episodes_is_one_line(tmp_path, kit):
    folder = kit.RldsFolder(tmp_path, "kuka")
    folder.leaves["success"] = kit.leaf("tensor", (), "bool")
    folder.add("train", [{**folder.episode(5, 0), "success": np.array([False])}])
    with pytest.raises(UserError, match="holds no episode with success: --unfiltered reads all"):
        open_source(folder.finish())


def test_the_paper_s_mixture_weighs_sources_by_seconds_of_video(tmp_path, kit, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    for name, lengths in (("fractal20220817_data", (30, 30)), ("kuka", (50,)), ("tabletop", (15,))):
        folder = kit.RldsFolder(tmp_path, name)
        folder.add("train", [folder.episode(n, n) for n in lengths])
        folder.finish()
    source = open_source("robotics_mix")
    assert source.kind == "mixture"
    np.testing.assert_allclose(source.split("train").group_weights, np.array([20, 5, 5]) / 30)
    assert seconds_of_video(source) == pytest.approx(30)
    assert set(source.split("train").hz) == {3, 10}


def test_the_name_of_a_data_set_that_is_not_here_means_its_bucket(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert (
        find_path("fractal")
        == find_path("fractal20220817_data")
        == "gs://gresearch/robotics/fractal20220817_data/0.1.0"
    )
    assert "which is slow" in capsys.readouterr().err
    with pytest.raises(UserError, match="no data set of that name"):
        find_path("bridge_dataset")  # which is in no bucket
    (tmp_path / "kuka").mkdir()
    assert find_path("kuka") == tmp_path / "kuka"


def test_a_first_action_of_zeros_is_padding(tmp_path, kit):
    folder = kit.RldsFolder(tmp_path, "bridge_dataset")
    folder.leaves["steps/action"] = kit.leaf("tensor", (2,))
    actions = np.arange(2.0, 12.0).reshape(5, 2)
    actions[0] = 0
    folder.add("train", [{**folder.episode(5, 0), "steps/action": actions.ravel()}])
    labels = draw_labels(open_source(folder.finish()).split("train"), 100, seed=0)
    assert labels.step.tolist() == [1, 2, 3]
    np.testing.assert_array_equal(labels.action, actions[1:4])
