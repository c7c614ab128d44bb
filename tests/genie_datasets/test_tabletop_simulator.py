"""Snapshots, restored states and futures are bit-identical, wherever the state comes from."""

import numpy as np
import pytest

from genie_datasets import open_source
from genie_datasets.base.errors import UserError
from genie_datasets.tabletop import Simulator, read_recording, redraw, sample_scene
from genie_datasets.tabletop.episode import rollout
from genie_datasets.tabletop.factors import FAMILY_FACTORS

SIZE = (32, 32)


def grasping() -> Simulator:
    """A simulator with an object between the fingers."""
    sim = Simulator(sample_scene("rt1", 3), SIZE)
    episode = rollout(sim, 3, skill="pick", frames=24)
    assert episode.gripper_command[-1] == 1.0
    assert episode.gripper[-1] < 0.9  # an object keeps it open
    return sim


def actions(count: int, length: int) -> np.ndarray:
    rng = np.random.default_rng(5)
    moves = rng.uniform(-0.05, 0.05, (count, length, 7))
    moves[..., 3:6] *= 2
    moves[..., 6] = rng.integers(-1, 2, (count, length))
    return moves


def execute(sim: Simulator, sequence: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    frames, states = [], []
    for action in sequence:
        sim.step(action)
        frames.append(sim.observe().frame)
        states.append(sim.snapshot())
    return np.stack(frames), np.stack(states)


@pytest.fixture(scope="module")
def past():
    """A simulator, its state and frame, and the frames and states after five actions."""
    sim = grasping()
    state, frame = sim.snapshot(), sim.observe().frame
    return sim, state, frame, *execute(sim, actions(1, 5)[0])


@pytest.mark.parametrize("where", ["same data", "after reset", "new data", "recorded model", "new model"])
def test_restored_states_are_bit_identical(past, where):
    sim, state, frame, frames, states = past
    if where == "after reset":
        sim.reset()
        sim.step(np.array([0.05, 0.05, 0.05, 0.1, 0.2, 0.3, 1]))
    elif where == "new data":
        import mujoco

        from genie_datasets.tabletop.control import Controller

        sim = grasping()
        sim.data = mujoco.MjData(sim.model)
        sim.control = Controller(sim.model, sim.data, sim.scene.arm.rest, sim.scene.limits)
    elif where == "recorded model":
        sim = Simulator(sim.scene, SIZE, recorded=(sim.mjcf, sim.textures))
    elif where == "new model":
        sim = Simulator(sample_scene("rt1", 3), SIZE)
    sim.restore(state)
    np.testing.assert_array_equal(sim.observe().frame, frame)
    np.testing.assert_array_equal(sim.snapshot(), state)
    again, then = execute(sim, actions(1, 5)[0])
    np.testing.assert_array_equal(then, states)
    np.testing.assert_array_equal(again, frames)


def test_observing_changes_nothing(past):
    sim, state, _, _, states = past
    sim.restore(state)
    for action, expected in zip(actions(1, 5)[0], states, strict=True):
        sim.step(action)  # without observe() in between
        np.testing.assert_array_equal(sim.snapshot(), expected)


def test_later_steps_depend_on_the_warm_start(past):
    """This is why states hold MuJoCo's integration state instead of the smaller physics state."""
    sim, state, _, _, states = past
    sim.restore(state)
    sim.data.qacc_warmstart[:] = 0
    _, then = execute(sim, actions(1, 5)[0])
    assert np.abs(then[:, :40] - states[:, :40]).max() > 1e-6  # time and joints come first


def test_futures_equal_step_by_step_execution(past):
    sim, state, *_ = past
    sim.restore(state)
    sim.step(np.array([0.03, 0, 0, 0, 0, 0, 0]))
    before = sim.snapshot()
    sequences = actions(3, 4)
    futures = sim.futures(state, sequences)
    np.testing.assert_array_equal(sim.snapshot(), before)  # the simulator is in its own state again
    assert futures.frames.shape == (3, 4, *SIZE, 3)
    assert futures.object_poses.shape == (3, 4, 6, 7)
    other = grasping()
    for k, sequence in enumerate(sequences):
        other.restore(state)
        frames, states = execute(other, sequence)
        np.testing.assert_array_equal(futures.frames[k], frames)
        np.testing.assert_array_equal(futures.states[k], states)
        other.restore(futures.states[k, -1])
        np.testing.assert_array_equal(other.observe().position, futures.position[k, -1])
    assert np.ptp(futures.position[:, -1], axis=0).max() > 0.02


def test_futures_are_independent_of_each_other(past):
    sim, state, *_ = past
    one, two = actions(2, 3)
    both = sim.futures(state, [one, two])
    alone = sim.futures(state, [two])
    np.testing.assert_array_equal(both.states[1], alone.states[0])


@pytest.mark.parametrize("family", FAMILY_FACTORS)
def test_any_recorded_step_can_be_restored(family, tabletop_rlds, tmp_path):
    """Without replaying: the states and the truth that follow are the recorded ones."""
    if family != "easy":
        from genie_datasets.tabletop.generate import generate

        source = open_source(generate(tmp_path, 2, 5, (32, 32), {"train": 1.0}, family, workers=1, progress=False))
    else:
        source = open_source(tabletop_rlds)
    split = source.split("train")
    for episode in range(2):
        recording, truth = read_recording(split, episode), split.truth(episode)
        sim = recording.simulator(None)
        assert len(recording.states) == split.num_frames[episode]
        for first in (0, 11, 30):
            sim.restore(recording.states[first])
            for t in range(first, first + 4):
                np.testing.assert_array_equal(sim.snapshot(), recording.states[t][: sim.state_size])
                seen = sim.observe()
                np.testing.assert_allclose(seen.position, truth.position[t], atol=1e-6)
                np.testing.assert_allclose(seen.image_position, truth.image_position[t], atol=1e-5)
                sim.step(recording.actions[t])


def test_recorded_scenes_agree_with_their_frames(tabletop_rlds):
    split = open_source(tabletop_rlds).split("test")
    recording, frames = read_recording(split, 1), split.frames(1)
    sim = recording.simulator(frames.shape[1:3])
    for t in (0, 20, 39):
        sim.restore(recording.states[t])
        error = sim.observe().frame.astype(float) - frames[t]
        assert 10 * np.log10(255**2 / np.mean(error**2)) > 27  # JPEG, and maybe another renderer


def test_errors(past, tmp_path, tabletop_rlds):
    sim, state, *_ = past
    with pytest.raises(UserError, match="7 finite numbers"):
        sim.step(np.zeros(6))
    with pytest.raises(UserError, match="7 finite numbers"):
        sim.step(np.full(7, np.nan))
    with pytest.raises(UserError, match="restore it in the scene it was taken from"):
        sim.restore(state[:-1])
    with pytest.raises(UserError, match="restore it in the scene it was taken from"):
        sim.restore(np.concatenate([state, [1.0]]))
    with pytest.raises(UserError, match="must be float64"):
        sim.restore(state.astype(np.float32))
    with pytest.raises(UserError, match="restore it in the scene it was taken from"):
        sim.restore(np.zeros(352))
    for seed in range(8):  # other objects and furniture, with states padded to one length
        other = Simulator(sample_scene("rt1", seed), None)
        foreign = np.zeros(352)
        foreign[: other.state_size] = other.snapshot()
        if seed != 3:
            with pytest.raises(UserError, match="restore it in the scene it was taken from"):
                sim.restore(foreign)
    with pytest.raises(UserError, match="must be finite"):
        sim.restore(np.where(np.arange(len(state)) == 9, np.nan, state))
    with pytest.raises(UserError, match=r"actions must be \(A, n, 7\)"):
        sim.futures(state, np.zeros((4, 7)))
    with pytest.raises(UserError, match="pass one of layout"):
        redraw(sim.scene, "behaviour", 1)
    with pytest.raises(UserError, match="unknown tabletop family 'hard'; pass one of easy, rt1"):
        sample_scene("hard", 1)
    with pytest.raises(UserError, match="seed must be 0 or more, got -1"):
        sample_scene("easy", -1)
    for episode in (-1, 10**6):
        with pytest.raises(UserError, match="split 'train' has episodes 0 to"):
            read_recording(open_source(tabletop_rlds).split("train"), episode)
    from genie_datasets import build_frame_cache

    split = open_source(tabletop_rlds).split("train")
    cache = build_frame_cache(split, tmp_path / "cache", (32, 32))
    assert cache is not None
    cached = open_source(tmp_path / "cache")
    with pytest.raises(UserError, match="keeps no simulator state"):
        read_recording(next(iter(cached.splits.values())), 0)
