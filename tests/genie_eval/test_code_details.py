"""Details of codes: each number against a planted answer."""

import dataclasses
import json

import numpy as np
import pytest

from genie_eval.codes import nulls
from genie_eval.codes.agreement import code_directions, consistency_details, cross_context
from genie_eval.codes.details import code_details
from genie_eval.codes.generalizability import permutation_anova, variance_components
from genie_eval.codes.information import by_dimension, grounding_details, information_bits
from genie_eval.codes.motion_statistics import MotionStatistics
from genie_eval.codes.planted import (
    autocorrelated_codes,
    planted_transitions,
    quantized,
    seen_by_camera,
    with_label_noise,
)
from genie_eval.codes.probe import probe
from genie_eval.codes.transitions import Transitions
from genie_eval.codes.usage_stats import codebook_details, divergence, pair_bits

K = 8


@pytest.fixture(scope="module")
def table():
    return seen_by_camera(planted_transitions(120, 30, seed=2))


@pytest.fixture(scope="module")
def oracle(table):
    return quantized(table.motions["base"], K)


def grid(trajectories, length, **columns):
    return Transitions(
        trajectory=np.repeat(np.arange(trajectories), length), step=np.tile(np.arange(length), trajectories), **columns
    )


# --- habits -----------------------------------------------------------------------------------------------------------


def test_divergence_and_information_of_tables_known_by_hand():
    assert divergence(np.array([[4.0, 0.0], [0.0, 4.0]])) == pytest.approx(1)
    assert divergence(np.array([[2.0, 2.0], [3.0, 3.0]])) == pytest.approx(0)
    assert pair_bits(np.diag([1.0, 1, 1, 1])) == pytest.approx(2)
    assert pair_bits(np.ones((4, 4))) == pytest.approx(0)


def test_codes_of_one_chain_do_not_diverge_and_codes_of_scenes_do(table):
    """Dwelling makes short trajectories differ: the null has that too, so that nothing is left over."""
    same = codebook_details(table, autocorrelated_codes(120, 30, K, seed=1), K)
    assert same["divergence_bits"]["value"] > 0.2
    assert same["divergence_bits"]["excess"] == pytest.approx(0, abs=0.05)
    assert same["self_transition"]["value"] == pytest.approx(0.7 + 0.3 / K, abs=0.02)
    assert same["dwell"]["mean"] == pytest.approx(1 / (0.3 * (1 - 1 / K)), rel=0.15)
    assert same["next_code_information_bits"]["excess"] > 1
    style = codebook_details(table, nulls.scene_code(table, K), K)
    assert style["divergence_bits"]["value"] > 1.5
    assert style["trajectory_entropy_bits"]["mean"] == 0


def test_independent_codes_say_nothing_of_the_next(table):
    codes = np.random.default_rng(0).integers(K, size=len(table.step))
    assert codebook_details(table, codes, K)["next_code_information_bits"]["excess"] == pytest.approx(0, abs=0.01)


def test_a_code_that_one_trajectory_owns_is_found(table, oracle):
    codes = np.where(table.trajectory == 3, K - 1, oracle % (K - 1))
    details = codebook_details(table, codes, K)
    assert details["effective_trajectories"]["by_code"][K - 1] == pytest.approx(1)
    assert details["effective_trajectories"]["by_code"][0] > 80
    assert details["coverage_by_scene"]["least"]["code"] == K - 1
    assert not details["coverage_by_scene"]["reached"]


# --- grounding --------------------------------------------------------------------------------------------------------


def test_omega_is_free_of_the_bias_of_eta():
    rng = np.random.default_rng(0)
    trajectory, omega, eta = np.repeat(np.arange(20), 10), [], []
    for _ in range(200):
        found = by_dimension(rng.normal(size=(200, 1)), rng.integers(K, size=200), trajectory, K)
        eta.append(found["eta2"][0])
        omega.append(found["omega2"][0])
    assert np.mean(eta) == pytest.approx(7 / 199, abs=0.005)
    assert np.mean(omega) == pytest.approx(0, abs=0.005)


def test_dimensions_are_told_apart_and_a_still_one_has_no_value(table):
    motion = np.column_stack([table.motions["base"][:, :2], np.zeros(len(table.step))])
    found = by_dimension(motion, (motion[:, 0] > 0).astype(int), table.trajectory, 2)
    assert found["eta2"][0] == pytest.approx(2 / np.pi, abs=0.03)  # of a normal, halved at 0
    assert found["r2"][0] == pytest.approx(2 / np.pi, abs=0.03)
    assert found["r2"][1] < 0.1
    assert found["eta2"][2] is None


@pytest.mark.parametrize(("dims", "gap"), [(1, 1.0), (1, 3.0), (3, 2.0)])
def test_bits_of_gaussian_mixtures(dims, gap):
    """Two normals `gap` apart along the first axis: the information is known by numerical integration."""
    rng = np.random.default_rng(dims)
    codes = rng.integers(2, size=3000)
    values = rng.normal(size=(3000, dims))
    values[:, 0] += gap * codes
    x = np.linspace(-8, 8 + gap, 20001)
    each = [np.exp(-((x - c) ** 2) / 2) / np.sqrt(2 * np.pi) for c in (0, gap)]
    both = sum(each) / 2
    true = sum(0.5 * np.sum(np.where(p > 0, p * np.log2(np.maximum(p, 1e-300) / both), 0)) for p in each) * (
        x[1] - x[0]
    )
    assert information_bits(codes, values) == pytest.approx(true, abs=0.05)


def test_bits_equal_those_of_scikit_learn_in_one_dimension():
    from sklearn.feature_selection import mutual_info_classif

    rng = np.random.default_rng(0)
    codes = rng.integers(4, size=800)
    values = rng.normal(size=(800, 1)) + codes[:, None]
    theirs = mutual_info_classif(values, codes, n_neighbors=5, random_state=0)[0] / np.log(2)
    assert information_bits(codes, values, 5) == pytest.approx(theirs, abs=0.02)


def test_bits_beside_their_swap_null(table, oracle):
    related = grounding_details(table, oracle, K)["by_motion"]["base"]["information_bits"]
    assert 2 < related["excess"] <= related["code_entropy"] + 0.1
    unrelated = grounding_details(table, nulls.swapped(oracle, table), K)["by_motion"]["base"]["information_bits"]
    assert unrelated["excess"] == pytest.approx(0, abs=0.05)


def test_gripper_events_and_the_ceiling_of_agreement(table, oracle):
    rng = np.random.default_rng(0)
    gripper = rng.choice([-1.0, 0, 0, 0, 0, 0, 0, 1], size=len(table.step))
    moving = dataclasses.replace(table, motions={**table.motions, "gripper": gripper[:, None]})
    codes = np.where(gripper > 0, 7, oracle % 7)
    details = grounding_details(moving, codes, K, oracle)
    assert details["gripper_auroc"]["closing"]["auroc"] == pytest.approx(1)
    assert details["gripper_auroc"]["opening"]["auroc"] < 0.65  # code 7 never opens: that much is known of it
    blind = grounding_details(moving, oracle, K)["gripper_auroc"]
    assert blind["closing"]["auroc"] == pytest.approx(0.5, abs=0.06)  # "nothing known" is not "below chance"
    assert "no oracle" in grounding_details(moving, oracle, K)["oracle_ami"]["reason"]
    same = grounding_details(moving, oracle, K, oracle)["oracle_ami"]
    assert same["value"] == pytest.approx(1)
    assert 0.3 < same["ceiling"] < 0.9
    assert "no motion 'rotation'" in details["by_motion"]["rotation"]["reason"]


# --- probe ------------------------------------------------------------------------------------------------------------


def test_probes_read_what_the_embedding_holds_and_nothing_of_others(table, oracle):
    rng = np.random.default_rng(0)
    motion = table.motions["base"]
    linear = motion @ rng.normal(size=(3, 6)) + 0.1 * rng.normal(size=(len(motion), 6))
    found = probe(table, linear, oracle, K)
    assert found["ridge"]["r2"] > 0.95
    assert found["ridge"]["control"] < 0.1
    assert found["lost_by_quantisation"] == pytest.approx(found["mlp"]["r2"] - found["code_r2"], abs=0.1)
    squares = np.column_stack([np.sign(motion) * motion**2, np.abs(motion)]) ** 2  # sign is gone from half, bent in all
    bent = probe(table, np.column_stack([np.tanh(2 * motion), np.sin(3 * motion), squares]), oracle, K)
    assert bent["mlp"]["r2"] > bent["ridge"]["r2"] + 0.02
    noise = probe(table, rng.normal(size=(len(motion), 6)), oracle, K)
    assert noise["ridge"]["r2"] == pytest.approx(0, abs=0.02)
    assert noise["mlp"]["selectivity"] == pytest.approx(0, abs=0.1)


def test_a_probe_that_cannot_be_made_says_why(table, oracle):
    assert "rows" in probe(table, np.zeros((3, 2)), oracle, K)["reason"]
    assert "never changes" in probe(table, np.zeros((len(oracle), 2)), oracle, K)["reason"]
    assert "not finite" in probe(table, np.full((len(oracle), 2), np.nan), oracle, K)["reason"]


# --- consistency ------------------------------------------------------------------------------------------------------


def planted_components(code, code_scene, code_trajectory, trajectories=240, length=48, scenes=6, seed=0):
    """Motion with these variances by code, code x scene, code x trajectory, and 1 of noise; codes independent.
    Trajectories are of two lengths, codes of unequal shares."""
    rng = np.random.default_rng(seed)
    scene = rng.integers(scenes, size=trajectories)
    shares = np.linspace(1, 2, K) / np.linspace(1, 2, K).sum()

    def effect(variance, *shape):
        values = rng.normal(size=(*shape, K, 2))
        values -= np.einsum("k,...kd->...d", shares, values)[..., None, :]  # codes apart, no main effect
        scale = (shares[:, None] * values**2).sum() / np.prod(shape, initial=1)
        return values * np.sqrt(variance / scale)

    means = effect(code) + effect(code_scene, scenes)[scene] + effect(code_trajectory, trajectories)
    lengths = np.where(np.arange(trajectories) % 2, length, length // 2)
    trajectory = np.repeat(np.arange(trajectories), lengths)
    codes = rng.choice(K, size=len(trajectory), p=shares)
    motion = means[trajectory, codes] + rng.normal(size=(len(trajectory), 2)) / np.sqrt(2)
    step = np.concatenate([np.arange(n) for n in lengths])
    return Transitions(trajectory, step, {"base": motion}, scene=scene[trajectory]), codes


@pytest.mark.parametrize("planted", [(1.0, 0.0, 0.0), (1.0, 0.0, 0.5), (1.0, 0.5, 0.25), (0.0, 0.0, 1.0)])
def test_variance_components_are_those_that_were_planted(planted):
    found = np.array(
        [
            [variance_components(MotionStatistics(table, "base", K, draws=2), codes)["of_total"][name]
             for name in ("code", "code_scene", "code_trajectory")]
            for table, codes in (planted_components(*planted, seed=seed) for seed in range(4))
        ]
    )  # fmt: skip
    share = np.array(planted) / (sum(planted) + 1)
    assert found.mean(axis=0) == pytest.approx(share, abs=0.045)
    table, codes = planted_components(*planted)
    whole = variance_components(MotionStatistics(table, "base", K, draws=200), codes)
    parts = [whole[name]["value"] for name in ("code", "code_scene", "code_trajectory", "residual")]
    assert sum(parts) == pytest.approx(whole["total"])
    coefficient = whole["coefficient"]
    assert coefficient["ci95"][0] - 0.05 <= planted[0] / sum(planted) <= coefficient["ci95"][1] + 0.05


def test_code_directions_on_vectors_known_by_hand():
    motion = np.array([[1.0, 0], [2, 0], [0, 3], [-1, 0]])  # one transition a trajectory
    table = grid(4, 1, motions={"base": motion / motion.std(axis=0)})
    row = code_directions(table, np.zeros(4, int), 2)[0]
    cosines = [1, 0, -1, 0, -1, 0]
    assert row["cosine"] == pytest.approx(np.mean(cosines))
    table = grid(6, 1, motions={"base": np.array([[1.0, 0], [2, 1], [3, -1], [2, 0], [1, 1], [-9, 0]])})
    row = code_directions(table, np.zeros(6, int), 2)
    assert row[0]["same_side"] == 0  # the outlier pulls the mean of the others to its side, and is alone on its own
    assert "fewer than two" in row[1]["reason"]


def test_directions_agree_for_the_oracle_and_not_for_private_dictionaries(table, oracle):
    public = code_directions(table, oracle, K)
    private = code_directions(table, nulls.permuted_per_trajectory(oracle, table, K), K)
    assert min(row["cosine"] for row in public) > 0.6
    assert max(row["p_holm"] for row in public) <= 0.008
    assert np.mean([row["cosine"] for row in private]) < 0.15
    assert all(row["p_holm"] >= row["p"] for row in private)


def test_a_side_that_chance_chose_is_not_called_common():
    """A binomial p is at most 0.05 for 9 % of these."""
    p = []
    for seed in range(25):
        motion = np.random.default_rng(seed).normal(size=(40, 3))
        rows = code_directions(
            grid(40, 8, motions={"base": np.repeat(motion, 8, axis=0)}), np.tile(np.arange(8), 40), 8
        )
        p.append(rows[0]["p"])
    assert np.mean(np.array(p) <= 0.1) <= 0.24
    assert 0.3 < np.median(p) < 0.8


def test_scenes_that_disagree_are_consistent_inside_and_not_across(table, oracle):
    other = np.array([np.random.default_rng(s).permutation(K) for s in range(4)])
    codes = other[table.scene, oracle]
    details = consistency_details(table, codes, K, draws=200)
    assert MotionStatistics(table, "base", K, draws=200).ctc(codes).value < 0.5
    assert details["by_scene"]["worst"]["ctc"] > 0.8
    components = details["variance_components"]["of_total"]
    assert components["code_scene"] > 3 * abs(components["code_trajectory"])
    assert details["cross_context"]["recognised"] < 0.4
    assert details["cross_context"]["r2_mean"] < 0.1
    agreed = consistency_details(table, oracle, K, draws=200)["cross_context"]
    assert agreed["recognised"] > 0.95
    assert agreed["diagonal_dominance"] > 0.8
    assert agreed["r2_worst"] > 0.5


def test_location_and_spread_are_told_apart(table):
    """One code moves more widely, about the same mean: PERMDISP sees it, PERMANOVA does not."""
    rng = np.random.default_rng(0)
    codes = rng.integers(2, size=len(table.step))
    wide = rng.normal(size=(len(codes), 3)) * np.where(codes == 1, 2.0, 1.0)[:, None]
    found = permutation_anova(MotionStatistics(grid(120, 30, motions={"base": wide}), "base", 2, draws=2), codes)
    assert found["permdisp"]["p"] <= 0.01
    assert found["permanova"]["p"] > 0.02
    moved = rng.normal(size=(len(codes), 3)) + 0.5 * codes[:, None]
    found = permutation_anova(MotionStatistics(grid(120, 30, motions={"base": moved}), "base", 2, draws=2), codes)
    assert found["permanova"]["p"] <= 0.01
    assert found["permdisp"]["p"] > 0.02


# --- all of it --------------------------------------------------------------------------------------------------------


def test_renaming_codes_changes_no_scalar(table, oracle):
    renaming = np.random.default_rng(4).permutation(K)
    codes = with_label_noise(oracle, 0.2, K)
    first, second = (consistency_details(table, c, K, draws=20) for c in (codes, renaming[codes]))
    assert second["permanova"] == pytest.approx(first["permanova"])
    assert second["variance_components"]["code"]["value"] == pytest.approx(
        first["variance_components"]["code"]["value"]
    )
    assert second["codes"][renaming[0]]["cosine"] == pytest.approx(first["codes"][0]["cosine"])
    assert second["cross_context"]["r2_mean"] == pytest.approx(first["cross_context"]["r2_mean"])


def test_details_are_json_and_say_what_is_missing(table, oracle):
    details = code_details(table, oracle, K, oracle, draws=20)
    assert set(details) == {"codebook", "grounding", "probe", "consistency"}
    json.dumps(details, allow_nan=False)
    assert "embedding" in details["probe"]["reason"]
    bare = Transitions(trajectory=table.trajectory, step=table.step)
    details = code_details(bare, oracle, K, None, np.random.default_rng(0).normal(size=(len(oracle), 4)), draws=20)
    json.dumps(details, allow_nan=False)
    assert "no true motion" in details["consistency"]["reason"]
    assert "no true motion" in details["probe"]["reason"]
    assert "no true motion" in details["grounding"]["by_motion"]["base"]["reason"]
    assert "does not name scenes" in details["codebook"]["coverage_by_scene"]["reason"]


@pytest.mark.parametrize("trajectories", [1, 2, 5])
def test_few_trajectories_and_one_code_are_no_error(trajectories):
    table = planted_transitions(trajectories, 8)
    embedding = np.random.default_rng(0).normal(size=(len(table.step), 4))
    for codes in (np.zeros(len(table.step), int), np.arange(len(table.step)) % K):
        json.dumps(code_details(table, codes, K, codes, embedding, draws=20), allow_nan=False)
    assert "two scenes" in cross_context(table, codes, K, np.zeros(0, int))["reason"]
