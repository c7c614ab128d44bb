"""Snapshots, restores and futures: exact to the bit, wherever the state comes from."""

import numpy as np
import pytest

from genie_datasets import open_source
from genie_datasets.base.errors import UserError
from genie_datasets.tabletop import Simulator, read_recording, redraw, sample_scene
from genie_datasets.tabletop.episode import rollout

SIZE = (32, 32)


def busy() -> Simulator:
    """A simulator in the middle of things: an object between the fingers, others about."""
    sim = Simulator(sample_scene("rt1", 3), SIZE)
    episode = rollout(sim, 3, skill="pick", frames=24)
    assert episode.commanded[-1] == 1.0
    assert episode.gripper[-1] < 0.9  # something is in it
    return sim


def actions(count: int, length: int) -> np.ndarray:
    rng = np.random.default_rng(5)
    moves = rng.uniform(-0.05, 0.05, (count, length, 7))
    moves[..., 3:6] *= 2
    moves[..., 6] = rng.integers(-1, 2, (count, length))
    return moves


def follow(sim: Simulator, sequence: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    frames, states = [], []
    for action in sequence:
        sim.step(action)
        frames.append(sim.observe().frame)
        states.append(sim.snapshot())
    return np.stack(frames), np.stack(states)


@pytest.fixture(scope="module")
def past():
    """(a busy simulator's state and what followed from it)"""
    sim = busy()
    state, frame = sim.snapshot(), sim.observe().frame
    return sim, state, frame, *follow(sim, actions(1, 5)[0])


@pytest.mark.parametrize("where", ["same data", "after reset", "fresh data", "recompiled model", "compiled anew"])
def test_restore_is_exact_to_the_bit(past, where):
    sim, state, frame, frames, states = past
    if where == "after reset":
        sim.reset()
        sim.step(np.array([0.05, 0.05, 0.05, 0.1, 0.2, 0.3, 1]))
    elif where == "fresh data":
        import mujoco

        from genie_datasets.tabletop.control import Controller

        sim = busy()
        sim.data = mujoco.MjData(sim.model)
        sim.control = Controller(sim.model, sim.data, sim.scene.arm.rest, sim.scene.limits)
    elif where == "recompiled model":
        sim = Simulator(sim.scene, SIZE, recorded=(sim.mjcf, sim.textures))
    elif where == "compiled anew":
        sim = Simulator(sample_scene("rt1", 3), SIZE)
    sim.restore(state)
    np.testing.assert_array_equal(sim.observe().frame, frame)
    np.testing.assert_array_equal(sim.snapshot(), state)
    again, then = follow(sim, actions(1, 5)[0])
    np.testing.assert_array_equal(then, states)
    np.testing.assert_array_equal(again, frames)


def test_looking_changes_nothing(past):
    sim, state, _, _, states = past
    sim.restore(state)
    for action, expected in zip(actions(1, 5)[0], states, strict=True):
        sim.step(action)  # without observe() in between
        np.testing.assert_array_equal(sim.snapshot(), expected)


def test_physics_without_the_warm_start_would_not_do(past):
    """Why states hold MuJoCo's integration state: this test fails the day something smaller is enough."""
    sim, state, _, _, states = past
    sim.restore(state)
    sim.data.qacc_warmstart[:] = 0
    _, then = follow(sim, actions(1, 5)[0])
    assert np.abs(then[:, :40] - states[:, :40]).max() > 1e-6  # time and joints come first


def test_futures_are_what_would_have_happened(past):
    sim, state, *_ = past
    sim.restore(state)
    sim.step(np.array([0.03, 0, 0, 0, 0, 0, 0]))
    before = sim.snapshot()
    sequences = actions(3, 4)
    futures = sim.futures(state, sequences)
    np.testing.assert_array_equal(sim.snapshot(), before)  # the simulator is where it was
    assert len(futures) == 3
    assert futures.frames.shape == (3, 4, *SIZE, 3)
    assert futures.objects.shape == (3, 4, 6, 7)
    other = busy()
    for k, sequence in enumerate(sequences):
        other.restore(state)
        frames, states = follow(other, sequence)
        np.testing.assert_array_equal(futures.frames[k], frames)
        np.testing.assert_array_equal(futures.states[k], states)
        other.restore(futures.states[k, -1])
        np.testing.assert_array_equal(other.observe().position, futures.position[k, -1])
    assert np.ptp(futures.position[:, -1], axis=0).max() > 0.02  # and they differ


def test_a_future_does_not_depend_on_those_before_it(past):
    sim, state, *_ = past
    one, two = actions(2, 3)
    both = sim.futures(state, [one, two])
    alone = sim.futures(state, [two])
    np.testing.assert_array_equal(both.states[1], alone.states[0])


@pytest.mark.parametrize("family", ["easy", "rt1"])
def test_any_recorded_step_can_be_restored(family, tabletop_rlds, tmp_path):
    """From the bytes of the data set, without replaying: the states, the truth, and (where the renderer is the one
    that made them) the pictures that follow are the recorded ones."""
    if family == "rt1":
        from genie_datasets.tabletop.generate import generate

        source = open_source(generate(tmp_path, 2, 5, (32, 32), {"train": 1.0}, "rt1", workers=1, progress=False))
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
                np.testing.assert_allclose(seen.image, truth.image_position[t], atol=1e-5)
                sim.step(recording.actions[t])


def test_recorded_scene_looks_like_its_frames(tabletop_rlds):
    split = open_source(tabletop_rlds).split("test")
    recording, frames = read_recording(split, 1), split.frames(1)
    sim = recording.simulator(frames.shape[1:3])
    for t in (0, 20, 39):
        sim.restore(recording.states[t])
        error = sim.observe().frame.astype(float) - frames[t]
        assert 10 * np.log10(255**2 / np.mean(error**2)) > 27  # JPEG, and perhaps another renderer


def test_mistakes(past, tmp_path, tabletop_rlds):
    sim, state, *_ = past
    with pytest.raises(UserError, match="7 finite numbers"):
        sim.step(np.zeros(6))
    with pytest.raises(UserError, match="7 finite numbers"):
        sim.step(np.full(7, np.nan))
    with pytest.raises(UserError, match="restore them in the scene they were taken from"):
        sim.restore(state[:-1])
    with pytest.raises(UserError, match="restore them in the scene they were taken from"):
        sim.restore(np.concatenate([state, [1.0]]))
    with pytest.raises(UserError, match="float64"):
        sim.restore(state.astype(np.float32))
    with pytest.raises(UserError, match="restore them in the scene they were taken from"):
        sim.restore(np.zeros(352))
    for seed in range(8):  # other objects, other furniture: also where their states are shorter, and padded
        other = Simulator(sample_scene("rt1", seed), None)
        foreign = np.zeros(352)
        foreign[: other.state_size] = other.snapshot()
        if seed != 3:
            with pytest.raises(UserError, match="restore them in the scene they were taken from"):
                sim.restore(foreign)
    with pytest.raises(UserError, match="not finite"):
        sim.restore(np.where(np.arange(len(state)) == 9, np.nan, state))
    with pytest.raises(UserError, match=r"actions must be \(A, n, 7\)"):
        sim.futures(state, np.zeros((4, 7)))
    with pytest.raises(UserError, match="it is one of layout"):
        redraw(sim.scene, "behaviour", 1)
    for family, seed in (("hard", 1), ("easy", -1)):
        with pytest.raises(UserError, match="families are easy, rt1, seeds 0 or more"):
            sample_scene(family, seed)
    for episode in (-1, 10**6):
        with pytest.raises(UserError, match="there is no episode"):
            read_recording(open_source(tabletop_rlds).split("train"), episode)
    from genie_datasets import build_frame_cache

    split = open_source(tabletop_rlds).split("train")
    cache = build_frame_cache(split, tmp_path / "cache", (32, 32))
    assert cache is not None
    cached = open_source(tmp_path / "cache")
    with pytest.raises(UserError, match="keeps no simulator state"):
        read_recording(next(iter(cached.splits.values())), 0)
