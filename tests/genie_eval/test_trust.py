"""Calibration and measurement of trust, on planted dreams whose wrong frames are known."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from genie_datasets import open_source
from genie_datasets.base.errors import UserError
from genie_eval.dreams.starts import choose_starts
from genie_eval.dreams.trust import (
    auroc,
    calibrate,
    calibrate_run,
    fit_trust,
    is_wrong,
    main,
    measure_trust,
    simulate_frames,
    trust_metric,
    uniform_codes,
)
from genie_eval.resampling import bootstrap_weights
from genie_robotics.genie import Genie
from genie_robotics.models.trust import SIGNS
from tests.genie_eval.test_any_start import Tabletop, tables  # noqa: F401
from tests.genie_robotics.conftest import random_genie, tiny_config


def planted(informative: bool, seed: int, dreams: int = 24, steps: int = 40):
    """Signs and wrong frames: each dream goes wrong at a step of its own, and its second sign may say so."""
    rng = np.random.default_rng(seed)
    wrong = np.arange(steps) >= rng.integers(5, steps, size=(dreams, 1))
    signs = rng.normal(size=(dreams, steps, len(SIGNS)))
    signs[..., 1] = signs[..., 1] + 6.0 * wrong if informative else signs[..., 1]
    return signs, wrong


def trusted(model, signs):
    return model.probability(torch.from_numpy(signs.reshape(-1, signs.shape[-1]))).numpy().reshape(signs.shape[:2])


def test_a_sign_that_knows_the_wrong_step_tells_wrong_frames():
    model = fit_trust(*planted(True, 0))
    signs, wrong = planted(True, 1)
    metric = trust_metric(trusted(model, signs), wrong, 200, 0)
    assert metric.value > 0.98
    assert metric.ci95[0] > 0.95
    assert metric.p <= 0.01
    assert metric.verdict == "pass"
    assert 0.5 < metric.more["steps_alone"] < metric.value
    bins = metric.more["bins"]
    assert bins[0]["right"] < 0.1
    assert bins[-1]["right"] > 0.9
    assert sum(row["frames"] for row in bins) == wrong.size


def test_noise_tells_nothing():
    model = fit_trust(*planted(False, 0))
    signs, wrong = planted(False, 1)
    metric = trust_metric(trusted(model, signs), wrong, 200, 0)
    assert abs(metric.value - 0.5) < 0.06
    assert metric.ci95[0] < 0.5 < metric.ci95[1]
    assert metric.p > 0.02
    assert metric.verdict == "fail"


def test_a_fit_gives_probabilities():
    signs, wrong = planted(False, 2, dreams=60)
    assert trusted(fit_trust(signs, wrong), signs).mean() == pytest.approx((~wrong).mean(), abs=0.02)
    for always in (True, False):  # one outcome alone: finite, and near it
        model = fit_trust(signs, np.full_like(wrong, always))
        assert (np.abs(trusted(model, signs) - (not always)) < 0.01).all()
    constant = np.zeros_like(signs)
    assert np.isfinite(trusted(fit_trust(constant, wrong), constant)).all()


def test_auroc_counts_pairs():
    rng = np.random.default_rng(0)
    score, wrong = rng.integers(0, 5, (6, 9)) / 4, rng.random((6, 9)) < 0.4
    weights = bootstrap_weights(6, 3, 0)
    value, drawn = auroc(score, wrong, weights)

    def counted(repeats):
        rows = np.repeat(np.arange(6), repeats)
        right, bad = score[rows][~wrong[rows]], score[rows][wrong[rows]]
        difference = right[:, None] - bad
        return ((difference > 0) + 0.5 * (difference == 0)).mean()

    assert value == pytest.approx(counted(1))
    assert drawn == pytest.approx([counted(row.astype(int)) for row in weights])


def test_a_frame_is_wrong_if_the_start_would_have_been_nearer():
    true = np.zeros((1, 4, 2, 2, 3), np.uint8)
    true[0, 1:] = 100
    dreams = np.array([90, 49, 250], np.uint8)[None, :, None, None, None] * np.ones((1, 3, 2, 2, 3), np.uint8)
    assert is_wrong(dreams, true).tolist() == [[False, False, True]]
    assert is_wrong(np.zeros_like(dreams), true).tolist() == [[False] * 3]  # as near as the start


class Simulated(Tabletop):
    """Dreams the simulator's own future until a known step, then shows gray; its trust may know that."""

    trust_model = "planted"

    def __init__(self, futures, wrong_from, knows):
        super().__init__()
        self.futures, self.wrong_from, self.knows = futures, wrong_from, knows

    def generate(self, frames, codes, seed=0, return_trust=False):
        dream = self.futures[:, 1:].copy()
        right = np.arange(codes.shape[1]) < np.asarray(self.wrong_from)[:, None]
        dream[~right] = 128
        trust = right * 0.8 + 0.1 if self.knows else np.random.default_rng(seed).random(right.shape)
        return dream, trust


@pytest.mark.parametrize("knows", [True, False])
def test_dreams_are_compared_with_the_simulator(tables, knows):  # noqa: F811
    split, evidence = tables
    starts = choose_starts(Tabletop(), split, evidence, 3, 0)
    codes = uniform_codes(4, len(starts), 10, 0)
    futures = simulate_frames(Tabletop(), split, evidence, starts, codes)
    assert (futures[:, 0] == starts.frames).all()
    assert (futures[:, 1:] != futures[:, :-1]).any(axis=(2, 3, 4)).mean() > 0.9
    metric = measure_trust(Simulated(futures, [3, 5, 8], knows), split, evidence, 3, 10, 50, 0, progress=False)
    assert metric.more["wrong_share"] == pytest.approx(14 / 30)
    assert metric.n_trajectories == 3
    assert metric.value == 1 if knows else 0.2 < metric.value < 0.8
    frozen = measure_trust(Simulated(futures, [99] * 3, True), split, evidence, 3, 10, 50, 0, progress=False)
    assert "no frames are wrong" in frozen.reason


def test_a_world_or_a_source_without_what_is_needed_is_not_measured(tables, make_genie, make_video):  # noqa: F811
    split, evidence = tables
    metric = measure_trust(Tabletop(), split, evidence, 2, 4, 50, 0, progress=False)
    assert metric.verdict == "not run"
    assert "no trust.json" in metric.reason
    genie = random_genie(tiny_config())
    with pytest.raises(UserError, match="state"):
        calibrate(genie, make_video().split("test"), progress=False)


def test_a_calibration_is_written_once_and_read_by_the_world(tabletop_rlds, tmp_path, capsys):
    random_genie(tiny_config()).save_pretrained(tmp_path)
    source = open_source(str(tabletop_rlds))
    made = calibrate_run(tmp_path, source.split("train"), source.fingerprint, tables=2, steps=4, progress=False)
    assert made.calibration["tables"] == 2
    genie = Genie.from_pretrained(tmp_path)
    assert genie.trust_model == made
    start = np.zeros((1, 1, 16, 16, 3), np.uint8)
    dream, trust = genie.generate(start, [[0, 1, 2]], return_trust=True)
    assert (dream.shape[:2], trust.shape) == ((1, 3), (1, 3))
    before = (tmp_path / "trust.json").stat().st_mtime_ns
    calibrate_run(tmp_path, source.split("train"), source.fingerprint, tables=2, steps=4, progress=False)
    assert (tmp_path / "trust.json").stat().st_mtime_ns == before
    random_genie(tiny_config(), seed=1).save_pretrained(tmp_path)  # other weights
    calibrate_run(tmp_path, source.split("train"), source.fingerprint, tables=2, steps=4, progress=False)
    assert (tmp_path / "trust.json").stat().st_mtime_ns != before
    assert main([str(tmp_path), str(tabletop_rlds)]) == 0  # the command that errors name
    assert "trust.json" in capsys.readouterr().out


def test_the_schema_takes_the_metric():
    import jsonschema

    from genie_eval.report.write import schema

    signs, wrong = planted(True, 0)
    metric = trust_metric(trusted(fit_trust(signs, wrong), signs), wrong, 50, 0)
    content = schema()
    rules = {**content["properties"]["metrics"], "required": [], "$defs": content["$defs"]}
    jsonschema.validate(json.loads(json.dumps({"trust_auroc": metric.as_json()}, allow_nan=False)), rules)
    assert dataclasses.asdict(metric)["more"]["steps"] == 40
