"""Flips under nuisances: codes of motion stay, codes of brightness do not, and constant ones are not praised."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from genie_eval.codes.transitions import Transitions
from genie_eval.inference.flips import nuisance_flip_rate
from genie_eval.inference.level import InferenceConfig, inference_details
from genie_eval.inference.nuisances import CONSISTENT, SECOND_FRAME
from genie_eval.inference.rendered import FACTORS, _renderings, rendered_flips
from genie_eval.inference.sample import choose_sample
from tests.genie_eval.lam_readers import by_brightness, by_direction, measured, scripted

PHOTOMETRIC = ("brightness", "gamma", "warmth", "hue", "texture", "jpeg")


def flips(genie, source, every=6, seed=0, trajectories=12):
    return nuisance_flip_rate(choose_sample(genie, *measured(genie, source), trajectories, seed), every, draws=200)


def test_codes_of_motion_do_not_flip(make_genie, make_video):
    metric = flips(scripted(make_genie, by_direction), make_video())
    rows = metric.more["by_nuisance"]
    assert set(rows) == set(CONSISTENT)
    assert all(rows[name]["flip_rate"] == 0 and rows[name]["ami"] == pytest.approx(1) for name in PHOTOMETRIC)
    assert metric.value < 0.05  # the patch may hide the square, and a shifted camera may lose it
    assert metric.verdict == "pass"
    assert metric.reason.startswith("exploratory")
    assert metric.null == pytest.approx(0.8, abs=0.02)  # five codes, equally often
    assert metric.skill > 0.9
    assert abs(metric.more["ami_with_nuisance"]) < 0.01
    assert rows["hue"]["r2"] == pytest.approx(metric.more["reference"]["r2"])
    assert rows["hue"]["ctc"] == pytest.approx(metric.more["reference"]["ctc"])


def test_codes_of_brightness_flip(make_genie, make_video):
    metric = flips(scripted(make_genie, by_brightness), make_video())
    assert metric.more["by_nuisance"]["brightness"]["flip_rate"] > 0.5
    assert metric.verdict == "fail"
    assert metric.value > 0.2
    assert metric.ci95[0] <= metric.value <= metric.ci95[1]
    assert "most under" in metric.reason


def test_codes_that_never_vary_are_not_praised_for_not_flipping(make_genie, make_video):
    metric = flips(scripted(make_genie, lambda clip, t: 3), make_video())
    assert metric.value == 0
    assert metric.skill is None
    assert metric.verdict == "warn"
    assert "hardly vary" in metric.reason


def test_codes_at_random_flip_as_often_as_the_null_says(make_genie, make_video):
    rng = np.random.default_rng(0)
    genie = scripted(make_genie, lambda clip, t: int(rng.choice(5, p=(0.6, 0.1, 0.1, 0.1, 0.1))))
    metric = flips(genie, make_video(), every=0)
    assert metric.value == pytest.approx(metric.null, abs=0.05)
    assert metric.skill == pytest.approx(0, abs=0.08)


def test_second_frame_nuisances_move_codes_that_see_any_motion_and_no_others(make_genie, make_video):
    seen = flips(scripted(make_genie, by_direction), make_video()).more["second_frame"]
    assert set(seen) == set(SECOND_FRAME)
    assert seen["jitter"]["leaves_null"] > 0.9  # 3 pixels are a move and more
    assert seen["moving_patch"]["leaves_null"] > 0.5  # so is a thing that moves
    assert not seen["jitter"]["pass"]
    blind = flips(scripted(make_genie, lambda clip, t: 0), make_video()).more["second_frame"]
    assert all(row["flip_rate"] == row["leaves_null"] == 0 and row["pass"] for row in blind.values())


def test_same_seed_same_numbers_and_no_truth_no_ctc(make_genie, make_video):
    genie = scripted(make_genie, by_brightness)
    first, again, other = (flips(genie, make_video(), seed=seed).as_json() for seed in (0, 0, 1))
    assert first == again
    assert first["value"] != other["value"]
    unknown = flips(genie, make_video(known=False))
    assert "ctc" not in unknown.more["by_nuisance"]["hue"]
    assert unknown.more["reference"] == {}


def test_every_nuisance_changes_the_picture_and_is_the_same_on_all_its_frames():
    rng = np.random.default_rng(0)
    frame = np.clip(rng.normal(120, 40, size=(16, 20, 3)), 0, 255).astype(np.uint8).repeat(4, 0).repeat(4, 1)
    still = np.repeat(frame[None], 3, axis=0)
    for seed in range(20):
        for change in CONSISTENT.values():
            after = change(still, np.random.default_rng(seed))
            assert after.shape == still.shape
            assert after.dtype == np.uint8
            assert (after != still).any()
            assert (after == after[:1]).all()  # consistent: what stood still stands still
            assert (change(still, np.random.default_rng(seed)) == after).all()
        for name, change in SECOND_FRAME.items():
            pair = change(still[:2], np.random.default_rng(seed))
            assert (pair[0] != pair[1]).any()
            assert name == "moving_patch" or (pair[0] == frame).all()


# ---------------------------------------------------------------------------------------------- rendered by a simulator
class Recorded:
    """A split of recorded tabletop episodes, as far as rendering them again asks for one."""

    name, image_size = "test", (32, 32)

    def __init__(self, sims, pictures):
        self.pictures, self.num_episodes = pictures, len(sims)

    def frames(self, episode, ids=None, size=None, mode="crop"):
        return self.pictures[episode][ids]


@pytest.fixture(scope="module")
def recorded():
    """(split, recordings): the arm swings in three scenes of the easy family."""
    from genie_datasets.tabletop import Simulator, sample_scene

    recordings, pictures = [], []
    for seed in range(3):
        sim = Simulator(sample_scene("easy", seed), (32, 32))
        states, seen = [], []
        for t in range(4):
            states.append(sim.snapshot())
            seen.append(sim.observe().frame)
            sim.step(np.array([0.03 * (-1) ** t, 0.03, 0, 0, 0, 0, 0]))
        sim.close()
        recordings.append(SimpleNamespace(scene=sim.scene, states=np.stack(states)))
        pictures.append(np.stack(seen))
    return Recorded(recordings, pictures), recordings


def rendered_sample(recorded, make_genie, monkeypatch, of_step):
    from genie_datasets.tabletop import recorded as module

    split, recordings = recorded
    monkeypatch.setattr(module, "read_recording", lambda split, episode: recordings[episode])
    genie = scripted(make_genie, of_step)
    trajectories = [SimpleNamespace(episode=e, ids=np.arange(4)) for e in range(3)]
    table = Transitions(np.repeat(np.arange(3), 3), np.tile(np.arange(3), 3))
    codes = np.concatenate([genie.infer_actions(p[None])[0] for p in split.pictures])
    return choose_sample(genie, split, trajectories, table, codes, 9)


def test_recorded_moments_in_other_scenes(recorded, make_genie, monkeypatch):
    sample = rendered_sample(recorded, make_genie, monkeypatch, by_brightness)
    unchanged, *changed = _renderings(sample, 0, 4, (32, 32))
    assert (unchanged == recorded[0].pictures[0]).all()  # the same moments, to the pixel
    for factor, frames in zip(FACTORS, changed, strict=True):
        assert (frames != unchanged).any(), factor
    found = rendered_flips(sample)
    assert found["recorded"]["flip_rate"] == 0
    assert found["lighting"]["flip_rate"] > 0.3
    assert found["n_trajectories"] == 3
    assert found["mean"] == pytest.approx(np.mean([found[factor]["flip_rate"] for factor in FACTORS]))
    constant = rendered_flips(rendered_sample(recorded, make_genie, monkeypatch, lambda clip, t: 1))
    assert constant["mean"] == 0


# ----------------------------------------------------------------------------------------------------------- the whole
@pytest.mark.parametrize("episodes", [1, 3])
def test_what_little_there_is_to_see_is_said(make_genie, make_video, episodes):
    """Trajectories of two steps, three of them or one alone: reasons instead of numbers, and no error."""
    genie = scripted(make_genie, by_direction)
    seen = measured(genie, make_video(episodes=episodes, length=3))
    metrics, details = inference_details(genie, *seen, InferenceConfig(draws=50), progress=False)
    assert metrics["nuisance_flip_rate"].n_trajectories == episodes
    assert "reason" in details["algebra"]["reversal"]
    assert ("reason" in details["leakage"]["scene_cut"]) is (episodes == 1)
    assert details["nuisance"]["identity"]["value"] == 1
    assert json.loads(json.dumps(details, allow_nan=False)) == details


@pytest.mark.parametrize("full", [True, False])
def test_all_of_it_in_one_call(make_genie, make_video, full):
    genie = scripted(make_genie, by_direction)
    config = InferenceConfig(8, 8, 4, 4, 2, 6, 100) if full else InferenceConfig.quick()
    metrics, details = inference_details(genie, *measured(genie, make_video()), config, progress=False)
    assert metrics["nuisance_flip_rate"].verdict == "pass"
    assert json.loads(json.dumps(details)) == details
    assert details["nuisance"]["identity"]["value"] == 1
    assert details["leakage"]["causality"]["pass"]
    assert ("stability" in details) is full
    if full:
        assert "keeps no simulator state" in details["nuisance"]["rendered"]["reason"]
        assert details["algebra"]["reversal"]["accuracy"] == 1
    assert set(details["seconds"]) >= {"nuisances", "identity", "causality"}
