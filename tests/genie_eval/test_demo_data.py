"""The demo's own data: what a cut run left is finished, and what is whole is used."""

import pytest

from genie_datasets.tabletop import generate
from genie_datasets.tabletop.unfinished import UnfinishedDataset, count_finished
from genie_eval import demo


def test_the_demo_goes_on_where_its_data_was_cut(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MUJOCO_GL", "disable")
    folder, episodes = tmp_path / "data", {"train": 2, "test": 2}

    def cut(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(UnfinishedDataset, "finish", cut)  # when all is written but the folder has no name yet
        with pytest.raises(KeyboardInterrupt):
            demo.tabletop(folder, seed=0, episodes=episodes)
    assert count_finished(folder) == 4

    def again(*_):
        raise AssertionError("an episode was made twice")

    monkeypatch.setattr(generate.WorkerPool, "_run", again)
    whole = demo.tabletop(folder, seed=0, episodes=episodes)
    assert whole == folder / "tabletop" / "1.0.0"
    assert demo.tabletop(folder, seed=0, episodes=episodes) == whole
    assert f"using {whole}" in capsys.readouterr().out
