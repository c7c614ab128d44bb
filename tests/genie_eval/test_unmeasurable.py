"""Metrics that cannot be measured are "not run" with a reason; errors of the user are one line."""

import dataclasses

import numpy as np
import pytest

from genie_datasets.base.errors import UserError
from genie_eval.codes.baselines import Features, baselines
from genie_eval.codes.measure import StatisticsConfig, code_metrics
from genie_eval.codes.motion_statistics import MotionStatistics
from genie_eval.codes.planted import planted_transitions, quantized
from genie_eval.codes.transitions import Transitions
from genie_eval.evaluation import choose_splits, evaluate
from genie_eval.results import EvaluationConfig

QUICK = EvaluationConfig(draws=50, swaps=19, progress=False)


def metrics_of(table, codes):
    return code_metrics(table, codes, baselines(table, codes, Features(), None, 8), 8, StatisticsConfig.of(QUICK))[0]


@pytest.fixture
def table():
    return planted_transitions(20, 15, seed=0)


def test_nan_motion_is_not_run_and_says_where(table):
    motion = table.motions["base"].copy()
    motion[17] = np.nan
    broken = dataclasses.replace(table, motions={"base": motion})
    metrics = metrics_of(broken, quantized(table.motions["base"]))
    for name in ("ctc", "grounding_r2"):
        assert metrics[name].verdict == "not run"
        assert "trajectory 1, step 2" in metrics[name].reason
    assert metrics["codebook_perplexity"].value > 5


def test_one_code_is_not_run(table):
    metrics = metrics_of(table, np.full(300, 3))
    assert metrics["ctc"].verdict == metrics["grounding_r2"].verdict == "not run"
    assert "one code" in metrics["ctc"].reason
    assert metrics["codebook_perplexity"].verdict == "fail"


def test_one_trajectory_is_not_run():
    table = planted_transitions(1, 40)
    metrics = metrics_of(table, quantized(table.motions["base"]))
    assert metrics["ctc"].verdict == metrics["grounding_r2"].verdict == "not run"
    assert "one trajectory" in metrics["ctc"].reason


def test_motion_that_never_changes_is_not_run(table):
    still = dataclasses.replace(table, motions={"base": np.zeros((300, 3))})
    assert "never changes" in metrics_of(still, quantized(table.motions["base"]))["ctc"].reason


def test_trajectories_of_two_transitions_have_no_consistency_but_a_grounding():
    table = planted_transitions(60, 2, seed=1)
    codes = quantized(table.motions["base"], 4)
    statistics = MotionStatistics(table, "base", 4, draws=50)
    assert statistics.r2(codes) > 0.3
    reading = statistics.ctc(codes)
    assert reading.value is None
    assert "too short" in reading.reason


def test_columns_of_different_length_are_a_user_error():
    with pytest.raises(UserError, match="column 'step'"):
        Transitions(trajectory=np.array([0, 0, 1]), step=np.array([0, 1]))


def test_no_transitions_is_a_user_error():
    with pytest.raises(UserError, match="no transitions"):
        Transitions(trajectory=np.array([], int), step=np.array([], int))


def test_unknown_split_names_those_there_are(make_genie, make_video, tmp_path):
    with pytest.raises(UserError, match=r"train, test"):
        evaluate(make_genie(), make_video(4, 8), tmp_path, split="validation", config=QUICK)


def test_episodes_of_two_frames_are_a_user_error(make_genie, make_video, tmp_path):
    with pytest.raises(UserError, match="no episode of 3"):
        evaluate(make_genie(), make_video(4, 2), tmp_path, config=QUICK)


def test_impossible_amounts_are_a_user_error(make_genie, make_video, tmp_path):
    with pytest.raises(UserError, match="--clips"):
        evaluate(make_genie(), make_video(4, 8), tmp_path, config=QUICK, clips=0)


def test_choice_of_splits(make_video):
    assert [s and s.name for s in choose_splits(make_video(4, 8), None)] == ["test", "train"]
    assert [s and s.name for s in choose_splits(make_video(4, 8), "train")] == ["train", None]
    both, fitted = choose_splits(make_video(4, 8, names=("train", "val")), None)
    assert both.num_episodes == 8
    assert fitted is None
