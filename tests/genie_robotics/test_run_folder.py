"""Run folders: written runs are read back, and a run that does not fit is refused in one line."""

import json
import os

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from genie_datasets.base.errors import UserError
from genie_robotics import Genie
from genie_robotics.cli import main
from genie_robotics.models.presets import PRESETS, preset
from genie_robotics.run_folder import (
    DIGEST,
    SCHEMA_VERSION,
    digest,
    load_component,
    load_config,
    read_tensors,
    save_component,
)
from genie_robotics.training.run import check_run_folder
from tests.genie_robotics.conftest import random_genie, tiny_config


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
    with pytest.raises(
        UserError, match=r"dynamics was trained with width=64, but .*config.json expects 16; copy a dynamics"
    ):
        Genie.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: (run / "config.json").unlink(), "config.json is missing"),
        (lambda run: (run / "config.json").write_text("{"), "not readable JSON"),
        (
            lambda run: (run / "config.json").write_text('{"schema_version": 2, "model": {"depth": 3}}'),
            "unknown entry",
        ),
        (lambda run: (run / "config.json").write_text('{"model": {}}'), "schema version 1, expected 2; retrain"),
        (
            lambda run: (run / "dynamics" / "model.safetensors").unlink(),
            "model.safetensors is missing; rerun the train command",
        ),
        (lambda run: (run / "dynamics" / "model.safetensors").write_bytes(b"x" * 99), "damaged"),
    ],
)
def test_a_damaged_run_is_named_in_one_line(tmp_path, genie, damage, message):
    genie.save_pretrained(tmp_path)
    damage(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        Genie.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("version", [None, 1, SCHEMA_VERSION + 1])
def test_a_run_folder_of_another_schema_version_is_one_line(tmp_path, config, version, capsys):
    """Also if its configuration has other fields."""
    random_genie(config).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    stored = json.loads(path.read_text())
    assert stored.pop("schema_version") == SCHEMA_VERSION
    stored["model"]["field_of_that_version"] = 1
    path.write_text(json.dumps(stored if version is None else {**stored, "schema_version": version}))
    words = f"config.json has schema version {version or 1}, expected {SCHEMA_VERSION}; retrain the run"
    for use in (Genie.from_pretrained, load_config, lambda run: check_run_folder(run, config)):
        with pytest.raises(UserError, match=words) as caught:
            use(tmp_path)
        assert "\n" not in str(caught.value)
    assert main(["doctor", str(tmp_path)]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert words in error
    assert "\n" not in error


@pytest.mark.parametrize("seed", range(2))
def test_any_changed_byte_of_the_weights_is_noticed(tmp_path, seed):
    """200 random places, half of them in the header, each changed to another random byte."""
    genie, other = (random_genie(tiny_config(), seed) for seed in (0, 1))
    save_component(genie.dynamics, tmp_path / "dynamics")
    path = tmp_path / "dynamics" / "model.safetensors"
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    rng = np.random.default_rng(seed)
    before = {name: value.clone() for name, value in other.state_dict().items()}
    for place in [*rng.integers(len(whole), size=100), *rng.integers(header, size=100)]:
        damaged = bytearray(whole)
        damaged[place] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="damaged") as caught:
            load_component(other.dynamics, tmp_path / "dynamics")
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
    assert all(torch.equal(before[name], value) for name, value in other.state_dict().items()), "partly loaded"
    path.write_bytes(whole)
    load_component(other.dynamics, tmp_path / "dynamics")
    assert torch.equal(other.dynamics.head.weight, genie.dynamics.head.weight)


@pytest.mark.slow
def test_every_other_byte_at_every_place_of_the_header_is_noticed(tmp_path):
    path = tmp_path / "model.safetensors"
    tensors = {"a": torch.arange(3.0), "é": torch.zeros((), dtype=torch.bool), "n": torch.zeros(0, 2)}
    save_file(tensors, path, {DIGEST: digest(tensors)})
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    assert whole[header - 1 : header] == b" ", "the padding after the header is among the places"
    missed = []
    for place in range(header):
        # All bytes if a JSON parser may be lenient at this place, otherwise a few.
        lenient = place < 9 or whole[place : place + 1] in b'\t\n\r "\\{}[]:,-+.0123456789'
        for value in range(256) if lenient else (whole[place] ^ 1, whole[place] ^ 32, 0x22, 0x5C, 0xFF):
            if value == whole[place]:
                continue
            path.write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
            try:
                read_tensors(path)
            except (UserError, SafetensorError, RuntimeError):  # load_component reports them
                continue
            missed.append((place, whole[place], value))
    assert not missed


def test_a_truncated_file_is_refused(tmp_path):
    genie = random_genie(tiny_config())
    save_component(genie.dynamics, tmp_path / "dynamics")
    path = tmp_path / "dynamics" / "model.safetensors"
    whole = path.read_bytes()
    for length in (0, 1, 7, 8, 9, 500, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match="damaged"):
            load_component(genie.dynamics, tmp_path / "dynamics")
    path.write_bytes(whole + b"x")
    with pytest.raises(UserError, match="damaged"):
        load_component(genie.dynamics, tmp_path / "dynamics")


@pytest.mark.parametrize("metadata", [None, {"format": "pt", "made_by": "someone"}])
def test_weights_without_a_digest_load(tmp_path, metadata):
    """Files that were not written by this package."""
    genie, other = (random_genie(tiny_config(), seed) for seed in (0, 1))
    save_component(genie.tokenizer, tmp_path / "tokenizer")
    path = tmp_path / "tokenizer" / "model.safetensors"
    save_file(load_file(path), path, metadata)
    load_component(other.tokenizer, tmp_path / "tokenizer")
    assert torch.equal(other.tokenizer.patch_in.weight, genie.tokenizer.patch_in.weight)


def test_the_digest_depends_on_names_dtypes_shapes_and_bytes_but_not_on_order():
    x = torch.arange(6.0)
    known = digest({"a": x, "b": x.bfloat16()})
    assert known == digest({"b": x.bfloat16(), "a": x})
    for other in (
        {"b": x, "a": x.bfloat16()},
        {"a": x.view(2, 3), "b": x.bfloat16()},
        {"a": x.view(torch.int32), "b": x.bfloat16()},
        {"a": x.nextafter(torch.tensor(9.0)), "b": x.bfloat16()},
        {"a": x},
    ):
        assert digest(other) != known


def test_the_same_weights_are_the_same_file(tmp_path):
    """Kill tests compare runs byte for byte."""
    genie = random_genie(tiny_config())
    for run in ("a", "b"):
        for name in ("tokenizer", "dynamics"):
            save_component(getattr(genie, name), tmp_path / run / name)
    for name in ("tokenizer", "dynamics"):
        a, b = ((tmp_path / run / name / "model.safetensors").read_bytes() for run in ("a", "b"))
        assert a == b


def test_no_run_folder(tmp_path):
    with pytest.raises(UserError, match="no run folder .*genie-robotics train"):
        Genie.from_pretrained(tmp_path / "nothing")


def test_a_full_disk_keeps_the_old_files(tmp_path, genie, monkeypatch):
    genie.save_pretrained(tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
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
        assert config.dynamics.num_tokens == config.tokenizer.quantizer.num_codes
    with pytest.raises(UserError, match="unknown preset 'mini'; expected one of nano"):
        preset("mini")


def test_image_size_must_divide_into_patches():
    config = preset("nano")
    config.image_size = (60, 64)
    with pytest.raises(UserError, match="--image-size must be a multiple of --tokenizer.patch-size 8, got 60x64"):
        config.resolved()
