"""A world that comes with the package: small, offline, strict, and equal to the trained one except for rounding."""

import json
import shutil
import socket
import tomllib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from genie_datasets.base.errors import UserError
from genie_eval.pretrain.export import LARGEST, export_world, folder_bytes, measure_rounding, rounded
from genie_robotics import Genie
from genie_robotics.cli import main
from genie_robotics.models.latent_action import LatentActionModel
from genie_robotics.models.missing import MissingModule
from genie_robotics.models.presets import preset
from genie_robotics.pretrained import WORLDS, judge_of, locate, world_folder
from genie_robotics.run_folder import DIGEST, digest, load_component
from tests.genie_robotics.conftest import random_genie, tiny_config

NAME = "nano-tabletop"


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """A world and a judge of another seed, as training leaves them."""
    folder = tmp_path_factory.mktemp("runs")
    for seed, name in enumerate(("run", "judge")):
        random_genie(tiny_config(), seed).save_pretrained(folder / name)
    return folder


@pytest.fixture
def clips() -> torch.Tensor:
    return torch.randint(0, 256, (8, 6, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def world(runs, tmp_path) -> Path:
    export_world(runs / "run", runs / "judge", tmp_path / "world")
    return tmp_path / "world"


@pytest.fixture
def shipped(world, tmp_path, monkeypatch) -> Path:
    """The world as if it were installed, used from an empty working directory without a network."""
    elsewhere = tmp_path / "site-packages" / "nano_tabletop"
    shutil.move(world, elsewhere)
    monkeypatch.setitem(WORLDS, NAME, elsewhere)
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")

    def no_network(*_):
        raise AssertionError("asked the network")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    return elsewhere


def test_the_shipped_world_plays_by_its_name_as_the_rounded_trained_one(shipped, runs, clips):
    trained, loaded = Genie.from_pretrained(runs / "run"), Genie.from_pretrained(NAME)
    expected = rounded(trained)
    codes = torch.tensor([[0, 1, 3]] * len(clips))
    assert all(p.dtype == torch.float32 for p in loaded.parameters())
    assert not loaded.training
    assert torch.equal(loaded.infer_actions(clips), expected.infer_actions(clips))
    assert torch.equal(loaded.tokenize(clips), expected.tokenize(clips))
    assert torch.equal(loaded.generate(clips[:, :1], codes, seed=3), expected.generate(clips[:, :1], codes, seed=3))
    # Rounding to 11 bits changes almost nothing: random weights have many near-ties, trained ones fewer.
    found = measure_rounding(trained, clips)
    assert found["codes"] <= 0.05
    assert found["tokens"] <= 0.05
    assert abs(found["psnr_lost"]) < 0.1
    assert any(not torch.equal(a, b) for a, b in zip(trained.parameters(), expected.parameters(), strict=True))


def test_the_judge_is_the_other_runs_latent_action_model(shipped, runs, clips):
    judge, trained = Genie.from_pretrained(judge_of(NAME)), Genie.from_pretrained(runs / "judge")
    assert judge.components == ("latent_action",)
    assert torch.equal(judge.infer_actions(clips), rounded(trained).infer_actions(clips))
    assert not torch.equal(judge.infer_actions(clips), Genie.from_pretrained(NAME).infer_actions(clips))
    for use in (lambda: judge.start(clips[0, 0]), lambda: judge.tokenize(clips), lambda: judge.dynamics(None)):
        with pytest.raises(UserError, match="holds only a latent action model, .* cannot be played"):
            use()


def test_a_loaded_world_can_be_saved_and_loaded(shipped, tmp_path, clips):
    for place in (NAME, judge_of(NAME)):
        loaded = Genie.from_pretrained(place)
        loaded.save_pretrained(tmp_path / "again")
        again = Genie.from_pretrained(tmp_path / "again")
        assert type(again) is type(loaded)
        assert torch.equal(again.infer_actions(clips), loaded.infer_actions(clips))
        shutil.rmtree(tmp_path / "again")


def test_without_its_decoder_it_infers_actions_and_refuses_to_predict(shipped, clips):
    model = Genie.from_pretrained(NAME).latent_action
    assert not model.has_decoder
    assert not [key for key in model.state_dict() if key.split(".")[0] in ("decoder", "from_latent", "patch_out")]
    frames = clips.float() / 255
    with pytest.raises(UserError, match="exported without its decoder") as caught:
        model.predict(frames[:, :-1], torch.zeros(*frames.shape[:1], 5, 8))
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="exported without its decoder"):
        model(clips)


def test_dropping_removes_the_decoder_and_nothing_else():
    whole = LatentActionModel(tiny_config().latent_action)
    before = dict(whole.state_dict())
    gone = {f"{name}." for name in whole.decoder_parts()}
    assert gone == {"from_latent.", "decoder_in.", "decoder.", "patch_out."}
    whole.drop_decoder()
    assert set(whole.state_dict()) == {key for key in before if not key.startswith(tuple(gone))}
    assert all(isinstance(part, MissingModule) for part in whole.decoder_parts().values())


@pytest.mark.parametrize("component", ["tokenizer", "latent_action", "dynamics", "judge/latent_action"])
@pytest.mark.parametrize("change", ["missing", "extra"])
def test_a_missing_or_additional_tensor_is_an_error(world, component, change):
    path = world / component / "model.safetensors"
    tensors = load_file(path)
    if change == "missing":
        del tensors[sorted(key for key in tensors if key.endswith(".weight"))[0]]
    else:
        tensors["patch_out.weight"] = torch.zeros(2)
    save_file(tensors, path, {DIGEST: digest(tensors)})
    with pytest.raises(UserError, match="does not fit its configuration"):
        Genie.from_pretrained(world / "judge" if component.startswith("judge") else world)


def test_has_decoder_must_agree_with_the_file(world, runs):
    """Strict both ways."""
    shutil.copy(runs / "run" / "latent_action" / "model.safetensors", world / "latent_action" / "model.safetensors")
    with pytest.raises(UserError, match="Unexpected key|does not fit"):
        Genie.from_pretrained(world)
    config = world / "judge" / "latent_action" / "config.json"
    values = json.loads(config.read_text())
    assert values.pop("has_decoder") is False
    config.write_text(json.dumps(values))
    with pytest.raises(UserError, match="does not fit"):
        Genie.from_pretrained(world / "judge")


@pytest.mark.parametrize("length", [0, 7, 400, -1])
def test_a_truncated_file_is_one_line_with_a_remedy(shipped, length, capsys, tmp_path):
    path = shipped / "dynamics" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(UserError, match="damaged.*reinstall genie-robotics") as caught:
        Genie.from_pretrained(NAME)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "train command" not in str(caught.value)
    assert main(["evaluate", NAME, "--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.strip().count("\n") == 0


def test_names(tmp_path, monkeypatch, runs):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="unknown world 'nano-tablecloth'; expected one of nano-tabletop"):
        world_folder("nano-tablecloth")
    with pytest.raises(UserError, match="no run folder nano-tablecloth; .*world of the package: nano-tabletop"):
        Genie.from_pretrained("nano-tablecloth")
    monkeypatch.setitem(WORLDS, NAME, tmp_path / "nothing")
    with pytest.raises(UserError, match=r"lacks the files of nano-tabletop; .*pretrain nano-tabletop --out DIR"):
        Genie.from_pretrained(NAME)


def test_a_run_folder_of_that_name_is_preferred_and_other_folders_are_not(shipped, runs, clips):
    other = Path(NAME)  # in the working directory
    other.mkdir()
    assert locate(NAME) == shipped
    shutil.copytree(runs / "judge", other, dirs_exist_ok=True)
    assert locate(NAME) == other
    found = Genie.from_pretrained(NAME).infer_actions(clips)
    assert torch.equal(found, Genie.from_pretrained(runs / "judge").infer_actions(clips))
    assert judge_of(NAME) is None


def test_equal_runs_give_equal_bytes_in_float16(runs, tmp_path, clips):
    for name in ("a", "b"):
        export_world(runs / "run", runs / "judge", tmp_path / name, clips)
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files)
    kinds = {t.dtype for f in files if f.suffix == ".safetensors" for t in load_file(tmp_path / "a" / f).values()}
    assert kinds == {torch.float16, torch.bool}
    stored = json.loads((tmp_path / "a" / "config.json").read_text())
    assert stored["exported"]["weights"] == "float16"
    assert set(stored["exported"]["rounding"]) == {"codes", "tokens", "psnr_lost"}
    assert str(runs) not in json.dumps(stored)  # no path of the machine that trained it


def test_values_out_of_the_range_of_float16_are_kept(tmp_path, runs):
    genie = Genie.from_pretrained(runs / "run")
    genie.latent_action.quantizer.ema_count.fill_(1e6)  # infinite in float16
    genie.save_pretrained(tmp_path / "run")
    export_world(tmp_path / "run", runs / "judge", tmp_path / "world")
    loaded = Genie.from_pretrained(tmp_path / "world")
    assert loaded.latent_action.quantizer.ema_count.max() == 1e6


def test_the_effect_of_rounding_is_measured(runs, clips):
    """Planted: small weights that a later layer makes large again lose their digits in float16."""
    genie = Genie.from_pretrained(runs / "run")
    few = measure_rounding(genie, clips)
    with torch.no_grad():
        model = genie.latent_action
        for layer, scale in ((model.pool.key_value, 3e-7), (model.pool.out, 1e5), (model.to_latent, 10)):
            layer.weight.mul_(scale)
            layer.bias.mul_(0)
    many = measure_rounding(genie, clips)
    assert many["codes"] > max(0.05, few["codes"])
    assert many["tokens"] == few["tokens"]


def test_a_judge_must_be_another_model_of_the_same_frame_size(runs, tmp_path):
    with pytest.raises(UserError, match="agrees with itself"):
        export_world(runs / "run", runs / "run", tmp_path / "world")
    config = tiny_config()
    config.image_size = (32, 32)
    random_genie(config.resolved(), 1).save_pretrained(tmp_path / "large")
    with pytest.raises(UserError, match="train a judge of the same size"):
        export_world(runs / "run", tmp_path / "large", tmp_path / "world")
    assert not (tmp_path / "world").exists()


def test_a_judge_needs_only_its_latent_action_model(runs, tmp_path, clips):
    shutil.copytree(runs / "judge", tmp_path / "judge")
    for name in ("tokenizer", "dynamics"):
        shutil.rmtree(tmp_path / "judge" / name)
    export_world(runs / "run", tmp_path / "judge", tmp_path / "world")
    assert Genie.from_pretrained(tmp_path / "world" / "judge").infer_actions(clips).shape == (8, 5)
    shutil.rmtree(tmp_path / "judge" / "latent_action")
    with pytest.raises(UserError, match="latent_action"):
        export_world(runs / "run", tmp_path / "judge", tmp_path / "world")


def test_only_a_latent_action_model_can_lack_its_decoder(world):
    path = world / "dynamics" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "has_decoder": False}))
    with pytest.raises(UserError, match="unknown entry has_decoder"):
        load_component(Genie(tiny_config()).dynamics, world / "dynamics")


def test_nano_and_its_judge_fit_into_ten_megabytes(tmp_path):
    for seed in (0, 1):
        torch.manual_seed(seed)
        Genie(preset("nano")).save_pretrained(tmp_path / str(seed))
    export_world(tmp_path / "0", tmp_path / "1", tmp_path / "world")
    assert 8_000_000 < folder_bytes(tmp_path / "world") < LARGEST == 10_000_000
    loaded = Genie.from_pretrained(tmp_path / "world")
    assert loaded.num_parameters()["latent_action"] < 800_000


def test_doctor_reports_in_one_line_that_there_is_no_training_to_examine(shipped, capsys, tmp_path):
    assert main(["doctor", NAME]) == 0
    said = capsys.readouterr().out.strip()
    assert said.count("\n") == 0
    assert "no training to examine" in said
    assert main(["doctor", str(shipped), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["healthy"] is None


def test_playback_takes_the_name(shipped, capsys, tmp_path):
    """It fails only at the data, which is missing."""
    assert main(["playback", NAME, "--data", str(tmp_path / "none"), "--out", str(tmp_path / "out")]) == 2
    assert "none" in capsys.readouterr().err


def test_the_wheel_has_every_file_of_a_world(world):
    """By the patterns of pyproject.toml, for a copy of the package's layout."""
    root = Path(__file__).resolve().parents[2]
    patterns = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    package = world.parent / "package"
    inside = package / "pretrained" / "nano_tabletop"
    shutil.copytree(world, inside)
    (inside / "MODEL_CARD.md").write_text("")
    taken = {path for pattern in patterns["genie_robotics"] for path in package.glob(pattern)}
    assert taken == {path for path in inside.rglob("*") if path.is_file()}
    assert (root / "eval" / "genie_eval" / "report" / "model_card.md") in {
        path for pattern in patterns["genie_eval"] for path in (root / "eval" / "genie_eval").glob(pattern)
    }
