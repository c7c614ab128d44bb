"""tools/growth.py in small."""

import importlib.util
import json
from pathlib import Path

import pytest


@pytest.fixture
def growth(monkeypatch, tmp_path):
    spec = importlib.util.spec_from_file_location("growth", Path(__file__).parents[1] / "tools/growth.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, value in {
        "AXES": {"frames": (2, 4, 8), "side": (16, 32, 48), "batch": (1, 2, 3)}, "REPEATS": 1, "STEPS": 8,
        "EPISODES": (100, 300_000), "TRAINED_ON": (100,), "TRAJECTORIES": (4, 6, 1000), "DOCS": tmp_path,
    }.items():  # fmt: skip
        monkeypatch.setattr(module, name, value)
    nano = module.preset

    def shallow(name):
        config = nano(name)
        for component in (config.tokenizer, config.latent_action):
            component.encoder_num_blocks = component.decoder_num_blocks = 1
        config.dynamics.num_blocks = 1
        return config

    monkeypatch.setattr(module, "preset", shallow)  # operations of every block grow alike
    (tmp_path / "images").mkdir()
    return module


def test_growth_is_measured_and_drawn(growth, tabletop_rlds, tmp_path, monkeypatch):
    parts = {"codes and motion": 1.0, "statistics": 2.0, "dreams": 3.0, "commanded dreams": 4.0}
    measured = [{"trajectories": n, **parts} for n in (4, 6)]
    monkeypatch.setattr(growth, "measure_evaluation", lambda data: measured)  # takes minutes: see the next test
    growth.main(str(tabletop_rlds))
    found = json.loads((tmp_path / "growth.json").read_text())
    assert (tmp_path / "images/growth.png").stat().st_size > 10_000
    assert len(found["steps"]) == 3 * 3 * 3
    # operations per clip: about linear in frames (the first is not predicted), quadratic in the side
    for stage in ("tokenizer", "latent_action", "dynamics"):
        assert found["exponents"][f"frames, {stage}"]["gflop"] == pytest.approx(1.0, abs=0.2)
        assert found["exponents"][f"batch, {stage}"]["gflop"] == pytest.approx(0.0, abs=1e-9)
        assert found["exponents"][f"side, {stage}"]["gflop"] == pytest.approx(2.0, abs=0.2)
    assert [row["clips"] for row in found["reading"]] == [2500, 7_500_000]
    assert found["training"][0]["ms_a_step"] > 0


@pytest.mark.slow
def test_the_evaluation_is_timed_at_every_size_that_the_data_has(growth, tabletop_rlds):
    rows = growth.measure_evaluation(str(tabletop_rlds))
    assert [row["trajectories"] for row in rows] == [4, 6]
    assert all(row["codes and motion"] > 0 and row["statistics"] > 0 for row in rows)


def test_many_episodes_share_their_videos(growth):
    many = growth.ManyEpisodes(1000)
    assert many.frames(999, [3]).shape == (1, 64, 64, 3)
    assert (many.frames(64, [5]) == many.frames(0, [5])).all()
