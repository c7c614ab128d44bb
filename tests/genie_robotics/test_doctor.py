"""Each planted failure is found by the health checks in training and by `doctor`; a healthy run has no finding."""

import copy
import json

import pytest
import torch

from genie_datasets.base.errors import UserError
from genie_robotics.genie import Genie
from genie_robotics.health.commands import doctor, stored_source
from genie_robotics.health.doctor import Diagnosis, diagnose
from genie_robotics.health.findings import faults
from genie_robotics.health.history import history_figures, read_metrics
from genie_robotics.health.table import table
from genie_robotics.run_folder import save_component, save_config
from genie_robotics.training.checkpoint import Checkpoints, module_state
from tests.genie_robotics.health_world import CheckedTraining, trained_genie, world_clips, world_config


@pytest.fixture(scope="module")
def healthy():
    return trained_genie()


@pytest.fixture
def genie(healthy) -> Genie:
    """A copy of the healthy one, to plant a failure in."""
    return copy.deepcopy(healthy[0])


def saved(genie, folder, lines=(), mode="frozen", components=("tokenizer", "latent_action", "dynamics"), **data):
    save_config(genie.config, folder, training={"mode": mode}, data=data)
    for name in components:
        save_component(getattr(genie, name), folder / name)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def examined(genie, folder, lines=(), clips=None, **options) -> Diagnosis:
    return diagnose(saved(genie, folder, lines, **options), world_clips().batch(range(48)) if clips is None else clips)


def names(findings, severity="fault") -> set[tuple[str, str]]:
    return {(f.name, f.stage) for f in findings if f.severity == severity}


# ---- healthy


def test_a_healthy_run_has_no_findings(healthy, tmp_path):
    genie, reported, lines = healthy
    assert reported == {"tokenizer": [], "latent_action": [], "dynamics": []}
    found = examined(genie, tmp_path, lines)
    assert found.findings == []
    assert found.num_checks >= 18
    assert "nothing wrong" in found.answer
    assert set(found.state.values()) == {"trained"}
    assert found.figures["dynamics"]["token_loss_true"] < 0.1 < 1 < found.figures["dynamics"]["token_loss_shuffled"]
    assert found.figures["latent_action"]["code_perplexity"] == pytest.approx(4, abs=0.1)


# ---- collapsed codebooks


def all_latents_equal(genie, name):
    getattr(genie, name).to_latent.weight.data.zero_()


def all_vectors_equal(genie, name):
    quantizer = getattr(genie, name).quantizer
    quantizer.codebook.copy_(quantizer.codebook[:1].expand_as(quantizer.codebook))
    quantizer.ema_sum.copy_(quantizer.codebook * quantizer.ema_count.unsqueeze(-1))


def one_code_wins(genie, name):
    quantizer = getattr(genie, name).quantizer
    quantizer.codebook[1:] += 1000.0
    quantizer.ema_sum.copy_(quantizer.codebook * quantizer.ema_count.unsqueeze(-1))
    quantizer.config.vq.dead_code_threshold = 0.0


@pytest.mark.parametrize("stage", ["tokenizer", "latent_action"])
@pytest.mark.parametrize("plant", [all_latents_equal, all_vectors_equal, one_code_wins])
def test_a_collapsed_codebook_is_found(genie, stage, plant, tmp_path):
    plant(genie, stage)
    found = examined(genie, tmp_path)
    assert ("collapsed_codebook", stage) in names(found.findings)
    assert "--" in found.findings[0].remedy
    if plant is all_vectors_equal:
        return  # training separates them again within one batch
    training = CheckedTraining(genie, stage, world_clips())
    reported = training.train(160, learn=False)
    assert ("collapsed_codebook", stage) in names(reported)


def test_codes_that_are_used_equally_and_have_equal_vectors_are_found(genie, tmp_path):
    """The perplexity is high: latents and codes differ by noise."""
    model = genie.latent_action
    model.to_latent.weight.data *= 1e-4
    clips = world_clips()
    with torch.no_grad():
        latents = torch.cat([model.embed(clips.batch(range(i, i + 32))) for i in range(0, 128, 32)]).flatten(0, 1)
    model.quantizer.start(latents, 240)
    found = examined(genie, tmp_path)
    assert found.figures["latent_action"]["code_bits"] > 0.5
    assert ("collapsed_codebook", "latent_action") in names(found.findings)


# ---- ignored actions


def deaf(genie) -> Genie:
    """The world with an untrained dynamics that its actions cannot reach."""
    torch.manual_seed(0)
    genie.dynamics = Genie(genie.config).dynamics
    genie.dynamics.action_in.weight.data.zero_()
    genie.dynamics.action_in.weight.register_hook(torch.zeros_like)
    return genie


def test_a_dynamics_that_ignores_its_actions_is_found(genie, tmp_path):
    training = CheckedTraining(deaf(genie), "dynamics", world_clips())
    reported = training.train(60)
    assert ("ignored_action", "dynamics") in names(reported)
    remedy = next(f.remedy for f in reported if f.name == "ignored_action")
    assert "--dynamics.action-input prepend or add" in remedy
    found = examined(genie, tmp_path, training.lines)
    assert ("ignored_action", "dynamics") in names(found.findings)
    assert found.figures["dynamics"]["action_gap"] == 0


def test_ignored_actions_are_not_judged_early_in_a_stage(genie):
    training = CheckedTraining(deaf(genie), "dynamics", world_clips())
    training.train(5, check_every=1000, learn=False)
    frames = training.frames()
    assert not training.health.check(5, frames, progress=0.2)[1]
    assert ("ignored_action", "dynamics") in names(training.health.check(6, frames, progress=0.6)[1])


def test_latent_actions_that_their_decoder_ignores_are_found(genie, tmp_path):
    genie.latent_action.from_latent.weight.data.zero_()
    found = examined(genie, tmp_path)
    assert ("ignored_action", "latent_action") in names(found.findings)
    training = CheckedTraining(genie, "latent_action", world_clips())
    assert ("ignored_action", "latent_action") in names(training.train(60, learn=False))


def test_a_decoder_that_is_not_trained_is_not_judged(genie, tmp_path):
    genie.latent_action.from_latent.weight.data.zero_()
    found = examined(genie, tmp_path, mode="end_to_end")
    assert not faults(found.findings)
    training = CheckedTraining(genie, "joint", world_clips(), mode="end_to_end")
    assert not faults(training.train(40, learn=False))
    assert "action_gap" in training.figures
    assert "action_gain" not in training.figures


def test_latent_actions_that_explain_nothing_are_found(genie, tmp_path):
    genie.latent_action.patch_out.weight.data.zero_()
    genie.latent_action.patch_out.bias.data.zero_()
    found = examined(genie, tmp_path)
    assert ("no_motion_explained", "latent_action") in names(found.findings)
    training = CheckedTraining(genie, "latent_action", world_clips())
    assert ("no_motion_explained", "latent_action") in names(training.train(60, learn=False))


# ---- tokenizer


def test_a_tokenizer_that_cannot_show_motion_is_found(genie, tmp_path):
    genie.tokenizer.patch_out.weight.data.zero_()
    genie.tokenizer.patch_out.bias.data.fill_(-0.5)  # black
    found = examined(genie, tmp_path)
    assert ("tokenizer_floor", "tokenizer") in names(found.findings)
    training = CheckedTraining(genie, "tokenizer", world_clips())
    assert ("tokenizer_floor", "tokenizer") in names(training.train(40, learn=False))


# ---- data


@pytest.mark.parametrize("stage", ["tokenizer", "latent_action", "dynamics"])
def test_static_data_with_noise_is_found(genie, stage, tmp_path):
    training = CheckedTraining(genie, stage, world_clips(static=True))
    reported = training.train(40, learn=False)
    assert ("static_data", "data") in names(reported)
    assert "--gap" in next(f for f in reported if f.name == "static_data").remedy
    found = examined(genie, tmp_path, clips=world_clips(static=True).batch(range(16)))
    assert ("static_data", "data") in names(found.findings)
    assert found.findings[0].stage == "data", "the cause comes first"


# ---- losses, gradients, numbers


def test_an_exploding_loss_is_found(healthy, genie, tmp_path):
    training = CheckedTraining(genie, "dynamics", world_clips())
    training.config.warmup_steps = 1
    calm = training.train(40)
    training.optimizers.peaks[0] = 3.0  # a far too high learning rate
    reported = training.train(60)
    assert calm == []
    assert names(reported) == {("exploding_loss", "dynamics")}, "and nothing that follows from it"
    assert "--training.dynamics.learning-rate" in next(f for f in reported if f.name == "exploding_loss").remedy
    found = examined(genie, tmp_path, training.lines)
    assert ("exploding_loss", "dynamics") in names(found.findings)


def test_a_loss_that_explodes_from_the_first_step_is_found(tmp_path):
    torch.manual_seed(0)
    training = CheckedTraining(Genie(world_config()), "tokenizer", world_clips(), rate=30.0)
    training.config.warmup_steps = 1
    assert ("exploding_loss", "tokenizer") in names(training.train(40))
    found = examined(training.genie, tmp_path, training.lines)
    assert ("exploding_loss", "tokenizer") in names(found.findings)


def test_a_gradient_that_explodes_is_found():
    torch.manual_seed(0)
    training = CheckedTraining(Genie(world_config()), "dynamics", world_clips())
    for step in range(1, 101):
        norm = torch.tensor(1.0 if step <= 80 else 40.0)
        training.health.observe(step, {"loss": torch.tensor(1.0), "grad_norm": norm})
        if step % 20 == 0:
            found = training.health.check(step, training.frames(), progress=0.1)[1]
            assert names(found, "warning") == ({("exploding_gradient", "dynamics")} if step == 100 else set())


def test_a_loss_that_never_moves_is_found(genie, tmp_path):
    torch.manual_seed(0)
    genie.dynamics = Genie(genie.config).dynamics
    training = CheckedTraining(genie, "dynamics", world_clips())
    assert ("not_learning", "dynamics") in names(training.train(40, learn=False))
    found = examined(genie, tmp_path, training.lines)
    assert ("not_learning", "dynamics") in names(found.findings)


@pytest.mark.parametrize("stage", ["tokenizer", "latent_action", "dynamics"])
def test_weights_that_are_not_finite_are_found(genie, stage, tmp_path):
    training = CheckedTraining(genie, stage, world_clips())
    training.train(20, check_every=1000, learn=False)
    part = getattr(genie, stage)
    next(p for p in part.parameters() if p.ndim == 2).data[0, 0] = float("nan")
    reported = training.health.check(20, training.frames())[1]
    assert names(reported) == {("not_finite", stage)}
    found = examined(genie, tmp_path)
    assert names(found.findings) == {("not_finite", stage)}


def test_a_gradient_that_was_not_finite_is_found_in_the_metrics(genie, tmp_path):
    lines = [{"stage": "dynamics", "step": s, "loss": 0.1, "grad_norm": None if s == 3 else 1.0} for s in range(9)]
    assert names(examined(genie, tmp_path, lines).findings) == {("not_finite", "dynamics")}


# ---- incomplete run folders


def test_metrics_with_a_cut_off_line_a_repeated_step_and_other_lines_are_read(tmp_path):
    good = [{"stage": "dynamics", "step": s, "loss": 2.0 + s, "grad_norm": 1.0} for s in (1, 2, 3)]
    again = {"stage": "dynamics", "step": 3, "loss": 0.5, "text": "words", "flag": True}
    lines = [json.dumps(line) for line in [*good, again, ["no", "object"], {"no": "stage"}]]
    (tmp_path / "metrics.jsonl").write_text("\n".join([*lines, '{"stage": "dynamics", "st']))
    stages = read_metrics(tmp_path)
    assert [line["loss"] for line in stages["dynamics"]] == [3.0, 4.0, 0.5]
    assert "text" not in stages["dynamics"][-1]
    assert read_metrics(tmp_path / "nowhere") == {}


def test_the_loss_starts_again_with_quantization():
    """The error of latent actions rises when they become codes, which is not an exploding loss."""
    lines = [{"step": s, "error_share": 0.2} for s in range(20)]
    lines += [{"step": 20 + s, "error_share": 0.6, "perplexity": 7.0} for s in range(20)]
    assert history_figures(lines, "latent_action", world_config())["loss_rise"] == 1
    for line in lines:
        line.pop("perplexity", None)
    assert history_figures(lines, "latent_action", world_config())["loss_rise"] == pytest.approx(3)


def test_a_run_without_its_last_stages_is_judged_by_its_first(genie, tmp_path):
    found = examined(genie, tmp_path, [], components=("tokenizer",))
    assert found.state == {"tokenizer": "trained", "latent_action": "not started", "dynamics": "not started"}
    missing = {("missing_stage", "latent_action"), ("missing_stage", "dynamics")}
    assert names(found.findings, "warning") == missing
    assert not faults(found.findings)
    assert "floor" in found.figures["tokenizer"]


def test_a_stage_in_training_is_judged_from_its_checkpoint_by_rules_that_need_no_training(genie, tmp_path):
    healthy = genie.latent_action
    torch.manual_seed(1)
    genie.latent_action = Genie(genie.config).latent_action
    run = saved(genie, tmp_path, components=("tokenizer",))
    clips = world_clips().batch(range(32))
    content = {"components": {"latent_action": module_state(genie.latent_action)}}
    Checkpoints(run / "state" / "latent_action").save(40, content)
    found = diagnose(run, clips)
    assert found.state["latent_action"] == "at step 40"
    assert ("unfinished_stage", "latent_action") in names(found.findings, "warning")
    assert not faults(found.findings)
    assert any("quantization has not started" in note for note in found.notes)
    all_latents_equal(genie, "tokenizer")  # the weights of the checkpoint are measured, not these
    genie.latent_action = healthy
    all_latents_equal(genie, "latent_action")
    content = {"components": {"latent_action": module_state(genie.latent_action)}}
    Checkpoints(run / "state" / "latent_action").save(60, content)
    assert ("collapsed_codebook", "latent_action") in names(diagnose(run, clips).findings)


def test_damaged_weights_are_a_finding(genie, tmp_path):
    run = saved(genie, tmp_path)
    path = run / "dynamics" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    found = diagnose(run, world_clips().batch(range(16)))
    assert names(found.findings) == {("damaged_weights", "dynamics")}
    assert found.state["dynamics"] == "damaged"
    assert "damaged_weights" in table(found)


def test_without_clips_the_latest_figures_of_training_count(genie, tmp_path):
    lines = [{"stage": "dynamics", "step": 100, "loss": 0.4, "action_gap": 0.001, "static_share": 1.0}]
    run = saved(genie, tmp_path, lines)
    assert names(diagnose(run, None).findings) == {("ignored_action", "dynamics"), ("static_data", "data")}
    assert not faults(diagnose(run, world_clips().batch(range(32))).findings), "measured figures replace logged ones"


# ---- the command


@pytest.fixture
def video(tmp_path):
    """The world as a frame cache, which can be opened."""
    from genie_datasets import build_frame_cache
    from tests.genie_robotics.health_world import Colors

    split = Colors()
    build_frame_cache(split, tmp_path / "video", (8, 8), "crop")
    return tmp_path / "video"


def test_the_command_prints_an_answer_a_table_and_a_remedy_and_exits_0_or_1(genie, tmp_path, video, capsys):
    run = saved(genie, tmp_path / "run", source=str(video), split="train")
    assert doctor([str(run), "--clips", "32"]) == 0
    text = capsys.readouterr().out
    assert "nothing wrong in" in text.splitlines()[0]
    assert "32 clips of" in text
    genie.dynamics.action_in.weight.data.zero_()
    save_component(genie.dynamics, run / "dynamics")
    assert doctor([str(run), "--clips", "32"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("1 fault: ignored_action (dynamics)")
    row = next(i for i, line in enumerate(lines) if line.endswith("fault ignored_action"))
    assert "remedy: use --dynamics.action-input" in lines[row + 2]


def test_json_is_one_object(genie, tmp_path, video, capsys):
    genie.dynamics.action_in.weight.data.zero_()
    run = saved(genie, tmp_path / "run")
    assert doctor([str(run), "--data", str(video), "--clips", "16", "--json"]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert printed["healthy"] is False
    assert [f["name"] for f in printed["findings"]] == ["ignored_action"]
    assert printed["figures"]["data"]["static_share"] == 0


def test_missing_data_is_noted_and_the_rest_judged(genie, tmp_path, capsys):
    run = saved(genie, tmp_path / "run", source="/nowhere/to/be/found", split="train")
    assert doctor([str(run)]) == 0
    assert "not measured on clips" in capsys.readouterr().out


@pytest.mark.parametrize("case", ["no folder", "no run", "no data", "no clips"])
def test_mistakes_are_one_line(case, genie, tmp_path):
    run = tmp_path / "run"
    arguments = [str(run)]
    if case == "no run":
        run.mkdir()
    if case in ("no data", "no clips"):
        saved(genie, run)
        arguments += ["--data", str(tmp_path / "nowhere")] if case == "no data" else ["--clips", "1"]
    with pytest.raises(UserError) as error:
        doctor(arguments)
    assert len(str(error.value).splitlines()) == 1


def test_a_relative_source_is_found_from_the_run_folder(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    run = tmp_path / "runs" / "a"
    run.mkdir(parents=True)
    monkeypatch.chdir(run)
    assert stored_source("data", run) == str(tmp_path.resolve() / "data")
    assert stored_source("nowhere", run) == "nowhere"
