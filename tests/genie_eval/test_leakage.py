"""State leak: cells of motion read 0, codes of position read 1, whatever camera or numbering they have."""

import dataclasses

import numpy as np
import pytest

from genie_eval.codes import nulls
from genie_eval.codes.leakage import conditional_mi, state_leak
from genie_eval.codes.planted import (
    autocorrelated_codes,
    planted_transitions,
    quantized,
    seen_by_camera,
    with_label_noise,
)
from genie_eval.metrics import Metric, judge

K, DRAWS = 8, 300


@pytest.fixture(scope="module")
def table():
    return seen_by_camera(planted_transitions(200, 20, seed=1))


@pytest.fixture(scope="module")
def oracle(table):
    return quantized(table.motions["base"], K)


@pytest.fixture(scope="module")
def position(table):
    return nulls.position_code(table, K)


def speed_codes(motion):
    speed = np.linalg.norm(motion, axis=1)
    return np.searchsorted(np.quantile(speed, np.arange(1, K) / K), speed)


def direction_codes(image):
    angle = np.arctan2(image[:, 1], image[:, 0])
    return ((angle + np.pi) / (2 * np.pi) * K).astype(int) % K


@pytest.mark.parametrize("name", ["oracle", "noisy", "image", "direction", "speed"])
def test_whatever_is_a_map_of_motion_leaks_no_state(name, table, oracle):
    codes = {
        "oracle": lambda: oracle,
        "noisy": lambda: with_label_noise(oracle, 0.3, K),
        "image": lambda: quantized(table.motions["image"], K),
        "direction": lambda: direction_codes(table.motions["image"]),
        "speed": lambda: speed_codes(table.motions["base"]),
    }[name]()
    metric = state_leak(table, codes, K, DRAWS)
    assert metric.value == pytest.approx(0, abs=0.03)
    assert metric.verdict == "pass"
    assert metric.p > 0.01
    assert metric.more["explained"]["motion"] > 0.2


def test_image_plane_codes_need_the_image_motion_to_be_cleared(table):
    """Without it, where the arm is says how base motion looks: the reading rises, and says which motions it had."""
    codes = quantized(table.motions["image"], K)
    blind = dataclasses.replace(table, motions={"base": table.motions["base"]})
    metric = state_leak(blind, codes, K, DRAWS)
    assert metric.value > 0.05
    assert metric.more["motions"] == ["base"]


def test_codes_of_position_leak_everything(table, position):
    metric = state_leak(dataclasses.replace(table, motions={"base": table.motions["base"]}), position, K, DRAWS)
    assert metric.value > 0.9
    assert metric.verdict == "fail"
    assert metric.p < 0.01
    assert metric.null == pytest.approx(0, abs=0.05)
    assert metric.ci95[0] < metric.value < metric.ci95[1]
    seen = state_leak(table, position, K, DRAWS)  # base against image motion tells depth
    assert 0.65 < seen.value < metric.value
    assert seen.verdict == "fail"


def test_leak_rises_with_the_share_of_position_codes(table, oracle, position):
    uniform = np.random.default_rng(0).random(len(oracle))
    values = [state_leak(table, np.where(uniform < p, position, oracle), K, 50).value for p in (0, 0.25, 0.5, 0.75, 1)]
    assert (np.diff(values) > 0.02).all()


def test_renaming_codes_changes_nothing(table, oracle, position):
    codes = np.where(np.random.default_rng(0).random(len(oracle)) < 0.4, position, oracle)
    renamed = np.random.default_rng(4).permutation(K)[codes]
    assert state_leak(table, renamed, K, 50).value == pytest.approx(state_leak(table, codes, K, 50).value, abs=2e-3)


def test_many_codes_read_as_few_do(table):
    base = dataclasses.replace(table, motions={"base": table.motions["base"]})
    motion = with_label_noise(quantized(table.motions["base"], 64), 0.3, 64)
    assert state_leak(base, motion, 64, 50).value == pytest.approx(0, abs=0.05)
    place = state_leak(base, nulls.position_code(table, 64), 64, 50)
    assert place.value > 0.85
    assert place.more["groups_of_codes"] == 16
    unrelated = autocorrelated_codes(200, 20, 64, seed=2)
    assert state_leak(base, unrelated, 64, 50).verdict == "not run"


def test_codes_that_know_nothing_have_no_shares():
    table = planted_transitions(60, 20, seed=3)
    metric = state_leak(table, autocorrelated_codes(60, 20, K, seed=2), K, DRAWS)
    assert metric.value is None
    assert metric.verdict == "not run"
    assert "neither motion nor state" in metric.reason
    assert metric.more["explained"]["both"] < 0.01


def test_phase_and_scene_codes_are_found_out():
    table = planted_transitions(200, 20, seed=3)
    phase = state_leak(table, nulls.phase_code(table, K), K, DRAWS)
    assert phase.verdict == "fail"
    assert phase.more["explained"]["phase"] > 0.9 > phase.more["explained"]["motion"]
    scene = state_leak(table, nulls.scene_code(table, K), K, DRAWS)
    assert scene.verdict == "not run"  # neither motion nor state knows the scene; but that the scene does, is said
    assert scene.more["explained"]["scene"] > 0.9
    assert scene.more["explained"]["trajectory"] > 0.8


def test_oracle_of_given_codes_is_measured(table, position, oracle):
    metric = state_leak(table, position, K, 50, oracle=oracle)
    assert metric.oracle == pytest.approx(0, abs=0.03)


def test_conditional_information_is_nothing_under_swaps_and_much_for_position(table, oracle, position):
    assert conditional_mi(table, position, K)["excess"] > 0.5
    swapped = conditional_mi(table, nulls.swapped(oracle, table), K)
    assert abs(swapped["excess"]) < 0.05
    assert swapped["p"] > 0.01


def test_what_cannot_be_asked_is_not_run(table, oracle):
    def reason(**changes):
        metric = state_leak(dataclasses.replace(table, **changes), oracle, K, 20)
        assert metric.verdict == "not run"
        return metric.reason

    state = table.state.copy()
    state[45, 1] = np.nan
    assert "no state" in reason(state=None)
    assert "trajectory 2, step 5" in reason(state=state)
    assert "never changes" in reason(state=np.zeros_like(state))
    assert "motion" in reason(motions={})
    assert "one code" in state_leak(table, np.zeros_like(oracle), K, 20).reason
    few = planted_transitions(6, 20)
    assert "10 trajectories are needed" in state_leak(few, quantized(few.motions["base"]), K, 20).reason


def test_few_trajectories_pass_only_with_the_whole_interval():
    def verdict(value: float, high: float, trajectories: int) -> str:
        metric = Metric(value=value, n_trajectories=trajectories, lower_is_better=True)
        judge("state_leak", metric, value, (0.05, high))
        assert ("exploratory" in metric.reason) == (trajectories < 200)
        return metric.verdict

    assert verdict(0.12, 0.2, 50) == "warn"
    assert verdict(0.12, 0.14, 50) == "pass"
    assert verdict(0.12, 0.2, 200) == "pass"
    assert verdict(0.2, 0.25, 200) == "warn"
    assert verdict(0.31, 0.4, 200) == "fail"
