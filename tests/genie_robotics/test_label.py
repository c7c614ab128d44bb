"""`label`: every transition exactly once, with the inferred code, in a table and in data sets."""

import threading

import numpy as np
import pyarrow.parquet as parquet
import pytest
import torch

from genie_datasets import open_source
from genie_datasets.base.errors import UserError
from genie_datasets.sources.split import Source
from genie_eval.playback.codes import episode_codes
from genie_robotics import Genie
from genie_robotics.labeling.code_meanings import Meaning
from genie_robotics.labeling.commands import EpisodeCodes, label, label_episodes, label_splits, read_episodes
from genie_robotics.models.presets import preset
from tests.genie_robotics.conftest import Squares, random_genie, tiny_config


@pytest.fixture(scope="module")
def written(tabletop_rlds, tmp_path_factory):
    out = tmp_path_factory.mktemp("labels")
    assert label(["nano-tabletop", "--data", str(tabletop_rlds), "--out", str(out), "--write", "rlds", "lerobot"]) == 0
    return out


def test_every_transition_is_in_the_table_with_its_code(written, tabletop_rlds):
    table = parquet.read_table(written / "latent_actions.parquet").to_pandas()
    genie = Genie.from_pretrained("nano-tabletop")
    source = open_source(tabletop_rlds)
    assert len(table) == sum(int((split.num_frames - 1).sum()) for split in source.splits.values())
    for name, split in source.splits.items():
        for episode in range(split.num_episodes):
            rows = table[(table.split == name) & (table.episode == episode)]
            assert rows.code.tolist() == episode_codes(genie, split, episode).tolist()
            assert rows.frame.tolist() == list(range(len(rows)))
            assert (rows.next_frame == rows.frame + 1).all()
            assert set(rows.instruction) == {split.instruction(episode)}
            assert set(rows.episode_name) == {split.episode_name(episode)}
    assert ((table.confidence > 0) & (table.confidence <= 1)).all()
    names = table.groupby("code").name.unique()
    assert all(len(name) == 1 for name in names)
    assert names[1][0] == "right"


def test_the_data_sets_hold_the_same_codes_and_open_again(written, tabletop_rlds):
    import tensorflow_datasets as tfds

    source = open_source(tabletop_rlds)
    table = parquet.read_table(written / "latent_actions.parquet").to_pandas()
    builder = tfds.builder_from_directory(str(written / "rlds/tabletop_latent_actions/1.0.0"))
    for name, split in source.splits.items():
        for number, episode in enumerate(builder.as_dataset(name, shuffle_files=False)):
            codes = [int(step["latent_action"]) for step in episode["steps"].as_numpy_iterator()]
            expected = table[(table.split == name) & (table.episode == number)].code.tolist()
            assert codes == [*expected, -1]
            assert episode["episode_metadata"]["source"].numpy().decode() == split.episode_name(number)
    lerobot = open_source(written / "lerobot")
    assert lerobot.kind == "lerobot"
    assert {n: s.num_frames.tolist() for n, s in lerobot.splits.items()} == {
        n: s.num_frames.tolist() for n, s in source.splits.items()
    }
    first = parquet.read_table(min(written.glob("lerobot/data/**/*.parquet"))).to_pydict()
    assert first["latent_action"][-1] == -1
    assert first["latent_action"][:-1] == table[(table.split == "train") & (table.episode == 0)].code.tolist()


def test_with_a_gap_every_transition_of_its_length_has_a_code():
    config = tiny_config()
    config.gap = 1.0
    genie, squares = random_genie(config), Squares(num_episodes=1)
    (found,) = label_episodes(genie, squares, [0])
    assert found.step == 3
    assert (found.codes[:-3] >= 0).all()
    assert (found.codes[-3:] == -1).all()
    frames = torch.from_numpy(squares.frames(0))
    for t in range(7):
        window = frames[t % 3 :: 3][None]
        assert found.codes[t] == genie.infer_actions(window)[0, t // 3]
    assert isinstance(found, EpisodeCodes)


def test_confidence_is_the_margin_between_the_nearest_two_codes():
    book = random_genie(tiny_config()).latent_action.quantizer
    vectors = book.vectors
    latents = torch.randn(50, 8)
    seen = book.normalize(latents)
    distances = torch.cdist(seen, vectors).sort(-1).values
    assert torch.allclose(book.margin(latents), 1 - distances[:, 0] / distances[:, 1], atol=1e-5)
    assert random_genie(tiny_config(kind="fsq")).latent_action.quantizer.margin(latents).isnan().all()


def test_invalid_options_and_folders_are_refused(tmp_path, tabletop_rlds):
    arguments = ["nano-tabletop", "--data", str(tabletop_rlds), "--out", str(tmp_path / "out")]
    with pytest.raises(UserError, match="unknown format --write csv; expected one of rlds, lerobot"):
        label([*arguments, "--write", "csv"])
    with pytest.raises(UserError, match="has no split 'dev'"):
        label([*arguments, "--split", "dev"])
    (tmp_path / "out/lerobot").mkdir(parents=True)
    (tmp_path / "out/lerobot/mine.txt").write_text("")
    with pytest.raises(UserError, match="is not empty"):
        label([*arguments, "--write", "lerobot"])
    assert np.array(list((tmp_path / "out").glob("*.parquet"))).size == 0


@pytest.mark.parametrize("sequential", [True, False])
def test_what_is_written_does_not_take_a_sequential_split_back(tmp_path, sequential):
    """A split that reads in order (gs://) would start again from its first episode."""
    squares, read = Squares(num_episodes=4), []
    squares.sequential = sequential
    frames = squares.frames
    squares.frames = lambda episode, *rest, **options: read.append(episode) or frames(episode, *rest, **options)
    source = Source("squares", "squares", "arrays", {"train": squares}, "")
    meanings = [Meaning(str(code)) for code in range(4)]
    num = label_splits(random_genie(tiny_config()), source, [squares], tmp_path, ("lerobot",), meanings)
    assert num == 4 * 9
    assert (read == sorted(read)) == sequential


@pytest.mark.parametrize(("length", "sequential", "most"), [(10, False, 3), (2000, False, 1), (10, True, 1)])
def test_threads_read_the_next_episodes_in_order(length, sequential, most, monkeypatch):
    monkeypatch.setattr("genie_datasets.base.cores.num_cores", lambda: 2)
    squares, lock, read, config = Squares(8, length), threading.Lock(), [], preset("nano")
    squares.sequential = sequential
    frames = squares.frames

    def counted(episode, *rest):
        with lock:
            read.append(episode)
        return frames(episode)

    squares.frames = counted
    for number, found in enumerate(read_episodes(squares, range(8), config)):
        assert np.array_equal(found, squares.video[number])
        assert len(read) <= number + most
    assert sorted(read) == list(range(8))
