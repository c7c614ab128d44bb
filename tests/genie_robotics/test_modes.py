"""The four training modes: which loss trains which component, what a run folder holds, and what is refused."""

import dataclasses
import shutil

import pytest
import torch
from torch import nn

from genie_datasets.base.errors import UserError
from genie_robotics.genie import Genie
from genie_robotics.models.config import COMPONENTS
from genie_robotics.models.presets import preset
from genie_robotics.run_folder import locked, save_component
from genie_robotics.training.config import LoopConfig, StageConfig, TrainingConfig
from genie_robotics.training.run import RunPlan, check_plan, train_run
from genie_robotics.training.stages import MODES, STAGES, stages_of
from tests.genie_robotics.conftest import Squares, random_genie, tiny_config


def gradients(stage: str, mode: str, part: str, **changes) -> dict[str, torch.Tensor | None]:
    """Gradients of one component after one backward pass of a stage, on fixed weights, clips and masks."""
    genie = random_genie(tiny_config(**changes))
    frames = Squares(4, 6).video
    module = STAGES[stage](genie, mode)
    torch.manual_seed(0)
    loss, _ = module(torch.from_numpy(frames))
    loss.backward()
    return {name: p.grad for name, p in getattr(genie, part).named_parameters()}


def norm(parts: dict[str, torch.Tensor | None], prefix: str) -> float:
    return sum(float(g.norm()) for name, g in parts.items() if name.startswith(prefix) and g is not None)


def test_cotraining_gives_the_latent_actions_the_gradient_of_their_own_stage():
    alone = gradients("latent_action", "frozen", "latent_action")
    together = gradients("joint", "cotrain", "latent_action")
    assert norm(alone, "encoder") > 0
    for name in alone:
        assert torch.equal(alone[name], together[name]), name
    assert norm(gradients("joint", "cotrain", "dynamics"), "transformer") > 0


def test_after_warmup_both_losses_train_the_latent_actions():
    alone = gradients("latent_action", "frozen", "latent_action")
    together = gradients("joint", "warmup", "latent_action")
    for name in alone:
        same = torch.equal(alone[name], together[name])
        assert same == name.startswith(("decoder", "from_latent", "patch_out")), name


@pytest.mark.parametrize("mode", ["cotrain", "warmup", "end_to_end"])
@pytest.mark.parametrize("name", ["nano", "small"])
def test_presets_with_frozen_codes_pass_gradients_in_modes_that_need_them(name, mode):
    assert preset(name).latent_action.quantizer.vq.freeze_after_init
    assert not preset(name, mode).latent_action.quantizer.vq.freeze_after_init
    config = tiny_config()
    config.latent_action.quantizer.vq.freeze_after_init = True
    if mode == "cotrain":  # the actions learn from their own loss until the codes are frozen
        STAGES["joint"](random_genie(config), mode)
        return
    words = f"--mode {mode} .* freeze-after-init they pass none; pass --latent-action.quantizer.vq.no-freeze-after-init"
    with pytest.raises(UserError, match=words):
        STAGES["joint"](random_genie(config), mode)
    plan = RunPlan(config, TrainingConfig(mode), LoopConfig())
    with pytest.raises(UserError, match=words):  # before earlier stages are trained
        check_plan(plan, stages_of(mode))


def test_end_to_end_only_the_dynamics_trains_the_actions_and_the_decoder_is_unused():
    found = gradients("joint", "end_to_end", "latent_action")
    for name, gradient in found.items():
        unused = name.startswith(("decoder", "from_latent", "patch_out"))
        assert (gradient is None) == unused, name
    assert norm(found, "encoder.blocks") > 0
    assert norm(found, "pool") > 0


@pytest.mark.parametrize("mode", MODES)
def test_frozen_components_get_no_gradient(mode):
    last = MODES[mode][-1]
    for part in set(COMPONENTS) - {"dynamics", *(["latent_action"] if last == "joint" else [])}:
        assert all(g is None for g in gradients(last, mode, part).values())


def training(mode: str, **changes: dict) -> TrainingConfig:
    """`changes`: {stage: {field: value}}."""
    stages = {name: StageConfig(steps=8, batch_size=2, learning_rate=1e-3, warmup_steps=2) for name in STAGES}
    for name, values in changes.items():
        stages[name] = dataclasses.replace(stages[name], **values)
    return TrainingConfig(mode, **stages)


class Source:
    name, path, fingerprint = "squares", "memory", "squares"

    def split(self, name):
        return Squares()


@pytest.fixture
def cached_clips(monkeypatch, clips):
    import genie_robotics.training.run as run

    monkeypatch.setattr(run, "open_clips", lambda *_: clips)


def train(folder, config, mode, stage="all", **changes):
    """`changes`: fields of a stage (a dict), of the loop, or of the plan."""
    stages = {name: values for name, values in changes.items() if name in STAGES}
    plan_fields = {name: changes[name] for name in ("minutes", "device", "precision") if name in changes}
    rest = {name: value for name, value in changes.items() if name not in {*stages, *plan_fields}}
    loop = LoopConfig(**{"save_every": 3, "log_every": 1, "quiet": True, **rest})
    plan = RunPlan(config, training(mode, **stages), loop, stage, **{"device": "cpu", **plan_fields})
    train_run(folder, Source(), "train", plan)


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
    train(tmp_path, config, mode)  # the same call again changes nothing
    again = Genie.from_pretrained(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(genie.parameters(), again.parameters(), strict=True))


def test_a_run_keeps_its_mode(tmp_path, config, cached_clips):
    train(tmp_path, config, "frozen", "tokenizer")
    with pytest.raises(UserError, match=r"another configuration \(mode: frozen / cotrain\)"):
        train(tmp_path, config, "cotrain")


def test_stages_of_a_mode_and_what_they_need():
    assert stages_of("warmup") == ("tokenizer", "latent_action", "joint")
    assert stages_of("cotrain", "joint") == ("joint",)
    config = tiny_config()
    assert STAGES["joint"].needs(config, "cotrain") == ("tokenizer",)
    assert STAGES["joint"].needs(config, "warmup") == ("tokenizer", "latent_action")
    assert STAGES["joint"].reads(config, "warmup") == ("tokenizer",)
    assert STAGES["dynamics"].needs(config, "frozen") == ("tokenizer", "latent_action")
    with pytest.raises(UserError, match="--mode must be one of frozen, cotrain"):
        stages_of("both")
    with pytest.raises(UserError, match="--stage must be all, tokenizer, joint with --mode cotrain, got dynamics"):
        stages_of("cotrain", "dynamics")


def test_a_stage_whose_input_is_not_trained_is_refused(tmp_path, config, cached_clips):
    with pytest.raises(UserError, match="joint needs a trained tokenizer, and .* has none; train it"):
        train(tmp_path, config, "cotrain", "joint")


def test_a_deleted_result_is_written_again(tmp_path, config, cached_clips):
    train(tmp_path, config, "warmup")
    path = tmp_path / "latent_action" / "model.safetensors"
    whole = path.read_bytes()
    path.unlink()
    train(tmp_path, config, "warmup")
    assert path.read_bytes() == whole, "written by the joint stage, although latent_action trained it first"


def test_a_stage_trained_on_another_tokenizer_does_not_count_as_done(tmp_path, config, cached_clips):
    train(tmp_path, config, "frozen")
    before = (tmp_path / "dynamics" / "model.safetensors").read_bytes()
    with pytest.raises(UserError, match=r"state/dynamics was trained on another tokenizer .*delete that folder"):
        train(tmp_path, config, "frozen", tokenizer={"steps": 10})
    assert (tmp_path / "dynamics" / "model.safetensors").read_bytes() == before
    shutil.rmtree(tmp_path / "state" / "dynamics")
    train(tmp_path, config, "frozen", tokenizer={"steps": 10})
    assert (tmp_path / "dynamics" / "model.safetensors").read_bytes() != before


def test_an_earlier_stage_does_not_overwrite_the_component_of_a_later_one(tmp_path, config, cached_clips):
    train(tmp_path, config, "warmup")
    path = tmp_path / "latent_action" / "model.safetensors"
    joint = path.read_bytes()
    with pytest.raises(UserError, match="state/joint was trained on another latent_action"):
        train(tmp_path, config, "warmup", latent_action={"steps": 10})
    assert path.read_bytes() == joint
    (tmp_path / "state" / "latent_action" / "published").unlink()
    with pytest.raises(UserError):
        train(tmp_path, config, "warmup", latent_action={"steps": 10})
    assert path.read_bytes() == joint
    train(tmp_path, config, "warmup", "joint")  # alone, from the run folder: it is already done
    assert path.read_bytes() == joint


def test_a_damaged_result_is_restored_from_its_checkpoint(tmp_path, config, cached_clips):
    train(tmp_path, config, "frozen", "tokenizer")
    path = tmp_path / "tokenizer" / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-8] + b"damaged!")
    (tmp_path / "tokenizer" / "config.json").unlink()
    train(tmp_path, config, "frozen", "tokenizer")
    assert path.read_bytes() == whole
    assert (tmp_path / "tokenizer" / "config.json").exists()


def test_a_refused_resume_changes_nothing(tmp_path, config, cached_clips):
    train(tmp_path, config, "frozen", "tokenizer")
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(UserError, match="trained with other options .*ema"):
        train(tmp_path, config, "frozen", "tokenizer", tokenizer={"ema": 0.9})
    with pytest.raises(UserError, match=r"another configuration \(seed: 0 / 7\)"):
        train(tmp_path, config, "frozen", "tokenizer", seed=7)
    with pytest.raises(UserError, match="--keep must be at least 1"):
        train(tmp_path, config, "frozen", "tokenizer", keep=0)
    assert (tmp_path / "config.json").read_bytes() == before


def test_changed_options_are_reported(tmp_path, config, cached_clips, capsys):
    train(tmp_path, config, "frozen", "tokenizer")
    train(tmp_path, config, "frozen", "tokenizer", quiet=False, tokenizer={"steps": 9})
    assert "will not end as it would have" not in capsys.readouterr().out
    train(tmp_path, config, "frozen", "tokenizer", quiet=False, tokenizer={"steps": 10, "batch_size": 3})
    assert "training.tokenizer.batch_size was 2 and is now 3" in capsys.readouterr().out


def test_weights_that_are_not_finite_are_refused(tmp_path, config, cached_clips):
    train(tmp_path, config, "frozen", "tokenizer")
    genie = Genie(config)
    genie.tokenizer.patch_in.weight.data[0, 0] = float("nan")
    save_component(genie.tokenizer, tmp_path / "tokenizer")
    train(tmp_path, config, "frozen", "latent_action")
    with pytest.raises(UserError, match=r"tokenizer: some of its weights are not finite"):
        train(tmp_path, config, "frozen", "dynamics")


def test_components_copied_from_another_run_are_used(tmp_path, config, cached_clips):
    train(tmp_path / "one", config, "frozen", "tokenizer")
    shutil.copytree(tmp_path / "one" / "tokenizer", tmp_path / "two" / "tokenizer")
    train(tmp_path / "two", config, "cotrain", "joint")
    a, b = (tmp_path / run / "tokenizer" / "model.safetensors" for run in ("one", "two"))
    assert a.read_bytes() == b.read_bytes()
    Genie.from_pretrained(tmp_path / "two")


def test_two_processes_cannot_train_one_run(tmp_path, config, cached_clips):
    with locked(tmp_path), pytest.raises(UserError, match="another process is already training .*; wait"):
        train(tmp_path, config, "frozen", "tokenizer")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokenizer": {"learning_rate": -1.0}}, "--training.tokenizer.learning-rate must be above 0"),
        ({"dynamics": {"clip_gradient": 0.0}}, "--training.dynamics.clip-gradient must be above 0"),
        ({"latent_action": {"beta1": 2.0}}, "--training.latent-action.beta1 must be at least 0 and below 1"),
        ({"save_every": 0}, "--save-every must be at least 1"),
        ({"workers": -1}, "--workers must be at least 0"),
        ({"minutes": -1.0}, "--minutes must be above 0"),
        ({"minutes": float("nan")}, "--minutes must be above 0"),
        ({"precision": "int8"}, "--precision must be auto, bfloat16 or float32"),
        ({"device": "nonsense"}, "--device must be auto, cpu or cuda"),
    ],
)
def test_impossible_options_are_refused_before_anything_is_written(tmp_path, config, cached_clips, changes, message):
    with pytest.raises(UserError, match=message):
        train(tmp_path / "run", config, "frozen", **changes)
    assert not (tmp_path / "run").exists()


def test_a_model_that_cannot_be_built_is_refused(tmp_path, config, cached_clips):
    config.dynamics.num_heads = 3
    with pytest.raises(UserError, match="this model cannot be built: .*16.*3"):
        train(tmp_path, config, "frozen")
