"""A play session: undo, branches and previews give the frames that playing gives."""

import numpy as np
import pytest

from genie_datasets.base.errors import UserError
from genie_robotics.player.limits import Limits
from genie_robotics.player.session import NUM_CACHED, PlaySession
from tests.genie_robotics.conftest import random_genie, tiny_config

CODES = [0, 1, 2, 3, 3, 2, 1, 0, 2, 0, 1, 3, 1, 2]


@pytest.fixture
def session():
    session = PlaySession(random_genie(tiny_config()).double(), Limits())
    session.start(np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8), "noise")
    return session


def test_it_plays_what_the_world_plays(session):
    first = session.moments[0].frame
    start = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    world = session.genie.start(start)
    for code in CODES:
        np.testing.assert_array_equal(session.act(code), world.step(code).numpy())
    np.testing.assert_array_equal(session.clip()[0], first)
    assert session.clip().shape == (len(CODES) + 1, 16, 16, 3)
    trace = session.trace()
    assert (trace["codes"], trace["first_step"], trace["start"]) == (CODES, 0, "noise")


@pytest.mark.parametrize("back", [1, 3, NUM_CACHED + 3])  # the last returns to a moment without caches
def test_after_undo_the_same_actions_give_the_same_frames(session, back):
    frames = [session.act(code) for code in CODES]
    shown = session.undo(back)
    np.testing.assert_array_equal(shown, frames[-1 - back])
    assert session.num_steps == len(CODES) - back
    for code, frame in zip(CODES[-back:], frames[-back:], strict=True):
        np.testing.assert_array_equal(session.act(code), frame)


def test_a_preview_is_what_each_action_gives_and_changes_nothing(session):
    for code in CODES[:5]:
        session.act(code)
    previews = session.preview()
    assert len(previews) == 4
    for code, preview in enumerate(previews):
        np.testing.assert_array_equal(session.act(code), preview)
        session.undo()
    assert session.num_steps == 5


def test_branches_and_restart(session):
    frames = [session.act(code) for code in CODES[:4]]
    assert session.branch() == 0
    other = [session.act(code) for code in (0, 0, 0)]
    session.branch()
    np.testing.assert_array_equal(session.switch(0), frames[-1])
    assert session.num_steps == 4
    np.testing.assert_array_equal(session.switch(1), other[-1])
    assert session.trace()["codes"] == [*CODES[:4], 0, 0, 0]
    first = session.restart()
    assert session.num_steps == 0
    np.testing.assert_array_equal(first, session.clip()[0])
    with pytest.raises(UserError, match="no branch 2"):
        session.switch(2)
    session.start(first, "again")
    assert session.branches == []


def test_displayed_frames_follow_undo_branches_and_previews():
    sharp = np.random.default_rng(1).integers(0, 256, (80, 80, 3), np.uint8)
    config = tiny_config()
    config.tokenizer.reference = "start"
    session = PlaySession(random_genie(config).double(), Limits(), display=64)
    frames = [session.start(sharp, "noise")]
    world = session.genie.start(sharp, display=64)
    np.testing.assert_array_equal(frames[0], world.display.numpy())
    for code in CODES:
        frames.append(session.act(code))
        world.step(code)
        np.testing.assert_array_equal(frames[-1], world.display.numpy())
    assert session.moments[-1].frame.shape == (16, 16, 3), "the latent action model reads the model's frames"
    np.testing.assert_array_equal(session.clip(), np.stack(frames))
    np.testing.assert_array_equal(session.undo(NUM_CACHED + 3), frames[-1 - NUM_CACHED - 3])
    previews = session.preview()
    for code, preview in enumerate(previews):
        np.testing.assert_array_equal(session.act(code), preview)
        session.undo()
    np.testing.assert_array_equal(session.restart(), frames[0])


def test_memory_and_trace_are_limited_to_the_last_steps():
    session = PlaySession(random_genie(tiny_config()), Limits(undo=20, branches=2))
    session.start(np.zeros((16, 16, 3), np.uint8), "black")
    for step in range(50):
        session.act(step % 4)
    assert len(session.moments) == 21
    assert sum(moment.state.dynamics_cache is not None for moment in session.moments) <= NUM_CACHED + 1
    assert len(session.world.states) == 1
    trace = session.trace()
    assert (trace["first_step"], len(trace["codes"])) == (30, 20)
    session.undo(999)
    assert session.num_steps == 30
    session.branch()
    session.branch()
    with pytest.raises(UserError, match="at most 2 branches"):
        session.branch()


def test_settings_reach_the_world(session):
    session.settings(0.0, 1)
    greedy = session.act(1)
    session.undo()
    session.settings(3.0, 9)
    assert not np.array_equal(session.act(1), greedy)
    assert session.trace()["maskgit_steps"] == 9


def test_without_a_start_playing_is_an_error():
    session = PlaySession(random_genie(tiny_config()), Limits())
    for ask in (lambda: session.act(0), session.preview, session.clip, session.branch):
        with pytest.raises(UserError, match="choose a start"):
            ask()
