"""Health checks of training: they survive a resume, change nothing, and do not repeat themselves."""

import io

import pytest
import torch

from genie_robotics.genie import Genie
from genie_robotics.health.findings import Finding
from genie_robotics.training.health_checks import HealthChecks, HealthChecksConfig
from genie_robotics.training.stages import MODES, STAGES
from tests.genie_robotics.conftest import random_genie
from tests.genie_robotics.health_world import CheckedTraining, world_clips, world_config

JOINT = [mode for mode in MODES if "joint" in MODES[mode]]


def stored(state):
    """The state as a checkpoint keeps it: tensors and plain numbers only."""
    box = io.BytesIO()
    torch.save(state, box)
    box.seek(0)
    return torch.load(box, weights_only=True)


@pytest.mark.parametrize(("mode", "stage"), [("frozen", s) for s in MODES["frozen"]] + [(m, "joint") for m in JOINT])
def test_a_resumed_run_reports_what_the_uninterrupted_one_reports(mode, stage):
    """Interrupted between two checks, in every stage of every mode: equal figures to the bit, findings and state."""
    clips = world_clips()

    def begin():
        torch.manual_seed(0)
        genie = random_genie(world_config())
        for name in STAGES[stage].trains:  # quantization starts within the test, and the loss with it
            if name != "dynamics":
                getattr(genie, name).quantizer.has_started.fill_(False)
        return CheckedTraining(genie, stage, clips, mode=mode, repeat_every=2, pooled=3)

    whole = begin()
    reported = [whole.train(10, check_every=5) for _ in range(4)]
    cut = begin()
    for i in range(4):
        assert cut.train(7, check_every=5) + cut.train(3, check_every=5) == reported[i]
        other = HealthChecks(cut.genie, STAGES[stage], mode, cut.health.config, steps_per_epoch=15)
        other.load_state_dict(stored(cut.health.state_dict()))
        cut.health = other
    assert cut.figures == whole.figures
    assert any(reported)
    a, b = whole.health.state_dict(), cut.health.state_dict()
    assert str(a) == str(b)


def test_checks_do_not_change_training():
    genies = []
    for check_every in (3, 10**6):
        torch.manual_seed(0)
        genie = random_genie(world_config())
        CheckedTraining(genie, "joint", world_clips(), mode="cotrain").train(12, check_every=check_every)
        genies.append(genie)
    for (name, a), (_, b) in zip(genies[0].state_dict().items(), genies[1].state_dict().items(), strict=True):
        assert torch.equal(a, b), name
    assert [p.training for p in genies[0].modules()] == [p.training for p in genies[1].modules()]
    for (name, a), (_, b) in zip(genies[0].named_buffers(), genies[1].named_buffers(), strict=True):
        assert torch.equal(a, b), name


def test_codes_are_counted_over_epochs():
    training = CheckedTraining(random_genie(world_config()), "latent_action", world_clips())
    training.health.steps_per_epoch = 10
    quantizer = training.genie.latent_action.quantizer
    training.train(9, check_every=10**6)
    assert quantizer.usage.sum() == 9 * 8 * 5
    training.train(1, check_every=10**6)
    assert quantizer.usage.sum() == 0
    assert training.health.epoch["latent_action"].sum() == 10 * 8 * 5
    training.train(5)
    assert quantizer.usage.sum() == 5 * 8 * 5


def test_codes_are_not_judged_before_quantization_starts():
    torch.manual_seed(0)
    config = world_config()
    config.latent_action.quantizer.vq.quantize_after_steps = 10**6
    config.latent_action.quantizer.vq.quantize_after_fraction = 2.0
    training = CheckedTraining(Genie(config), "latent_action", world_clips())
    training.train(20)
    assert not [name for name in training.figures if name.startswith(("code", "dead", "action"))]
    assert "error_share" in training.figures


def test_values_stay_on_their_device_until_a_check(monkeypatch):
    health = HealthChecks(random_genie(world_config()), STAGES["dynamics"])
    for name in ("item", "__float__", "__bool__", "tolist", "cpu"):
        monkeypatch.setattr(torch.Tensor, name, lambda *_: pytest.fail("a step waits for the device"))
    for step in range(1, 30):
        health.observe(step, {"loss": torch.zeros(()), "grad_norm": torch.zeros(())})
    assert len(health.window["loss"]) == 20


def test_a_finding_is_reported_when_it_is_new_when_it_returns_and_now_and_then():
    config = HealthChecksConfig(repeat_every=6, forget_after=2)
    health = HealthChecks(random_genie(world_config()), STAGES["dynamics"], config=config)
    warning = Finding("ignored_action", "warning", "dynamics", "", "")
    fault = Finding("ignored_action", "fault", "dynamics", "", "")
    present = [warning] * 3 + [fault] * 2 + [None] * 3 + [fault] * 8
    reported = []
    for check, finding in enumerate(present):
        health.checks += 1
        if health.news([finding] if finding else []):
            reported.append(check)
    assert reported == [0, 3, 8, 14]  # new, worse, back after three checks without it, still there six checks later


def test_the_use_of_actions_is_pooled_over_several_batches():
    training = CheckedTraining(random_genie(world_config()), "dynamics", world_clips(), pooled=2)
    training.train(6, check_every=1, learn=False)
    uses = list(training.health.uses)
    assert len(uses) == 2
    total = sum(use["num_tokens"] for use in uses)
    expected = sum(use["true"] * use["num_tokens"] for use in uses) / total
    assert training.figures["token_loss_true"] == pytest.approx(expected)
