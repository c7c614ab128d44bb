"""Codes and motion made to fool the metrics: clocks, glitches, codes of one trajectory, hidden state."""

import dataclasses

import numpy as np
import pytest

from genie_eval.codes.codebook import codebook_perplexity
from genie_eval.codes.leakage import state_leak
from genie_eval.codes.motion import clip_glitches
from genie_eval.codes.motion_metrics import ctc_metric, grounding_metric
from genie_eval.codes.motion_statistics import MotionStatistics
from genie_eval.codes.naming import name_codes
from genie_eval.codes.planted import planted_transitions, quantized
from genie_eval.codes.transitions import Transitions
from genie_eval.report.answer import consistency_answer
from genie_eval.resampling import swap_codes

K = 8


def table_of(lengths, motion, **columns) -> Transitions:
    trajectory = np.repeat(np.arange(len(lengths)), lengths)
    step = np.concatenate([np.arange(n) for n in lengths])
    return Transitions(trajectory, step, {"base": motion}, **columns)


def clock(lengths, noise=0.3, seed=0):
    """Motion that is a profile in absolute steps, the same in every trajectory; and the clock as its codes."""
    rng = np.random.default_rng(seed)
    step = np.concatenate([np.arange(n) for n in lengths])
    profile = rng.normal(size=(max(lengths), 3))
    motion = profile[step] + noise * rng.normal(size=(len(step), 3))
    return table_of(lengths, motion), quantized(profile, K)[step]


@pytest.mark.parametrize("unequal", [True, False])
def test_a_clock_does_not_pass_for_an_action(unequal):
    rng = np.random.default_rng(1)
    lengths = rng.integers(15, 60, 120) if unequal else np.full(120, 40)
    table, codes = clock(lengths)
    statistics = MotionStatistics(table, "base", K, draws=200)
    grounding = grounding_metric(statistics, codes, quantized(table.motions["base"], K), {}, swaps=199)
    consistent, _ = ctc_metric(statistics, codes, quantized(table.motions["base"], K), swaps=199)
    for metric in (grounding, consistent):
        assert metric.verdict != "pass"
    assert grounding.p > 0.5
    assert "not significantly above codes swapped" in grounding.reason


def test_swapping_by_step_reads_the_donor_at_the_same_step():
    starts = np.array([0, 2, 6])
    codes = np.array([0, 1, 10, 11, 12, 13])
    assert swap_codes(codes, starts, np.array([1, 0]), by="step").tolist() == [10, 11, 0, 1, 1, 1]
    assert swap_codes(codes, starts, np.array([1, 0])).tolist() == [10, 13, 0, 0, 1, 1]


def test_one_glitch_changes_little_and_is_said():
    table = planted_transitions(200, 40, seed=5)
    codes = quantized(table.motions["base"], K)
    motion = table.motions["base"].copy()
    motion[4000, 1] = 1e4 * motion.std()
    glitched = dataclasses.replace(table, motions={"base": motion})
    assert glitched.glitches == {"base": 1}
    assert table.glitches == {"base": 0}
    clean, dirty = (MotionStatistics(t, "base", K, draws=100) for t in (table, glitched))
    assert dirty.r2(codes) == pytest.approx(clean.r2(codes), abs=0.02)
    assert dirty.ctc(codes).value == pytest.approx(clean.ctc(codes).value, abs=0.03)
    metric = grounding_metric(dirty, codes, codes, {}, swaps=19)
    assert "1 transitions with a motion far beyond" in metric.reason


def test_honest_motion_is_left_as_it_is():
    rng = np.random.default_rng(0)
    for motion in (
        rng.normal(size=(5000, 3)),
        rng.laplace(size=(5000, 2)),
        (rng.random((5000, 1)) < 0.05).astype(float),  # a gripper that rarely moves
        (rng.random((5000, 1)) < 0.002).astype(float),
        np.zeros((50, 2)),
    ):
        assert clip_glitches(motion)[1] == 0
    broken = np.array([[0.0], [np.nan], [1.0]])
    assert np.isnan(clip_glitches(broken)[0][1]).all()


def test_a_code_of_one_trajectory_has_no_consistency_of_its_own():
    table = planted_transitions(60, 40, seed=2)
    codes = quantized(table.motions["base"], K - 1)
    codes = np.where((table.trajectory == 7) & (table.motions["base"][:, 0] > 0), K - 1, codes)
    metric, reading = ctc_metric(MotionStatistics(table, "base", K, draws=100), codes, codes, swaps=19)
    assert reading.code_values[K - 1] is None
    assert np.isfinite(metric.more["worst_code"]["value"])
    assert 0.7 < metric.value < 1.3


def test_codes_that_are_mostly_without_motion_do_not_pass():
    table = planted_transitions(200, 40, style=0, profile=0, seed=3)
    rare = np.random.default_rng(0).random(len(table.step)) < 0.3
    motion = np.where(rare[:, None], table.motions["base"], 0)
    codes = np.where(rare, quantized(motion, K - 1), K - 1)
    table = dataclasses.replace(table, motions={"base": motion})
    metric, _ = ctc_metric(MotionStatistics(table, "base", K, draws=100), codes, codes, swaps=199)
    assert metric.value == pytest.approx(1, abs=0.15)  # the codes that move are perfect; the still one is not asked
    assert metric.verdict == "warn"
    assert "cannot be judged" in metric.reason


def test_the_answer_is_no_surer_than_the_verdict():
    table = planted_transitions(30, 40, seed=6)
    codes = quantized(table.motions["base"], K)
    statistics = MotionStatistics(table, "base", K, draws=100)
    metrics = {
        "ctc": ctc_metric(statistics, codes, codes, swaps=199)[0],
        "grounding_r2": grounding_metric(statistics, codes, codes, {}, swaps=199),
        "codebook_perplexity": codebook_perplexity(codes, table.trajectory, K, codes),
    }
    assert metrics["ctc"].verdict == "warn"
    word, because = consistency_answer(metrics)
    assert word == "Probably"
    assert "at most a warning" in because
    metrics["ctc"].verdict = "pass"
    assert consistency_answer(metrics)[0] == "Yes"


def test_state_that_hides_in_a_parity_withholds_the_pass():
    rng = np.random.default_rng(0)
    motion, state = rng.normal(size=(8000, 3)), np.repeat(rng.normal(size=(800, 3)), 10, axis=0)
    bits = motion > 0
    parity = bits[:, 2] ^ (state[:, 0] > 0)
    codes = bits[:, 0] * 4 + bits[:, 1] * 2 + parity
    metric = state_leak(table_of(np.full(200, 40), motion, state=state), codes, K, draws=100)
    assert metric.verdict != "pass"
    assert "these models miss" in metric.reason
    honest = bits[:, 0] * 4 + bits[:, 1] * 2 + bits[:, 2]
    assert state_leak(table_of(np.full(200, 40), motion, state=state), honest, K, draws=100).verdict == "pass"


def test_usage_of_few_and_of_many_codes():
    trajectory = np.repeat(np.arange(200), 40)
    one = codebook_perplexity(np.zeros(8000, int), trajectory, 1, None)
    assert one.verdict == "fail"
    assert "one code" in one.reason
    two = codebook_perplexity(np.arange(8000) % 2, trajectory, 2, None)
    assert two.verdict == "pass"
    many = codebook_perplexity(np.random.default_rng(0).integers(500, size=8000), trajectory, 500, None)
    assert many.ci95[0] < many.value < many.ci95[1]


def test_octants_have_eight_names():
    rng = np.random.default_rng(0)
    motion = rng.normal(size=(8000, 3))
    codes = (motion > 0) @ np.array([1, 2, 4])
    cards = name_codes(table_of(np.full(200, 40), motion), codes, K, draws=100)
    assert len({card["name"] for card in cards}) == 8
    assert all(card["name"].count(",") == 1 and " and " in card["name"] for card in cards)
