"""Trust: computed only when it is read, the same on every path to a state, and read from a file that is checked."""

import json

import pytest
import torch

from genie_datasets.base.errors import UserError
from genie_robotics.genie import Genie
from genie_robotics.models.trust import FILE, SIGNS, TrustModel, read_trust
from tests.genie_robotics.conftest import random_genie, tiny_config
from tests.genie_robotics.test_reference import with_reference

MODEL = TrustModel((1.0, 5.0, 2.0, 0.5), (0.5, 2.0, 1.0, 0.3), (-1.0, 0.5, -0.7, -0.2), 0.3, {"tables": 3})


@pytest.fixture(params=["none", "start"])
def genie(request) -> Genie:
    made = random_genie(tiny_config() if request.param == "none" else with_reference()).double()
    made.trust_model = MODEL
    return made


def test_trust_is_a_probability_of_each_dream(genie, frames):
    codes = torch.tensor([[0, 1, 2, 3, 0, 1, 2], [3] * 7, [1] * 7])
    dream, trust = genie.generate(frames[:, :1], codes, seed=4, return_trust=True)
    assert torch.equal(dream, genie.generate(frames[:, :1], codes, seed=4))
    assert trust.shape == (3, 7)
    assert ((trust > 0) & (trust < 1)).all()
    world = genie.start(frames[:, :1], seed=4)
    assert world.trust_signs[:, 0].tolist() == [0.0] * 3
    for t in range(7):
        world.step(codes[:, t])
        assert torch.equal(world.trust, trust[:, t])
    assert world.trust_signs.shape == (3, len(SIGNS))
    empty, none = genie.generate(frames[:, :1], codes[:, :0], return_trust=True)
    assert (empty.shape[1], none.shape) == (0, (3, 0))


def test_signs_say_what_they_are_called(genie, frames):
    world = genie.start(frames[0, 0])
    for code in (0, 1, 2):
        world.step(code)
    steps, change, surprise, round_trip = world.trust_signs[0].tolist()
    assert steps == pytest.approx(torch.log(torch.tensor(4.0)).item())
    error = (world.frame.float() - frames[0, 0].float()).square().mean()
    assert change == pytest.approx(torch.log1p(error).item(), rel=1e-5)
    assert 0 < surprise < 20
    assert round_trip * 16 == pytest.approx(round(round_trip * 16), abs=1e-4)


def test_undo_forks_and_the_uncached_path_give_the_same_trust(genie, frames):
    cached, uncached = (genie.start(frames[0, 0], use_cache=use_cache) for use_cache in (True, False))
    found = []
    for code in (0, 1, 2, 3, 0, 1, 2, 3):
        cached.step(code), uncached.step(code)
        assert torch.allclose(cached.trust, uncached.trust, atol=1e-5)
        found.append(cached.trust)
    fork = cached.fork()
    cached.undo(3)
    assert torch.equal(cached.trust, found[-4])
    assert torch.equal(fork.trust, found[-1])


def test_nothing_is_encoded_before_trust_is_read(genie, frames, monkeypatch):
    world, calls = genie.start(frames[0, 0]), []
    encode = genie.tokenizer.encode
    monkeypatch.setattr(genie.tokenizer, "encode", lambda *given: calls.append(1) or encode(*given))
    for code in (0, 1, 2, 3) * 2:  # the window slides too
        world.step(code)
    world.preview()
    assert not calls
    assert world.trust.shape == (1,)
    assert len(calls) == 1


def test_a_world_without_the_file_says_how_to_make_it(frames):
    genie = random_genie(tiny_config())
    world = genie.start(frames[0, 0])
    for ask in (lambda: world.trust, lambda: genie.generate(frames[:1, :1], [[0]], return_trust=True)):
        with pytest.raises(UserError, match=r"no trust\.json.*python -m genie_eval\.dreams\.trust RUN SRC"):
            ask()
    assert world.trust_signs.shape == (1, len(SIGNS))  # the calibration reads them


def test_the_file_is_kept_with_the_run(genie, tmp_path):
    genie.float().save_pretrained(tmp_path)
    assert Genie.from_pretrained(tmp_path).trust_model == MODEL
    (tmp_path / FILE).unlink()
    assert Genie.from_pretrained(tmp_path).trust_model is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 2}, "schema version 2"),
        ({"signs": ["steps"]}, "signs"),
        ({"more": 1}, r"unknown entries \(more\)"),
        ({"bias": None}, "bias"),
        ({"bias": True}, "bias"),
        ({"weights": [1.0, 2.0, 3.0]}, "weights .*expected 4 finite numbers"),
        ({"mean": [1.0, 2.0, 3.0, "4"]}, "mean .*expected 4 finite numbers"),
        ({"mean": [1.0, 2.0, 3.0, float("nan")]}, "mean .*expected 4 finite numbers"),
        ({"scale": [1.0, 2.0, 0.0, 1.0]}, "scale .*expected 4 positive finite numbers"),
        ({"calibration": []}, "calibration"),
        ("no JSON", "not readable JSON"),
        ("[]", "does not hold a JSON object"),
    ],
)
def test_a_damaged_file_is_an_error_in_one_line(tmp_path, change, message):
    MODEL.write(tmp_path)
    path = tmp_path / FILE
    path.write_text(change if isinstance(change, str) else json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=message) as error:
        read_trust(tmp_path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)
    assert "delete it, or make it again with python -m genie_eval.dreams.trust" in str(error.value)
    path.unlink()  # what the error says
    assert read_trust(tmp_path) is None
