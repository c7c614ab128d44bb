"""Is the metric itself trustworthy? Codes with a known relation to motion, and what the metrics must read on them."""

import dataclasses

import numpy as np
import pytest

from genie_eval.codes import nulls
from genie_eval.codes.baselines import Features, baseline_rows, baselines
from genie_eval.codes.code_sums import code_sums
from genie_eval.codes.consistency import consistency, pair_sums
from genie_eval.codes.grounding import held_out_r2
from genie_eval.codes.motion_metrics import ctc_metric, grounding_metric
from genie_eval.codes.motion_statistics import MotionStatistics
from genie_eval.codes.planted import autocorrelated_codes, planted_transitions, quantized, with_label_noise
from genie_eval.codes.quantize import quantize
from genie_eval.metrics import skill

K = 8


@pytest.fixture(scope="module")
def table():
    return planted_transitions(200, 40, seed=5)


@pytest.fixture(scope="module")
def statistics(table):
    return MotionStatistics(table, "base", K, draws=300)


@pytest.fixture(scope="module")
def oracle(table):
    return quantized(table.motions["base"], K)


def partly_permuted(codes, table, share, seed=0):
    chosen = np.random.default_rng(seed).permutation(table.num_trajectories) < share * table.num_trajectories
    return np.where(chosen[table.trajectory], nulls.permuted_per_trajectory(codes, table, K, seed), codes)


def test_cross_fitted_oracle_reads_one(statistics, table, oracle):
    cross_fitted = quantize(table.motions["base"], table.trajectory, K)
    null = statistics.r2_swap_null(cross_fitted, 30).mean()
    assert skill(statistics.r2(cross_fitted), null, statistics.r2(oracle)) == pytest.approx(1, abs=0.05)
    assert 0.95 <= statistics.ctc(cross_fitted).value <= 1.15


@pytest.mark.parametrize("name", ["swapped", "marginal", "autocorrelated", "constant", "scene"])
def test_codes_without_meaning_read_zero_and_have_no_consistency(name, statistics, table, oracle):
    codes = {
        "swapped": lambda: nulls.swapped(oracle, table),
        "marginal": lambda: nulls.marginal(oracle, K),
        "autocorrelated": lambda: autocorrelated_codes(200, 40, K, seed=2),
        "constant": lambda: np.zeros_like(oracle),
        "scene": lambda: nulls.scene_code(table, K),
    }[name]()
    null = statistics.r2_swap_null(codes, 30).mean()
    assert skill(statistics.r2(codes), null, statistics.r2(oracle)) == pytest.approx(0, abs=0.03)
    assert statistics.ctc(codes).value is None


@pytest.mark.parametrize("name", ["phase", "scene", "position"])
def test_phase_scene_and_position_do_not_pass_for_consistency(name, statistics, table):
    """They hold information on raw motion (a naive eta squared rewards them): CTC must stay undefined or low."""
    codes = {
        "phase": nulls.phase_code(table, K),
        "scene": nulls.scene_code(table, K),
        "position": nulls.position_code(table, K),
    }[name]
    reading = statistics.ctc(codes)
    assert reading.value is None or reading.value < 0.4


def test_phase_code_would_fool_a_raw_measure(statistics, table):
    assert statistics.r2(nulls.phase_code(table, K)) > 0.05


def test_private_dictionaries_keep_within_and_lose_across(statistics, table, oracle):
    """THE control: perfectly consistent inside every trajectory, meaningless across them."""
    private, public = statistics.ctc(nulls.permuted_per_trajectory(oracle, table, K, seed=3)), statistics.ctc(oracle)
    assert private.within == pytest.approx(public.within, rel=1e-9)
    assert private.value == pytest.approx(0, abs=0.05)


def test_ctc_tracks_the_share_of_trajectories_with_a_private_dictionary(statistics, table, oracle):
    whole = statistics.ctc(oracle).value
    shares = (0.1, 0.25, 0.5, 0.75)
    values = [statistics.ctc(partly_permuted(oracle, table, q)).value / whole for q in shares]
    assert values == pytest.approx([(1 - q) ** 2 for q in shares], abs=0.08)
    assert (np.diff(values) < 0).all()


def test_two_groups_of_scenes_with_different_meanings_read_between(statistics, table, oracle):
    other = np.random.default_rng(1).permutation(K)
    codes = np.where(table.scene % 2 == 0, oracle, other[oracle])
    assert 0.35 < statistics.ctc(codes).value < 0.75


def test_r2_falls_with_label_noise_as_the_square(statistics, oracle):
    shares = (0, 0.1, 0.25, 0.5, 0.75, 0.9)
    values = np.array([statistics.r2(with_label_noise(oracle, p, K)) for p in shares])
    assert (np.diff(values) < 0).all()
    assert values / values[0] == pytest.approx([(1 - p) ** 2 for p in shares], abs=0.03)


def test_renaming_codes_changes_nothing(statistics, oracle):
    renamed = np.random.default_rng(4).permutation(K)[oracle]
    assert statistics.r2(renamed) == pytest.approx(statistics.r2(oracle), abs=1e-12)
    assert statistics.ctc(renamed).value == pytest.approx(statistics.ctc(oracle).value, abs=1e-12)


def test_order_of_trajectories_changes_nothing(table, oracle):
    order = np.random.default_rng(0).permutation(table.num_trajectories)
    rows = (order[:, None] * 40 + np.arange(40)).reshape(-1)
    moved = dataclasses.replace(table, motions={"base": table.motions["base"][rows]}, position=None, scene=None)
    first, second = (MotionStatistics(t, "base", K, draws=2) for t in (table, moved))
    assert second.r2(oracle[rows]) == pytest.approx(first.r2(oracle), abs=1e-9)
    assert second.ctc_value(oracle[rows]) == pytest.approx(first.ctc_value(oracle), abs=1e-9)


def test_r2_equals_the_plain_leave_one_trajectory_out_loop():
    table = planted_transitions(12, 9, seed=3)
    codes = with_label_noise(quantized(table.motions["base"], 4), 0.3, 4)
    statistics = MotionStatistics(table, "base", 4, draws=2)
    error = spread = 0.0
    for i in range(12):
        own, rest = table.trajectory == i, table.trajectory != i
        overall = statistics.scored[rest].mean(axis=0)
        for x, k in zip(statistics.scored[own], codes[own], strict=True):
            alike = rest & (codes == k)
            mean = statistics.scored[alike].mean(axis=0) if alike.any() else overall
            error += ((x - mean) ** 2).sum()
            spread += ((x - overall) ** 2).sum()
    assert statistics.r2(codes) == pytest.approx(1 - error / spread, abs=1e-9)


def test_r2_under_weights_equals_the_loop_over_copies():
    """A trajectory drawn twice is scored twice, and predicted without both of its copies; a code that nobody else has,
    by the overall mean of the others."""
    table = planted_transitions(9, 7, seed=4)
    codes = with_label_noise(quantized(table.motions["base"], 4), 0.3, 4)
    codes[table.trajectory == 5] = 4  # whoever draws 5 has a code of its own
    statistics = MotionStatistics(table, "base", 5, draws=40, seed=2)
    drawn = statistics.r2_draws(codes)
    for weights, found in zip(statistics.weights[:40], drawn, strict=True):
        error = spread = 0.0
        row = weights[table.trajectory]
        for i in np.flatnonzero(weights):
            rest = row * (table.trajectory != i)
            overall = rest @ statistics.scored / rest.sum()
            for x, k in zip(statistics.scored[table.trajectory == i], codes[table.trajectory == i], strict=True):
                alike = rest * (codes == k)
                mean = alike @ statistics.scored / alike.sum() if alike.any() else overall
                error += weights[i] * ((x - mean) ** 2).sum()
                spread += weights[i] * ((x - overall) ** 2).sum()
        assert found == pytest.approx(1 - error / spread, abs=1e-9)
    assert held_out_r2(code_sums(codes, statistics.scored, table.trajectory, 5), np.ones((1, 9)))[0] == pytest.approx(
        statistics.r2(codes), abs=1e-12
    )


def test_w_under_weights_equals_that_of_the_trajectories_copied():
    table = planted_transitions(8, 15, seed=4)
    codes = quantized(table.motions["base"], 3)
    statistics = MotionStatistics(table, "base", 3, draws=5, seed=1)
    pairs = pair_sums(codes, statistics.residual, table.trajectory, 3, statistics.lag)
    drawn = consistency(pairs, statistics.weights)
    for weights, within in zip(statistics.weights, drawn.within, strict=True):
        rows = np.concatenate(
            [np.flatnonzero(table.trajectory == i) for i in np.repeat(np.arange(8), weights.astype(int))]
        )
        copied = pair_sums(codes[rows], statistics.residual[rows], np.repeat(np.arange(8), 15), 3, statistics.lag)
        assert within == pytest.approx(consistency(copied).within[0], abs=1e-9)


def test_many_codes_need_little_memory(table):
    """256 codes, 200 trajectories, 2,000 draws: nothing of size draws x trajectories x codes x dimensions is made."""
    import tracemalloc

    codes = with_label_noise(quantized(table.motions["base"], 32), 0.5, 256)
    statistics = MotionStatistics(table, "base", 256, draws=2000)
    tracemalloc.start()
    statistics.r2_draws(codes)
    statistics.ctc(codes)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 300e6


def test_ctc_equals_the_plain_loop_over_pairs():
    table = planted_transitions(6, 12, seed=8)
    codes = quantized(table.motions["base"], 3)
    statistics = MotionStatistics(table, "base", 3, draws=2)
    x, i, t = statistics.residual, table.trajectory, table.step
    product = x @ x.T
    pairs = np.triu(np.ones_like(product, bool), 1)
    across, alike = pairs & (i[:, None] != i), codes[:, None] == codes
    expected_x = product[across & alike].mean() - product[across].mean()
    lag = t[None] - t[:, None]
    inside = pairs & (i[:, None] == i) & (lag >= statistics.lag)
    usual = {gap: product[inside & (lag == gap)].mean() for gap in np.unique(lag[inside])}
    excess = [product[a, b] - usual[lag[a, b]] for a, b in np.argwhere(inside & alike)]
    reading = statistics.ctc(codes)
    assert reading.across == pytest.approx(expected_x, abs=1e-9)
    assert reading.within == pytest.approx(np.mean(excess), abs=1e-9)


def test_model_is_told_when_a_baseline_beats_it(statistics, table, oracle):
    model = with_label_noise(oracle, 0.5, K)
    rival = with_label_noise(oracle, 0.2, K, seed=9)
    metric = grounding_metric(statistics, model, oracle, {"pca_kmeans": rival}, swaps=49)
    row = metric.more["against"]["pca_kmeans"]
    assert row["difference"] < 0
    assert row["p"] > 0.99
    assert metric.verdict != "pass"
    assert "pca_kmeans" in metric.reason
    reverse = grounding_metric(statistics, rival, oracle, {"pca_kmeans": model}, swaps=49).more["against"]["pca_kmeans"]
    assert reverse["p"] <= 0.01


def test_good_codes_pass_with_enough_trajectories_and_only_warn_with_few(statistics, oracle):
    codes = with_label_noise(oracle, 0.1, K)
    worse = {"pca_kmeans": with_label_noise(oracle, 0.8, K)}
    assert grounding_metric(statistics, codes, oracle, worse, swaps=199).verdict == "pass"
    assert ctc_metric(statistics, codes, oracle, swaps=199)[0].verdict == "pass"
    few = planted_transitions(30, 40, seed=6)
    few_oracle = quantized(few.motions["base"], K)
    small = MotionStatistics(few, "base", K, draws=300)
    metric, _ = ctc_metric(small, few_oracle, few_oracle, swaps=49)
    assert metric.verdict == "warn"
    assert "exploratory" in metric.reason


def test_a_code_for_standing_still_is_not_called_inconsistent():
    """Trajectories differ in mean motion, and that mean is removed: only codes with a direction can be judged."""
    table = planted_transitions(200, 40, style=0.8, profile=0, seed=11)
    motion = table.motions["base"].copy()
    still = np.random.default_rng(0).random(len(motion)) < 0.2
    motion[still] = 0
    codes = np.where(still, K - 1, quantized(motion, K - 1))
    reading = MotionStatistics(dataclasses.replace(table, motions={"base": motion}), "base", K, draws=200).ctc(codes)
    assert reading.code_values[K - 1] is None
    defined = [value for value in reading.code_values if value is not None]
    assert len(defined) >= 5
    assert min(defined) > 0.6


def test_one_glitch_takes_no_code_for_itself(table):
    motion = table.motions["base"].copy()
    motion[123] *= 15
    assert np.bincount(quantize(motion, table.trajectory, K), minlength=K).min() > 200


def test_codes_are_fitted_on_training_rows_where_there_are_some(table):
    motion = table.motions["base"]
    shifted = quantize(motion + 100, table.trajectory, K, train=motion)
    assert len(np.unique(shifted)) < K  # everything lies beyond the training data
    assert len(np.unique(quantize(motion + 100, table.trajectory, K))) == K


@pytest.mark.parametrize("name", ["phase", "scene", "position", "style"])
def test_the_verdicts_are_not_fooled_by_phase_scene_position_or_style(name, statistics, table, oracle):
    """A naive eta squared rewards all of them; neither metric as a whole may say "pass"."""
    style = table.motions["base"].reshape(200, 40, 3).mean(axis=1)
    codes = {
        "phase": lambda: nulls.phase_code(table, K),
        "scene": lambda: nulls.scene_code(table, K),
        "position": lambda: nulls.position_code(table, K),
        "style": lambda: quantized(style, K)[table.trajectory],
    }[name]()
    consistent, _ = ctc_metric(statistics, codes, oracle, swaps=49)
    assert consistent.verdict in ("fail", "not run")
    assert grounding_metric(statistics, codes, oracle, {}, swaps=199).verdict == "fail"


def test_undefined_consistency_fails_with_its_reason(statistics, table, oracle):
    metric, _ = ctc_metric(statistics, nulls.swapped(oracle, table), oracle, swaps=49)
    assert metric.value is None
    assert metric.verdict == "fail"
    assert "not related even within a trajectory" in metric.reason


def test_every_row_of_the_baselines_is_there_and_in_order(statistics, table, oracle):
    rng = np.random.default_rng(0)
    noisy = table.motions["base"] + rng.normal(size=table.motions["base"].shape)
    features = Features(flow=noisy, difference=noisy, untrained=rng.normal(size=(len(oracle), 4)))
    model = with_label_noise(oracle, 0.2, K)
    rows = baseline_rows(
        baselines(table, model, features, None, K), {"": statistics}, {"": 0.0}, {"": statistics.r2(oracle)},
        table.trajectory, K, progress=False,
    )  # fmt: skip
    value = {row["name"]: row.get("grounding_skill") for row in rows}
    assert value["oracle_image"] is None  # no image motion was planted
    assert value["oracle_motion"] > value["model"] > value["flow_kmeans"] > value["untrained"]
    for name in ("swapped", "marginal", "constant", "permuted_per_trajectory", "scene"):
        assert value[name] == pytest.approx(0, abs=0.04)
    by_name = {row["name"]: row for row in rows}
    assert by_name["permuted_per_trajectory"]["ctc"] == pytest.approx(0, abs=0.05)
    assert by_name["swapped"]["ctc"] is None
