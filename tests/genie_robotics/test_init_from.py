"""--init: training starts from another run's weights, finds new codes, and resumes only with the same start."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from genie_datasets.base.errors import UserError
from genie_eval.pretrain.export import export_world
from genie_robotics.cli import main
from genie_robotics.genie import Genie
from genie_robotics.models.presets import preset
from genie_robotics.run_folder import load_config, on_cpu
from genie_robotics.training.init_from import init_from
from tests.genie_robotics.conftest import random_genie, tiny_config

ALL = ("tokenizer", "latent_action", "dynamics")


@pytest.fixture
def earlier(tmp_path):
    random_genie(tiny_config(), seed=3).save_pretrained(tmp_path / "earlier")
    return tmp_path / "earlier"


def test_trained_components_start_from_the_other_run_and_no_others(earlier):
    genie, before = Genie(tiny_config()), random_genie(tiny_config(), seed=3)
    dynamics = on_cpu(genie.dynamics)
    found = init_from(genie, earlier, ALL[:2])
    assert set(found) == {"tokenizer", "latent_action"}
    for name in found:
        for key, value in on_cpu(getattr(before, name)).items():
            if not key.endswith("has_started"):
                assert torch.equal(on_cpu(getattr(genie, name))[key], value), key
    assert all(torch.equal(value, dynamics[key]) for key, value in on_cpu(genie.dynamics).items())
    assert genie.tokenizer.quantizer.started
    assert not genie.latent_action.quantizer.started


def test_frozen_codes_are_found_again_in_the_new_latents(tmp_path):
    config = tiny_config()
    config.latent_action.quantizer.vq.freeze_after_init = True
    random_genie(config, seed=3).save_pretrained(tmp_path / "frozen")
    genie = Genie(config)
    init_from(genie, tmp_path / "frozen", ("latent_action",))
    quantizer = genie.latent_action.quantizer.train()
    old = quantizer.vectors.clone()
    for _ in range(6):
        _, codes, _ = quantizer(torch.randn(64, 8) + 5 * torch.eye(8)[torch.randint(4, (64,))])
    assert codes is not None
    assert (quantizer.vectors - old).abs().max() > 0.1


def test_unusable_initial_runs_are_named(earlier, tmp_path):
    genie = Genie(tiny_config())
    with pytest.raises(UserError, match=r"--init .*none: no such run folder; pass one"):
        init_from(genie, tmp_path / "none", ALL)
    with pytest.raises(UserError, match=r"trained with action_input=adaln, and this run has add; leave out --preset"):
        init_from(Genie(tiny_config("add")), earlier, ALL)
    (earlier / "dynamics" / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"has no trained dynamics; pass another run, or choose a --stage"):
        init_from(genie, earlier, ALL)


def test_the_decoder_missing_in_an_exported_world_starts_random(tmp_path):
    for seed, name in enumerate(("run", "judge")):
        random_genie(tiny_config(), seed).save_pretrained(tmp_path / name)
    export_world(tmp_path / "run", tmp_path / "judge", tmp_path / "world")
    genie = random_genie(tiny_config(), seed=7)
    before = on_cpu(genie.latent_action)
    found = init_from(genie, tmp_path / "world", ("latent_action",))
    assert found["latent_action"]["decoder"] == "random"
    exported = load_file(tmp_path / "world" / "latent_action" / "model.safetensors")
    after = on_cpu(genie.latent_action)
    assert set(after) == set(before)
    for name, value in after.items():
        if not name.endswith("has_started"):
            assert torch.equal(value, exported[name].float() if name in exported else before[name]), name
    assert not set(exported) >= set(after)
    loss, _ = genie.latent_action.train()(torch.randint(0, 256, (2, 6, 16, 16, 3), dtype=torch.uint8))
    assert torch.isfinite(loss)


def test_a_run_resumes_only_with_the_weights_it_started_from(tmp_path, tabletop_rlds, capsys):
    def call(*more, steps=2, stage="latent_action"):
        argv = ["train", str(tmp_path / "run"), "--data", str(tabletop_rlds), "--stage", stage, "--steps", str(steps)]
        return main([*argv, "--training.latent-action.batch-size", "1", "--health-every", "0", *more])

    earlier = ["--init", str(tmp_path / "earlier")]
    Genie(preset("nano")).save_pretrained(tmp_path / "earlier")
    assert call(*earlier) == 0
    assert call(*earlier, steps=3) == 0
    stored = json.loads((tmp_path / "run" / "config.json").read_text())["data"]["init"]
    assert set(stored) == {"latent_action"}
    capsys.readouterr()
    assert call(steps=4) == 2
    assert f"(--init: {tmp_path / 'earlier'} / none)" in capsys.readouterr().err
    torch.manual_seed(5)
    Genie(preset("nano")).save_pretrained(tmp_path / "earlier")  # another model under the same name
    assert call(*earlier, steps=4) == 2
    assert "pass its options to resume" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "earlier")  # its weights are in the checkpoints
    assert call(*earlier, stage="tokenizer") == 2
    assert "no such run folder" in capsys.readouterr().err
    assert call("--init", str(tmp_path / "another"), steps=4) == 2
    assert call(*earlier, steps=4) == 0
    assert json.loads((tmp_path / "run" / "config.json").read_text())["data"]["init"] == stored
    weights = load_file(tmp_path / "run" / "latent_action" / "model.safetensors")
    assert call(stage="tokenizer") == 0  # started from random weights
    assert json.loads((tmp_path / "run" / "config.json").read_text())["data"]["init"] == stored
    after = load_file(tmp_path / "run" / "latent_action" / "model.safetensors")
    assert all(torch.equal(after[key], value) for key, value in weights.items())


def test_without_a_preset_the_model_is_that_of_the_other_run(tmp_path, tabletop_rlds, capsys):
    def call(run, *more):
        argv = ["train", str(tmp_path / run), "--data", str(tabletop_rlds), "--stage", "tokenizer", "--steps", "1"]
        return main([*argv, "--training.tokenizer.batch-size", "1", "--health-every", "0", *more])

    world = preset("nano")
    world.tokenizer.reference, world.gap, world.tokenizer.encoder_num_blocks = "start", 0.5, 1
    earlier = ["--init", str(tmp_path / "earlier")]
    Genie(world.resolved()).save_pretrained(tmp_path / "earlier")
    assert call("adopts", *earlier, "--tokenizer.motion-weight", "2") == 0
    made = load_config(tmp_path / "adopts")
    assert (made.tokenizer.reference, made.tokenizer.encoder_num_blocks, made.gap) == ("start", 1, None)
    assert (made.tokenizer.motion_weight, made.preset) == (2.0, "nano")
    assert made.latent_action == world.resolved().latent_action
    assert call("keeps", *earlier, "--preset", "nano") == 2
    assert "encoder_num_blocks=1, and this run has 2; leave out --preset" in capsys.readouterr().err


def test_how_a_component_is_trained_may_differ_its_weights_may_not(earlier):
    config = tiny_config()
    config.dynamics.min_mask_rate, config.dynamics.temperature = 0.3, 0.5
    genie = Genie(config)
    init_from(genie, earlier, ("dynamics",))
    before = on_cpu(random_genie(tiny_config(), seed=3).dynamics)
    assert all(torch.equal(value, before[key]) for key, value in on_cpu(genie.dynamics).items())
    config.dynamics.num_blocks += 1
    with pytest.raises(UserError, match=r"trained with num_blocks"):
        init_from(Genie(config), earlier, ("dynamics",))
