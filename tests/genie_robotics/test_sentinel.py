"""The sentinel keeps what it must, touches nothing, and does not repeat itself."""

import io

import pytest
import torch

from genie_robotics.genie import Genie
from genie_robotics.health.findings import Finding
from genie_robotics.training.sentinel import Sentinel, SentinelConfig
from genie_robotics.training.stages import MODES, TRAINED
from tests.genie_robotics.conftest import random_genie
from tests.genie_robotics.health_world import Watched, world_clips, world_config

JOINT = [mode for mode in MODES if "joint" in MODES[mode]]


def stored(state):
    """As a checkpoint keeps it: tensors and plain numbers only."""
    box = io.BytesIO()
    torch.save(state, box)
    box.seek(0)
    return torch.load(box, weights_only=True)


@pytest.mark.parametrize(("mode", "stage"), [("frozen", s) for s in MODES["frozen"]] + [(m, "joint") for m in JOINT])
def test_a_resumed_run_says_what_the_uninterrupted_one_says(mode, stage):
    """Cut between two looks, in every stage of every mode: same figures to the bit, same findings, same memory."""
    clips = world_clips()

    def begin():
        torch.manual_seed(0)
        genie = random_genie(world_config())
        for name in TRAINED[stage]:  # codes start within the test, so that the loss starts anew
            if name != "dynamics":
                getattr(genie, name).codebook.vq._codebook.initted.fill_(False)
        return Watched(genie, stage, clips, mode=mode, repeat_every=2, pooled=3)

    whole = begin()
    said = [whole.train(10, look_every=5) for _ in range(4)]
    cut = begin()
    for i in range(4):
        assert cut.train(7, look_every=5) + cut.train(3, look_every=5) == said[i]
        other = Sentinel(cut.genie, stage, TRAINED[stage], cut.sentinel.config, steps_per_epoch=15)
        other.load_state_dict(stored(cut.sentinel.state_dict()))
        cut.sentinel = other
    assert cut.figures == whole.figures
    assert any(said)
    a, b = whole.sentinel.state_dict(), cut.sentinel.state_dict()
    assert str(a) == str(b)


def test_watching_does_not_change_training():
    genies = []
    for look_every in (3, 10**6):
        torch.manual_seed(0)
        genie = random_genie(world_config())
        Watched(genie, "joint", world_clips(), mode="cotrain").train(12, look_every=look_every)
        genies.append(genie)
    for (name, a), (_, b) in zip(genies[0].state_dict().items(), genies[1].state_dict().items(), strict=True):
        assert torch.equal(a, b), name
    assert [p.training for p in genies[0].modules()] == [p.training for p in genies[1].modules()]
    for (name, a), (_, b) in zip(genies[0].named_buffers(), genies[1].named_buffers(), strict=True):
        assert torch.equal(a, b), name


def test_codes_are_counted_over_epochs():
    watched = Watched(random_genie(world_config()), "latent_action", world_clips())
    watched.sentinel.steps_per_epoch = 10
    book = watched.genie.latent_action.codebook
    watched.train(9, look_every=10**6)
    assert book.usage.sum() == 9 * 8 * 5
    watched.train(1, look_every=10**6)
    assert book.usage.sum() == 0
    assert watched.sentinel.epoch["latent_action"].sum() == 10 * 8 * 5
    watched.train(5)
    assert book.usage.sum() == 5 * 8 * 5


def test_nothing_is_said_of_codes_before_they_are_given_out():
    torch.manual_seed(0)
    config = world_config()
    config.latent_action.codebook.start_after = 10**6
    config.latent_action.codebook.start_share = 2.0
    watched = Watched(Genie(config), "latent_action", world_clips())
    watched.train(20)
    assert not [name for name in watched.figures if name.startswith(("code", "dead", "action"))]
    assert "error_share" in watched.figures


def test_values_stay_on_their_device_until_somebody_looks(monkeypatch):
    sentinel = Sentinel(random_genie(world_config()), "dynamics", ("dynamics",))
    for name in ("item", "__float__", "__bool__", "tolist", "cpu"):
        monkeypatch.setattr(torch.Tensor, name, lambda *_: pytest.fail("a step waits for the device"))
    for step in range(1, 30):
        sentinel.observe(step, {"loss": torch.zeros(()), "grad_norm": torch.zeros(())})
    assert len(sentinel.window["loss"]) == 20


def test_a_finding_is_said_when_it_is_new_when_it_comes_back_and_now_and_then():
    sentinel = Sentinel(
        random_genie(world_config()), "dynamics", ("dynamics",), SentinelConfig(repeat_every=6, forget_after=2)
    )
    warning = Finding("ignored_action", "warning", "dynamics", "", "")
    fault = Finding("ignored_action", "fault", "dynamics", "", "")
    present = [warning] * 3 + [fault] * 2 + [None] * 3 + [fault] * 8
    told = []
    for look, finding in enumerate(present):
        sentinel.looks += 1
        if sentinel.news([finding] if finding else []):
            told.append(look)
    assert told == [0, 3, 8, 14]  # new, worse, back after three looks without it, still there six looks later


def test_the_use_of_actions_is_taken_over_several_batches():
    watched = Watched(random_genie(world_config()), "dynamics", world_clips(), pooled=2)
    watched.train(6, look_every=1, learn=False)
    uses = list(watched.sentinel.uses)
    assert len(uses) == 2
    total = sum(use["num_tokens"] for use in uses)
    expected = sum(use["true"] * use["num_tokens"] for use in uses) / total
    assert watched.figures["token_loss_true"] == pytest.approx(expected)
