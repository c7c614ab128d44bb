"""Resampling moves whole trajectories, and its error rates are what they claim."""

import numpy as np
import pytest

from genie_eval.codes.motion_statistics import MotionStatistics
from genie_eval.codes.planted import autocorrelated_codes, planted_transitions, quantized
from genie_eval.resampling import (
    bootstrap_weights,
    corrected_interval,
    holm,
    interval,
    jackknife_weights,
    permutation_p,
    sign_flip_p,
    swap_codes,
)


def test_bootstrap_weights_draw_as_many_trajectories_as_there_are():
    weights = bootstrap_weights(30, draws=50, seed=1)
    assert weights.shape == (50, 30)
    assert (weights.sum(axis=1) == 30).all()


def test_swapping_moves_whole_trajectories_of_equal_length():
    codes = np.array([0, 1, 2, 3, 4, 5])
    assert swap_codes(codes, np.array([0, 3, 6]), np.array([1, 0])).tolist() == [3, 4, 5, 0, 1, 2]


def test_swapping_aligns_by_phase_where_lengths_differ():
    starts = np.array([0, 3, 8])
    codes = np.array([0, 1, 2, 10, 11, 12, 13, 14])
    swapped = swap_codes(codes, starts, np.array([1, 0]))
    assert swapped[:3].tolist() == [10, 12, 14]
    assert swapped[3] == 0
    assert swapped[-1] == 2
    assert (np.diff(swapped[3:]) >= 0).all()


def test_swap_test_rarely_rejects_codes_that_know_nothing():
    """Codes and motion dwell and share a phase profile: the setting in which frame shuffles reject almost always."""
    rejected, draws = 0, 60
    for seed in range(draws):
        table = planted_transitions(40, 20, seed=seed)
        phase_driven = (table.phase * 4).astype(int)
        codes = (autocorrelated_codes(40, 20, 4, seed=1000 + seed) + phase_driven) % 8
        statistics = MotionStatistics(table, "base", 8, draws=2, seed=seed)
        rejected += permutation_p(statistics.r2(codes), statistics.r2_swap_null(codes, swaps=99)) <= 0.05
    assert rejected / draws <= 0.15  # 5 % expected; 9 of 60 or more would be a 1-in-500 accident


def test_p_of_codes_that_know_nothing_is_uniform():
    from scipy.stats import kstest

    p: dict[str, list[float]] = {"r2": [], "across": []}
    for seed in range(120):
        table = planted_transitions(24, 12, seed=seed)
        codes = autocorrelated_codes(24, 12, 4, seed=1000 + seed)
        statistics = MotionStatistics(table, "base", 4, draws=2, seed=seed)
        p["r2"].append(permutation_p(statistics.r2(codes), statistics.r2_swap_null(codes, swaps=99)))
        p["across"].append(permutation_p(statistics.across(codes), statistics.across_swap_null(codes, swaps=99)))
    for values in p.values():
        assert kstest(values, "uniform").pvalue > 0.01
        assert np.mean(np.array(values) <= 0.05) <= 0.125  # 15 of 120 or more: a 1-in-1000 accident


def test_swap_test_finds_codes_that_know_something():
    table = planted_transitions(40, 20, seed=0)
    codes = quantized(table.motions["base"])
    statistics = MotionStatistics(table, "base", 8, draws=2)
    assert permutation_p(statistics.r2(codes), statistics.r2_swap_null(codes, swaps=99)) == pytest.approx(0.01)


def test_holm_adjusts_and_keeps_order():
    assert holm(np.array([0.01, 0.04, 0.03])).tolist() == pytest.approx([0.03, 0.06, 0.06])


def test_sign_flips_see_a_shift_and_not_noise():
    noise = np.random.default_rng(0).normal(size=60)
    assert sign_flip_p(noise + 1) < 0.01
    assert sign_flip_p(noise - noise.mean()) > 0.2


def test_interval_leaves_out_undefined_draws_and_stays_undefined_without_any():
    draws = np.array([[1.0, np.nan], [2.0, np.nan], [np.inf, np.nan], [3.0, np.nan]])
    low, high = interval(draws)
    assert 1 <= low[0] < high[0] <= 3
    assert np.isnan(low[1])
    assert np.isnan(high[1])


def test_jackknife_leaves_each_trajectory_out_once_and_groups_many():
    few = jackknife_weights(5)
    assert sorted(few.tolist()) == sorted((1 - np.eye(5)).tolist())
    many = jackknife_weights(1000)
    assert many.shape == (200, 1000)
    assert (many == 0).sum(axis=0).tolist() == [1] * 1000
    assert (many == 0).sum(axis=1).tolist() == [5] * 200


def test_corrected_interval_of_a_mean_is_that_of_student():
    from scipy.stats import t

    values = np.random.default_rng(0).normal(3, 2, size=12)
    drawn = bootstrap_weights(12, 20000) @ values / 12
    left_out = jackknife_weights(12) @ values / 11
    half = t.ppf(0.975, 11) * values.std(ddof=1) / np.sqrt(12)
    assert corrected_interval(values.mean(), drawn, left_out) == pytest.approx(
        [values.mean() - half, values.mean() + half], abs=0.08 * half
    )


def test_corrected_interval_undoes_a_bias_that_percentiles_double():
    """The variance of few reads too low, and lower still in bootstrap draws: the interval has to go the other way."""

    def variance(values, weights):
        return (weights @ values**2) / weights.sum(axis=1) - ((weights @ values) / weights.sum(axis=1)) ** 2

    rng, hits, plain = np.random.default_rng(0), [], []
    for _ in range(400):
        values = rng.normal(0, 1, size=15)
        drawn = variance(values, bootstrap_weights(15, 400, int(rng.integers(2**31))))
        low, high = corrected_interval(values.var(), drawn, variance(values, jackknife_weights(15)))
        hits.append(low <= 1 <= high)
        low, high = interval(drawn)
        plain.append(low <= 1 <= high)
    assert np.mean(hits) > np.mean(plain) + 0.04
    assert np.mean(hits) > 0.84  # of a variance of 15 normals even the best bootstrap covers no 90 %


def test_corrected_interval_has_the_shape_of_the_value_and_leaves_out_what_is_not_finite():
    rng = np.random.default_rng(0)
    drawn, left_out = rng.normal(size=(100, 2, 3)), rng.normal(size=(20, 2, 3)) / 100
    drawn[:, 1, 2] = np.nan
    drawn[::7, 0, 0] = np.inf
    bounds = corrected_interval(np.zeros((2, 3)), drawn, left_out)
    assert bounds.shape == (2, 2, 3)
    assert np.isnan(bounds[:, 1, 2]).all()
    assert np.isfinite(np.delete(bounds.reshape(2, 6), 5, axis=1)).all()
    assert corrected_interval(1.0, np.full(50, 1.0), np.full(9, 1.0)) == pytest.approx([1, 1])
