"""The simulator next to a dream: the same actions from the same start, also after undo."""

import numpy as np
import pytest

from genie_datasets.base.errors import UserError
from genie_robotics import Genie
from genie_robotics.labeling.code_meanings import Meaning, code_meanings
from genie_robotics.player.commands import PlayOptions, make_player
from genie_robotics.player.limits import Limits
from genie_robotics.player.paired_simulator import PairedSimulator, read_motion, robot_action
from genie_robotics.player.session import PlaySession
from genie_robotics.player.starts import simulated_starts
from genie_robotics.pretrained import locate
from tests.genie_robotics.conftest import random_genie, tiny_config

UP, RIGHT, LEFT, DOWN = 0, 1, 2, 5


@pytest.fixture(scope="module")
def genie():
    return Genie.from_pretrained("nano-tabletop")


@pytest.fixture
def session(genie):
    (start,) = simulated_starts((64, 64), 1)
    session = PlaySession(genie, Limits())
    meanings = code_meanings(locate("nano-tabletop"), genie.config.num_actions)
    session.start(start.frame, start.name, PairedSimulator(start.make_simulator(), meanings))
    np.testing.assert_array_equal(session.simulator.frame, start.frame)  # both start with the same frame
    return session


def test_the_arm_moves_as_the_report_measured(session):
    for code in (LEFT, LEFT, UP):
        session.act(code)
    expected = sum(session.simulator.meanings[code].motion for code in (LEFT, LEFT, UP))
    np.testing.assert_allclose(session.simulator.displacement(), expected, atol=0.015)  # the arm lags a little
    np.testing.assert_allclose(session.moments[-1].displacement, expected, atol=0.02)
    assert session.error() < 0.03


def test_the_error_grows_if_dream_and_simulator_move_apart(session):
    session.act(LEFT)
    near = session.error()
    for _ in range(3):
        session.simulator.act(RIGHT)  # the simulator alone
    assert session.error() > near + 0.06


def test_undo_and_branches_restore_the_simulator(session):
    frames, errors = [], []
    for code in (LEFT, UP, LEFT, DOWN):
        session.act(code)
        frames.append(session.simulator.frame)
        errors.append(session.error())
    session.branch()
    session.undo(2)
    np.testing.assert_array_equal(session.simulator.frame, frames[1])
    assert session.error() == pytest.approx(errors[1])
    session.act(LEFT)
    np.testing.assert_array_equal(session.simulator.frame, frames[2])
    session.switch(0)
    np.testing.assert_array_equal(session.simulator.frame, frames[3])
    session.start(session.clip()[0], "a picture")
    assert session.error() is None


def test_the_gripper_command_follows_the_name_of_the_code():
    for name, closed, command in (
        ("right, gripper closing", False, 1), ("gripper opening", True, -1), ("gripper moving", True, -1),
        ("gripper moving", False, 1), ("right", True, 0), ("", False, 0),
    ):  # fmt: skip
        action = robot_action(Meaning(name, np.array([0.1, 0.0, 0.0])), closed)
        assert action.tolist() == [0.1, 0, 0, 0, 0, 0, command]
    assert not robot_action(Meaning(), False).any()


def test_motion_is_read_from_two_frames(genie):
    meanings = [Meaning(str(code), np.full(3, float(code))) for code in range(8)]
    (start,) = simulated_starts((64, 64), 1)
    dream = genie.generate(start.frame[None, None], [[RIGHT]])[0].numpy()
    assert read_motion(genie, [start.frame, dream[0]], meanings).tolist() == [RIGHT] * 3
    assert not read_motion(genie, [start.frame] * 2, [Meaning()] * 8).any()


def test_a_model_with_a_history_reads_earlier_frames_too():
    config = tiny_config()
    config.latent_action.encoder_history = True
    genie = random_genie(config)
    clip = np.random.default_rng(0).integers(0, 256, (config.clip_length + 3, 16, 16, 3), np.uint8)
    meanings = [Meaning(str(code), np.full(3, float(code))) for code in range(genie.config.num_actions)]
    read = [read_motion(genie, clip[: end + 1], meanings)[0] for end in range(1, len(clip))]
    window = genie.infer_actions(clip[None, -config.clip_length :])[0]
    assert read[-1] == window[-1]
    assert read[: config.clip_length - 1] == genie.infer_actions(clip[None, : config.clip_length])[0].tolist()


def test_simulated_tables_need_the_motion_of_the_codes(tmp_path):
    (tmp_path / "report.json").write_text('{"codes": [{"code": 0, "name": "up", "mean_motion": null}]}')
    options = PlayOptions(run="nano-tabletop", report=tmp_path / "report.json")
    assert not any(start.make_simulator for start in make_player(options).starts)
    with pytest.raises(UserError, match="--tables needs the measured motion"):
        make_player(PlayOptions(run="nano-tabletop", report=tmp_path / "report.json", tables=2))
    assert not any(start.make_simulator for start in make_player(PlayOptions(run="nano-tabletop", tables=0)).starts)
