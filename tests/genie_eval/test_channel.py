"""Bits, kappa and sequence shares on channels and displacements with a known answer."""

import numpy as np
import pytest

from genie_eval.dreams.channel import channel_bits, confusion, kappa, match_codes, recalls
from genie_eval.dreams.command import classify_displacements
from genie_eval.dreams.sequences import agreement, algebra, identify, opposite_pairs, permuted_share, sequence_share
from genie_eval.resampling import bootstrap_weights

K = 8


def test_a_perfect_channel_carries_three_bits_and_an_unrelated_one_none():
    assert channel_bits(np.eye(K) * 100) == pytest.approx(3)
    assert channel_bits(np.ones((K, K)) * 1000) == pytest.approx(0, abs=1e-6)
    assert kappa(np.eye(K) * 9) == pytest.approx(1)
    assert kappa(np.ones((K, K))) == pytest.approx(0)
    assert recalls(np.eye(3)) == [1, 1, 1]
    assert recalls(np.zeros((2, 2))) == [None, None]


def test_a_symmetric_channel_carries_the_bits_of_shannons_formula():
    """kappa 0.70 with evenly spread errors: 1.43 bits."""
    error = 0.3 * 7 / 8
    given = np.full((K, K), error / 7)
    np.fill_diagonal(given, 1 - error)
    entropy = -(1 - error) * np.log2(1 - error) - error * np.log2(error / 7)
    assert kappa(given * 1e6) == pytest.approx(0.70)
    assert channel_bits(given * 1e6) == pytest.approx(3 - entropy, abs=1e-3)
    assert 3 - entropy == pytest.approx(1.43, abs=0.01)


def test_bits_do_not_depend_on_how_often_a_code_is_sent():
    given = np.array([[0.9, 0.1], [0.2, 0.8]])
    assert channel_bits(given * np.array([[1e6], [1e4]])) == pytest.approx(channel_bits(given * 1e6), abs=1e-3)


def test_bits_of_few_unrelated_counts_are_near_zero():
    rng = np.random.default_rng(0)
    found = []
    for _ in range(50):
        sent, read = np.repeat(np.arange(K), 40), rng.integers(K, size=320)
        found.append(channel_bits(confusion(sent, read, np.zeros(320, int), K)[0]))
    plug_in = 49 / (2 * np.log(2) * 320)
    assert np.mean(found) < 0.3 * plug_in


def test_codes_of_another_model_are_matched_under_any_names():
    rng = np.random.default_rng(1)
    own, names = rng.integers(K, size=4000), rng.permutation(K)
    other = np.where(rng.random(4000) < 0.2, rng.integers(K, size=4000), names[own])
    label = match_codes(own, other, K, K)
    assert (label[names] == np.arange(K)).all()
    wide = match_codes(own, other * 2, K, 2 * K)  # more codes than ours, some of which never occur
    assert (wide[2 * names] == np.arange(K)).all()


def planted(starts=80, codes=8, share=0.7, drift=1.0, seed=0):
    """(S, K, 3) displacements. share: of the variance between sequences, common to all starts. drift: SD of starts."""
    rng = np.random.default_rng(seed)
    effect = rng.normal(size=(1, codes, 3)) * np.sqrt(share)
    effect /= np.sqrt((effect - effect.mean(axis=1)).var(axis=1, ddof=1).mean() / share)
    own = rng.normal(size=(starts, codes, 3)) * np.sqrt(1 - share)
    return effect + own + drift * rng.normal(size=(starts, 1, 3))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_sequence_share_is_the_planted_variance_ratio_for_any_drift(share):
    weights = bootstrap_weights(80, 300, 0)
    for drift in (0, 3):
        found = sequence_share(planted(share=share, drift=drift), weights)
        assert found.value == pytest.approx(share, abs=0.08)
        low, high = np.quantile(found.drawn, [0.025, 0.975])
        assert low < share < high


def test_sequences_renamed_at_every_start_share_nothing():
    null = permuted_share(planted(share=0.9), 40, 0)
    assert null.mean() == pytest.approx(0, abs=0.01)
    unrelated = sequence_share(planted(share=0.0001), bootstrap_weights(80, 50, 0))
    assert unrelated.value == pytest.approx(0, abs=0.05)


def test_cells_without_a_reading_are_left_out_and_change_little():
    moved = planted(share=0.6)
    whole = sequence_share(moved, bootstrap_weights(80, 50, 0)).value
    holes = moved.copy()
    holes[np.random.default_rng(3).random(holes.shape[:2]) < 0.15] = np.nan
    assert sequence_share(holes, bootstrap_weights(80, 50, 0)).value == pytest.approx(whole, abs=0.05)
    few = moved.copy()
    few[np.random.default_rng(4).random(few.shape[:2]) < 0.5] = np.nan
    assert sequence_share(few, bootstrap_weights(80, 50, 0)).value == pytest.approx(whole, abs=0.08)
    holes[5] = np.nan  # no reading from a whole start
    assert np.isfinite(sequence_share(holes, bootstrap_weights(80, 50, 0)).value)


def test_dreams_that_do_not_respond_read_zero():
    tiny = planted(share=0.95) * 0.01
    found = sequence_share(tiny, bootstrap_weights(80, 50, 0))
    assert found.value == 0
    assert not found.responds


def test_cosine_of_random_directions_is_zero_and_of_equal_ones_one():
    rng = np.random.default_rng(0)
    assert agreement(rng.normal(size=(60, 4, 3)), 1e-6)["cosine"] == pytest.approx(0, abs=0.05)
    same = np.broadcast_to(rng.normal(size=(1, 4, 3)), (60, 4, 3)) * rng.uniform(1, 3, size=(60, 1, 1))
    assert agreement(same, 1e-6)["cosine"] == pytest.approx(1)
    mixed = np.concatenate([same, 1e-4 * rng.normal(size=(60, 1, 3))], axis=1)
    judged = agreement(mixed, 1e-2)
    assert judged["not_judged"] == 1  # a still code has no direction
    assert judged["cosine"] == pytest.approx(1)


def test_identification_leaves_out_the_own_start():
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(1, 6, 3)) * 5
    assert identify(centers + rng.normal(size=(30, 6, 3)) * 0.1)[0] == 1
    assert identify(rng.normal(size=(400, 6, 3)))[0] == pytest.approx(1 / 6, abs=0.04)


def test_opposite_codes_must_both_go_the_right_way():
    meaning = np.array([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, 0, 0.01]])
    moved = np.broadcast_to(meaning, (10, 4, 3)).copy()
    assert opposite_pairs(meaning, moved)["credit"] == 1
    assert [p["codes"] for p in opposite_pairs(meaning, moved)["pairs"]] == [[0, 1]]
    moved[:5, 1] *= -1
    assert opposite_pairs(meaning, moved)["credit"] == 0.5


def test_displacements_that_add_have_no_commutator():
    rng = np.random.default_rng(0)
    one = rng.normal(size=(20, 4, 3))
    pairs = np.array([[0, 1], [2, 3], [1, 0], [3, 2]])
    added = algebra(pairs, one[:, pairs[:, 0]] + one[:, pairs[:, 1]], one)
    assert added["additivity_error"] == pytest.approx(0, abs=1e-9)
    assert added["commutator"] == pytest.approx(0, abs=1e-9)
    assert added["slope"] == pytest.approx(1)
    unrelated = algebra(pairs, rng.normal(size=(20, 4, 3)) * np.sqrt(2), one)
    assert unrelated["additivity_error"] == pytest.approx(np.sqrt(2), abs=0.25)
    assert unrelated["commutator"] == pytest.approx(np.sqrt(2), abs=0.25)


def test_the_physical_judge_reads_direction_at_any_length():
    rng = np.random.default_rng(0)
    meaning = rng.normal(size=(K, 3))
    for reach in (0.5, 5.0):
        moved = reach * meaning + 0.02 * rng.normal(size=(40, K, 3))
        reading = classify_displacements(moved, meaning, np.ones(3))
        assert reading.bits == pytest.approx(3, abs=0.1)
        assert reading.more["scale"] == pytest.approx(reach, rel=0.05)
    assert classify_displacements(np.zeros((40, K, 3)), meaning, np.ones(3)).bits == pytest.approx(0, abs=1e-9)
    backwards = classify_displacements(-meaning + 0.02 * rng.normal(size=(40, K, 3)), meaning, np.ones(3))
    assert kappa(backwards.counts.sum(axis=0)) < 0.3
