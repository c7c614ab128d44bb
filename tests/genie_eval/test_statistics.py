"""Resampling moves whole trajectories, and its error rates are what they claim."""

import numpy as np
import pytest

from genie_eval.codes.assay import MotionAssay
from genie_eval.planted import autocorrelated_codes, planted_transitions, quantised
from genie_eval.resampling import bootstrap_weights, holm, interval, permutation_p, sign_flip_p, swap_codes


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
        assay = MotionAssay(table, "base", 8, draws=2, seed=seed)
        rejected += permutation_p(assay.r2(codes), assay.r2_swap_null(codes, swaps=99)) <= 0.05
    assert rejected / draws <= 0.15  # 5 % expected; 9 of 60 or more would be a 1-in-500 accident


def test_swap_test_finds_codes_that_know_something():
    table = planted_transitions(40, 20, seed=0)
    codes = quantised(table.motions["base"])
    assay = MotionAssay(table, "base", 8, draws=2)
    assert permutation_p(assay.r2(codes), assay.r2_swap_null(codes, swaps=99)) == pytest.approx(0.01)


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
