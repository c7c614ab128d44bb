"""Simulated futures of codes, from recorded states of the tabletop."""

import numpy as np
import pytest

from genie_datasets import open_source
from genie_datasets.base.errors import UserError
from genie_datasets.clips.labels import read_actions
from genie_eval.codes.baselines import Features
from genie_eval.codes.transitions import Transitions
from genie_eval.collect import Evidence, choose_trajectories
from genie_eval.dreams.counterfactual import nearest, pixel_distance, renamed_p
from genie_eval.dreams.simulated import CodeActions, simulate_futures
from genie_eval.dreams.starts import Starts

DIRECTIONS = 4  # +x, -x, +y, -y


class Model:
    class config:
        num_actions, image_size, fit, gap = DIRECTIONS, (64, 64), "crop", None


@pytest.fixture(scope="module")
def split(tabletop_rlds):
    return open_source(str(tabletop_rlds)).split("test")


@pytest.fixture(scope="module")
def evidence(split):
    """Codes that are the direction of the commanded motion in the plane of the table."""
    trajectories, _ = choose_trajectories(split, None, None, 0)
    codes, owner = [], []
    for i, trajectory in enumerate(trajectories):
        x, y = read_actions(split, trajectory.episode)[trajectory.ids[:-1], :2].T
        codes.append(np.where(np.abs(x) > np.abs(y), np.where(x > 0, 0, 1), np.where(y > 0, 2, 3)))
        owner.append(np.full(len(codes[-1]), i))
    owner = np.concatenate(owner)
    table = Transitions(owner, np.arange(len(owner)))
    return Evidence(trajectories, table, np.concatenate(codes), Features(), 0)


@pytest.fixture(scope="module")
def starts(split, evidence):
    trajectory, at = np.array([0, 1]), np.array([8, 12])
    frames = np.stack(
        [
            split.frames(evidence.trajectories[i].episode, evidence.trajectories[i].ids[t : t + 1], (64, 64))[0]
            for i, t in zip(trajectory, at, strict=True)
        ]
    )
    return Starts(trajectory, at, frames, frames)


def test_futures_go_in_the_direction_of_their_code(split, evidence, starts):
    simulated = simulate_futures(Model, split, evidence, starts, 3, 1, seed=0, progress=False)
    assert simulated.frames.shape == (2, DIRECTIONS, 3, 64, 64, 3)
    assert simulated.sampled_frames.shape == (1, DIRECTIONS, 3, 64, 64, 3)
    moved = simulated.moved[:, :, -1]  # in differences of opposite commands, effects of the border cancel
    assert (moved[:, 0, 0] - moved[:, 1, 0] > 0.01).all()
    assert (moved[:, 2, 1] - moved[:, 3, 1] > 0.01).all()
    assert (np.abs(simulated.frames[:, 0].astype(int) - simulated.frames[:, 1]).max(axis=(1, 2, 3, 4)) > 30).all()


def test_the_recorded_actions_give_the_recorded_frames(split, evidence, starts):
    """The recorded actions, simulated from a recorded state, reproduce the recorded positions."""
    from genie_datasets.tabletop.recorded import read_recording

    trajectory = evidence.trajectories[0]
    recording = read_recording(split, trajectory.episode)
    simulator = recording.simulator(split.image_size)
    future = simulator.futures(recording.states[8], recording.actions[None, 8:11])
    simulator.close()
    truth = split.truth(trajectory.episode).position
    assert future.position[0] == pytest.approx(truth[9:12], abs=1e-5)


def test_a_code_stands_for_its_actions_in_other_trajectories(split, evidence):
    pool = CodeActions.read(split, evidence, DIRECTIONS)
    everything, without = pool.mean(None), pool.mean(0)
    assert everything[0, 0] > 0.005 > -0.005 > everything[1, 0]
    rest = evidence.table.trajectory != 0
    actions = np.concatenate([read_actions(split, t.episode)[t.ids[:-1]] for t in evidence.trajectories])
    expected = actions[rest & (evidence.codes == 2)][:, :6].mean(axis=0)
    assert without[2, :6] == pytest.approx(expected)
    drawn = pool.draw(0, 50, np.random.default_rng(0))
    assert drawn.shape == (DIRECTIONS, 50, 7)
    assert (drawn[0, :, 0] > 0).all()


def test_a_source_without_states_is_refused(evidence, starts):
    class NoStates:
        name, num_episodes, image_size = "x", 9, (64, 64)

        def record(self, episode):
            return None

        def episode_name(self, episode):
            return f"x {episode}"

    with pytest.raises(UserError, match="keeps no simulator state"):
        simulate_futures(Model, NoStates(), evidence, starts, 3, 1, seed=0, progress=False)


def test_equal_dreams_are_identified_by_chance_and_own_futures_always():
    rng = np.random.default_rng(0)
    futures = rng.integers(0, 255, (6, 4, 2, 8, 8, 3)).astype(np.uint8)
    own = nearest(pixel_distance(futures, futures))
    assert np.diagonal(own, axis1=1, axis2=2).mean() == 1
    assert renamed_p(own, 0) <= 0.001
    still = np.broadcast_to(futures[:, :1], futures.shape)
    blind = nearest(pixel_distance(still, still))
    assert blind == pytest.approx(np.full_like(blind, 1 / 4))
    assert renamed_p(blind, 0) == 1
    other = nearest(pixel_distance(rng.integers(0, 255, futures.shape).astype(np.uint8), futures))
    assert renamed_p(other, 0) > 0.02
