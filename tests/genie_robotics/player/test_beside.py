"""The simulator beside the dream: the same actions, from the same moment, there and back."""

import numpy as np
import pytest

from genie_datasets.base.errors import UserError
from genie_robotics import Genie
from genie_robotics.labeling.code_meanings import Meaning, code_meanings
from genie_robotics.player.beside import Beside, decoded, read_motion
from genie_robotics.player.commands import PlayOptions, make_player
from genie_robotics.player.limits import Limits
from genie_robotics.player.session import PlaySession
from genie_robotics.player.starts import simulated
from genie_robotics.pretrained import locate
from tests.genie_robotics.conftest import random_genie, tiny_config

UP, RIGHT, LEFT, DOWN = 0, 1, 2, 5


@pytest.fixture(scope="module")
def genie():
    return Genie.from_pretrained("nano-tabletop")


@pytest.fixture
def session(genie):
    (start,) = simulated((64, 64), 1)
    session = PlaySession(genie, Limits())
    meanings = code_meanings(locate("nano-tabletop"), genie.config.num_actions)
    session.start(start.frame, start.name, Beside(start.simulator(), meanings))
    np.testing.assert_array_equal(session.beside.frame, start.frame)  # the dream begins where the simulator is
    return session


def test_the_arm_goes_as_the_report_measured(session):
    for code in (LEFT, LEFT, UP):
        session.act(code)
    asked = sum(session.beside.meanings[code].motion for code in (LEFT, LEFT, UP))
    np.testing.assert_allclose(session.beside.moved(), asked, atol=0.015)  # the arm is a little behind
    np.testing.assert_allclose(session.moments[-1].moved, asked, atol=0.02)  # and so does the dream, as it is read
    assert session.error() < 0.03


def test_a_dream_that_goes_elsewhere_is_far(session):
    session.act(LEFT)
    near = session.error()
    for _ in range(3):
        session.beside.act(RIGHT)  # the simulator alone
    assert session.error() > near + 0.06


def test_undo_and_branches_take_the_simulator_along(session):
    frames, errors = [], []
    for code in (LEFT, UP, LEFT, DOWN):
        session.act(code)
        frames.append(session.beside.frame)
        errors.append(session.error())
    session.branch()
    session.undo(2)
    np.testing.assert_array_equal(session.beside.frame, frames[1])
    assert session.error() == pytest.approx(errors[1])
    session.act(LEFT)
    np.testing.assert_array_equal(session.beside.frame, frames[2])
    session.switch(0)
    np.testing.assert_array_equal(session.beside.frame, frames[3])
    session.start(session.clip()[0], "a picture")
    assert session.error() is None


def test_the_gripper_follows_the_code_s_name():
    for name, closed, command in (
        ("right, gripper closing", False, 1), ("gripper opening", True, -1), ("gripper moving", True, -1),
        ("gripper moving", False, 1), ("right", True, 0), ("", False, 0),
    ):  # fmt: skip
        action = decoded(Meaning(name, np.array([0.1, 0.0, 0.0])), closed)
        assert action.tolist() == [0.1, 0, 0, 0, 0, 0, command]
    assert not decoded(Meaning(), False).any()


def test_motion_is_read_from_two_frames(genie):
    meanings = [Meaning(str(code), np.full(3, float(code))) for code in range(8)]
    (start,) = simulated((64, 64), 1)
    dream = genie.generate(start.frame[None, None], [[RIGHT]])[0].numpy()
    assert read_motion(genie, [start.frame, dream[0]], meanings).tolist() == [RIGHT] * 3
    assert not read_motion(genie, [start.frame] * 2, [Meaning()] * 8).any()


def test_a_model_with_a_history_reads_the_frames_before_too():
    config = tiny_config()
    config.latent_action.encoder_history = True
    genie = random_genie(config)
    film = np.random.default_rng(0).integers(0, 256, (config.clip_length + 3, 16, 16, 3), np.uint8)
    meanings = [Meaning(str(code), np.full(3, float(code))) for code in range(genie.config.num_actions)]
    read = [read_motion(genie, film[: end + 1], meanings)[0] for end in range(1, len(film))]
    window = genie.infer_actions(film[None, -config.clip_length :])[0]
    assert read[-1] == window[-1]
    assert read[: config.clip_length - 1] == genie.infer_actions(film[None, : config.clip_length])[0].tolist()


def test_only_what_can_be_simulated_is_offered(tmp_path):
    (tmp_path / "report.json").write_text('{"codes": [{"code": 0, "name": "up", "mean_motion": null}]}')
    options = PlayOptions(run="nano-tabletop", report=tmp_path / "report.json")
    assert not any(start.simulator for start in make_player(options).starts)
    with pytest.raises(UserError, match="cannot be simulated"):
        make_player(PlayOptions(run="nano-tabletop", report=tmp_path / "report.json", tables=2))
    assert not any(start.simulator for start in make_player(PlayOptions(run="nano-tabletop", tables=0)).starts)
