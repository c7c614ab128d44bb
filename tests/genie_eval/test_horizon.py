"""Long dreams under four laws of random codes, in worlds whose use of codes is known."""

import json

import numpy as np
import pytest

from genie_datasets.base.errors import UserError
from genie_eval.collect import Trajectory
from genie_eval.dreams.generation import dream_set
from genie_eval.dreams.horizon import (
    LAWS,
    HorizonConfig,
    horizon_report,
    long_dreams,
    mean_with_interval,
    random_codes,
)
from genie_eval.resampling import bootstrap_weights

SMALL = HorizonConfig(clips=16, horizon=12, others=6)


def trajectories_of(split):
    return [Trajectory(e, np.arange(n)) for e, n in enumerate(split.num_frames)]


def codes_of(genie, split):
    return [genie.infer_actions(split.frames(e)[None])[0] for e in range(split.num_episodes)]


def dreams_of(genie, source, config=SMALL, batch=5):
    split = source.split("test")
    return long_dreams(genie, split, trajectories_of(split), config, codes_of(genie, split), 0, batch, progress=False)


@pytest.fixture(scope="module")
def obeying(make_genie, make_video):
    dreams = dreams_of(make_genie(), make_video())
    return dreams, horizon_report(dreams, draws=200)


def test_world_that_obeys_reads_one_at_every_t_under_every_law(obeying):
    _, report = obeying
    assert list(report["laws"]) == list(LAWS)
    for law, reading in report["laws"].items():
        for name in ("aaf", "aaf_moving"):
            known = [value for value in reading[name]["value"] if value is not None]
            assert known == pytest.approx([1] * len(known), abs=1e-9), (law, name)
            assert len(known) >= 10, (law, name)  # at t = 1 few codes have moved the square
        assert min(reading["delta_psnr"]["value"]) > 0, law
        assert reading["delta_psnr"]["ci95"][-1][0] > 3, law
        assert min(reading["mse_rise"]["value"]) > 0, law
    assert report["psnr"]["dream"] == report["psnr"]["tokenizer"]
    assert report["ssim"]["dream"] == report["ssim"]["tokenizer"]


def test_world_that_ignores_codes_reads_exactly_zero_though_its_dreams_are_noisy(make_genie, make_video):
    """The noise is a function of the seed; a difference would mean that the dreams of a clip do not share it."""
    genie = make_genie(obeys=False)
    quiet = genie.generate

    def noisy(frames, codes, seed=0):
        dream = quiet(frames, codes, seed)
        return dream + np.random.default_rng(seed).integers(0, 9, size=dream.shape, dtype=np.uint8)

    genie.generate = noisy
    report = horizon_report(dreams_of(genie, make_video()), draws=100)
    for law, reading in report["laws"].items():
        for name in ("delta_psnr", "delta_psnr_moving", "mse_rise"):
            assert {value for value in reading[name]["value"] if value is not None} == {0.0}, (law, name)
            assert np.array(reading["delta_psnr"]["ci95"]).tolist() == [[0.0, 0.0]] * 12
        for value in reading["aaf"]["value"]:
            assert value is None or value == pytest.approx(0, abs=1e-12)


def test_readings_equal_a_plain_loop(obeying):
    dreams, report = obeying
    t, law = 7, "marginal"
    psnr, moving, gain, error = [], [], [], np.zeros(3)
    for c in range(len(dreams.trajectory)):
        truth, prompt = dreams.truth[c, t].astype(float), dreams.truth[c, 0].astype(float)
        shown = dreams.inferred[c, t - 1], dreams.random[law][c, t - 1], dreams.reconstructed[c, t]
        own, random, floor = (x.astype(float) for x in shown)
        where = np.abs(truth - prompt).max(axis=-1) > 12
        psnr.append(10 * np.log10(255**2 / np.mean((own - truth) ** 2)))
        gain.append(psnr[-1] - 10 * np.log10(255**2 / np.mean((random - truth) ** 2)))
        if where.any():
            moving.append(10 * np.log10(255**2 / np.mean((own - truth)[where] ** 2)))
        error += [np.sum((x - truth) ** 2 * where[..., None]) for x in (prompt, random, floor)]
    assert len(set(dreams.trajectory)) == 16  # one clip per trajectory, so that plain means are means over trajectories
    reading = report["laws"][law]
    assert report["psnr"]["dream"]["value"][t - 1] == pytest.approx(np.mean(psnr), abs=1e-4)
    assert report["psnr_moving"]["dream"]["value"][t - 1] == pytest.approx(np.mean(moving), abs=1e-4)
    assert reading["delta_psnr"]["value"][t - 1] == pytest.approx(np.mean(gain), abs=1e-4)
    copy = 1 - (error[0] - error[2]) / (error[1] - error[2])
    assert reading["aaf_copy_last_moving"]["value"][t - 1] == pytest.approx(copy, abs=1e-4)


def test_inferred_dreams_equal_those_of_the_short_dream_set(make_genie, make_video):
    """Same clips and same seeds: the dreams must be equal."""
    genie, split = make_genie(obeys=False), make_video().split("test")
    short = dream_set(genie, split, trajectories_of(split), 16, horizon=12, batch=5, progress=False)
    long = dreams_of(genie, make_video())
    assert (short.trajectory == long.trajectory).all()
    assert (short.truth == long.truth).all()
    assert (short.inferred == long.inferred).all()


def test_report_states_its_sample(obeying):
    dreams, report = obeying
    assert (report["n_clips"], report["n_trajectories"], report["resolution"]) == (16, 16, [32, 32])
    assert report["t"] == list(range(1, 13))
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert set(dreams.other_trajectory).isdisjoint(dreams.trajectory)
    assert dreams.other.shape == (6, 13, 32, 32, 3)
    assert "pip install lpips" in report["lpips"]["reason"] or "dream" in report["lpips"]
    for metric in ("psnr", "psnr_moving", "ssim"):
        assert list(report[metric]) == ["dream", "tokenizer", "copy_last"]
        for reading in report[metric].values():
            for value, (low, high) in zip(reading["value"], reading["ci95"], strict=True):
                assert low - 1e-9 <= value <= high + 1e-9


def drawn(law, inferred, trajectory_codes=(), seed=0, num_codes=8):
    owner, start = np.zeros(len(inferred), int), np.full(len(inferred), 3)
    return random_codes(law, inferred, owner, start, trajectory_codes, num_codes, np.random.default_rng(seed))


def test_each_law_draws_from_its_distribution():
    rng = np.random.default_rng(1)
    inferred = rng.integers(8, size=(2000, 10))
    shares = np.array([0.5, 0.2, 0.1, 0.1, 0.05, 0.05, 0, 0])
    others = [rng.choice(8, size=40, p=shares) for _ in range(200)]
    pool = np.bincount(np.concatenate(others), minlength=8) / 8000
    uniform, marginal = (drawn(law, inferred, others) for law in ("uniform", "marginal"))
    assert np.bincount(uniform.ravel()) / uniform.size == pytest.approx([1 / 8] * 8, abs=0.01)
    assert np.bincount(marginal.ravel(), minlength=8) / marginal.size == pytest.approx(pool, abs=0.01)
    away = (drawn("derangement", inferred) - inferred) % 8
    assert np.bincount(away.ravel(), minlength=8) / away.size == pytest.approx([0] + [1 / 7] * 7, abs=0.01)
    assert (drawn("constant", inferred, others) == 0).all()


def test_other_trajectory_gives_a_run_of_codes_from_the_same_step():
    others = [np.arange(20) + 100 * i for i in range(4)] + [np.arange(6) + 400]
    rows = drawn("other_trajectory", np.zeros((300, 10), int), others)
    donors = rows[:, 0] // 100
    assert set(donors) == {1, 2, 3}  # not itself (0), and not the one that is too short (4)
    assert (rows == donors[:, None] * 100 + 3 + np.arange(10)).all()
    late = random_codes(
        "other_trajectory", np.zeros((1, 10), int), np.array([0]), np.array([15]), others, 8, np.random.default_rng(0)
    )
    assert (late % 100 == np.arange(10, 20)).all()


def test_short_and_single_trajectories(make_genie, make_video):
    genie = make_genie()
    short = dreams_of(genie, make_video(episodes=3, length=7), HorizonConfig(clips=3))
    assert short.horizon == 6
    single = dreams_of(genie, make_video(episodes=1), HorizonConfig(clips=2))
    assert list(single.unavailable) == ["other_trajectory"]
    assert len(single.other) == 0
    report = horizon_report(single, draws=50)
    assert "no other trajectory has 15" in report["laws"]["other_trajectory"]["reason"]
    assert list(report["laws"]["uniform"]["aaf"]["value"])


def test_wrong_arguments_are_user_errors(make_genie, make_video):
    genie, split = make_genie(), make_video().split("test")
    trajectories = trajectories_of(split)
    with pytest.raises(UserError, match="unknown law of random codes 'gaussian'"):
        long_dreams(genie, split, trajectories, HorizonConfig(laws=("gaussian",)), codes_of(genie, split))
    with pytest.raises(UserError, match="got the codes of 1 trajectories for 24"):
        long_dreams(genie, split, trajectories, HorizonConfig(), [np.zeros(19, int)])


def test_trajectories_weigh_the_same_and_clips_without_a_value_do_not_count():
    values = np.array([[1.0, np.nan], [3.0, 5.0], [10.0, np.nan]])
    owner = np.array([0, 0, 7])
    reading = mean_with_interval(values, owner, bootstrap_weights(2, 400, 0))
    assert reading["value"] == pytest.approx([6, 5])
    assert reading["ci95"] == pytest.approx(np.array([[2, 10], [5, 5]]))
