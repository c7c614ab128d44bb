"""Run folders: what is written is what is read, and a run that does not fit is named in one line."""

import json

import pytest
import torch

from genie_datasets.errors import UserError
from genie_robotics import Genie
from genie_robotics.presets import PRESETS, preset


def test_save_and_load(tmp_path, genie, frames):
    genie.save_pretrained(tmp_path)
    loaded = Genie.from_pretrained(tmp_path)
    assert not loaded.training
    assert loaded.config == genie.config
    assert torch.equal(loaded.infer_actions(frames), genie.infer_actions(frames))
    codes = torch.tensor([[0, 1]] * 3)
    assert torch.equal(loaded.generate(frames[:, :1], codes), genie.generate(frames[:, :1], codes))


def test_a_component_of_another_preset_is_named(tmp_path, genie):
    genie.save_pretrained(tmp_path)
    path = tmp_path / "dynamics" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "width": 64}))
    with pytest.raises(UserError, match=r"dynamics: trained with width=64, but .*config.json says 16.*preset"):
        Genie.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: (run / "config.json").unlink(), "config.json is missing"),
        (lambda run: (run / "config.json").write_text("{"), "not readable JSON"),
        (lambda run: (run / "config.json").write_text('{"model": {"depth": 3}}'), "unknown entry depth"),
        (lambda run: (run / "dynamics" / "model.safetensors").unlink(), "model.safetensors is missing; train that"),
        (lambda run: (run / "dynamics" / "model.safetensors").write_bytes(b"x" * 99), "damaged"),
    ],
)
def test_a_damaged_run_is_named_in_one_line(tmp_path, genie, damage, message):
    genie.save_pretrained(tmp_path)
    damage(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        Genie.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)


def test_no_run_folder(tmp_path):
    with pytest.raises(UserError, match="no run folder .*genie-robotics train"):
        Genie.from_pretrained(tmp_path / "nothing")


def test_a_full_disk_keeps_the_last_good_file(tmp_path, genie, monkeypatch):
    import genie_robotics.run_folder as run_folder

    genie.save_pretrained(tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_folder.os, "fsync", full)
    with pytest.raises(UserError, match="cannot write .*No space left on device"):
        genie.save_pretrained(tmp_path)
    monkeypatch.undo()
    Genie.from_pretrained(tmp_path)
    assert not list(tmp_path.rglob("*.tmp"))


def test_nano_stays_under_5m_parameters():
    counts = Genie(preset("nano")).num_parameters()
    assert sum(counts.values()) <= 5_000_000, counts


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("coinrun", 70, 130), ("robotics_1b", 900, 1300), ("robotics_2_5b", 2000, 2700), ("platformers_11b", 9500, 11500)],
)
def test_presets_have_the_papers_sizes(name, low, high):
    with torch.device("meta"):
        total = sum(Genie(preset(name)).num_parameters().values()) / 1e6
    assert low < total < high


def test_presets_resolve_and_unknown_ones_are_named():
    for name in PRESETS:
        config = preset(name)
        assert config.preset == name
        assert config.dynamics.num_tokens == config.tokenizer.codebook.num_codes
    with pytest.raises(UserError, match="no preset 'mini'; there are: nano"):
        preset("mini")


def test_image_size_must_divide_into_patches():
    config = preset("nano")
    config.image_size = (60, 64)
    with pytest.raises(UserError, match="60x64 is not a multiple of the tokenizer's patch size 8"):
        config.resolved()
