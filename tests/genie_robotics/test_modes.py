"""The four training modes: who learns from whose loss, what a run folder holds, and what is refused."""

import pytest
import torch
from torch import nn

from genie_datasets.errors import UserError
from genie_robotics.genie import COMPONENTS, Genie
from genie_robotics.training.config import StageConfig, TrainingConfig
from genie_robotics.training.run import RunPlan, train_run
from genie_robotics.training.stages import MODES, build_stage, needs, stages_of
from genie_robotics.training.trainer import LoopConfig
from tests.genie_robotics.conftest import Squares, random_genie, tiny_config


def gradients(stage: str, mode: str, part: str, **changes) -> dict[str, torch.Tensor | None]:
    """Of one component after one backward pass of a stage, on fixed weights, clips and masks."""
    genie = random_genie(tiny_config(**changes))
    frames = Squares(4, 6).video
    module = build_stage(genie, stage, mode)
    torch.manual_seed(0)
    loss, _ = module(torch.from_numpy(frames))
    loss.backward()
    return {name: p.grad for name, p in getattr(genie, part).named_parameters()}


def norm(parts: dict[str, torch.Tensor | None], prefix: str) -> float:
    return sum(float(g.norm()) for name, g in parts.items() if name.startswith(prefix) and g is not None)


def test_cotraining_gives_the_latent_actions_the_gradient_they_have_alone():
    alone = gradients("latent_action", "frozen", "latent_action")
    together = gradients("joint", "cotrain", "latent_action")
    assert norm(alone, "encoder") > 0
    for name in alone:
        assert torch.equal(alone[name], together[name]), name
    assert norm(gradients("joint", "cotrain", "dynamics"), "transformer") > 0


def test_after_warm_up_both_losses_teach_the_latent_actions():
    alone = gradients("latent_action", "frozen", "latent_action")
    together = gradients("joint", "warmup", "latent_action")
    for name in alone:
        same = torch.equal(alone[name], together[name])
        assert same == name.startswith(("decoder", "from_latent", "patch_out")), name


def test_end_to_end_only_the_dynamics_teaches_and_the_decoder_rests():
    found = gradients("joint", "end_to_end", "latent_action")
    for name, gradient in found.items():
        rests = name.startswith(("decoder", "from_latent", "patch_out"))
        assert (gradient is None) == rests, name
    assert norm(found, "encoder.blocks") > 0
    assert norm(found, "pool") > 0


@pytest.mark.parametrize("mode", MODES)
def test_frozen_components_get_no_gradient(mode):
    last = MODES[mode][-1]
    for part in set(COMPONENTS) - {"dynamics", *(["latent_action"] if last == "joint" else [])}:
        assert all(g is None for g in gradients(last, mode, part).values())


def training(mode: str) -> TrainingConfig:
    stage = StageConfig(steps=8, batch_size=2, learning_rate=1e-3, warmup=2)
    return TrainingConfig(mode, *(StageConfig(**vars(stage)) for _ in range(4)))


class Source:
    name, path, fingerprint = "squares", "memory", "squares"

    def split(self, name):
        return Squares()


@pytest.fixture
def cached_clips(monkeypatch, clips):
    import genie_robotics.training.run as run

    monkeypatch.setattr(run, "open_clips", lambda *_: clips)


def train(folder, config, mode, stage="all"):
    loop = LoopConfig(save_every=3, log_every=1, quiet=True)
    train_run(folder, Source(), "train", RunPlan(config, training(mode), loop, stage, device="cpu"))


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_ends_in_a_run_that_plays(tmp_path, config, frames, cached_clips, mode):
    train(tmp_path, config, mode)
    genie = Genie.from_pretrained(tmp_path)
    codes = genie.infer_actions(frames)
    assert codes.shape == (3, 7)
    assert genie.generate(frames[:, :1], codes[:, :3]).shape == (3, 3, 16, 16, 3)
    torch.manual_seed(0)
    fresh = Genie(config)
    for name in COMPONENTS:
        before, after = (nn.utils.parameters_to_vector(getattr(g, name).parameters()) for g in (fresh, genie))
        assert not torch.equal(before, after), f"{name} was not trained"
    train(tmp_path, config, mode)  # the same call once more changes nothing
    again = Genie.from_pretrained(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(genie.parameters(), again.parameters(), strict=True))


def test_a_run_keeps_its_mode(tmp_path, config, cached_clips):
    train(tmp_path, config, "frozen", "tokenizer")
    with pytest.raises(UserError, match=r"another configuration \(mode: frozen / cotrain\)"):
        train(tmp_path, config, "cotrain")


def test_what_a_mode_has_and_needs():
    assert stages_of("warmup") == ("tokenizer", "latent_action", "joint")
    assert stages_of("cotrain", "joint") == ("joint",)
    assert needs("joint", "cotrain") == ("tokenizer",)
    assert needs("joint", "warmup") == needs("dynamics", "frozen") == ("tokenizer", "latent_action")
    with pytest.raises(UserError, match="--mode must be one of frozen, cotrain"):
        stages_of("both")
    with pytest.raises(UserError, match="--stage must be all, tokenizer, joint with --mode cotrain, not dynamics"):
        stages_of("cotrain", "dynamics")


def test_a_stage_without_what_it_needs_says_so(tmp_path, config, cached_clips):
    with pytest.raises(UserError, match=r"tokenizer/config.json is missing"):
        train(tmp_path, config, "cotrain", "joint")


def test_a_damaged_result_that_was_deleted_is_written_anew(tmp_path, config, cached_clips):
    train(tmp_path, config, "warmup")
    path = tmp_path / "latent_action" / "model.safetensors"
    whole = path.read_bytes()
    path.unlink()
    train(tmp_path, config, "warmup")
    assert path.read_bytes() == whole, "of the joint stage, though latent_action trained it first"
