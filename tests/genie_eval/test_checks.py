"""Checks of the configuration of `evaluate` and `score` before any work."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from genie_datasets.base.errors import UserError
from genie_eval import evaluation
from genie_eval.checks import MAX_SEED, check_seed, checked
from genie_eval.evaluation import evaluate
from genie_eval.results import EvaluationConfig
from genie_eval.score.score import ScoreConfig, score
from genie_robotics.models import threads


@pytest.mark.parametrize("seed", [0, np.int64(3), np.uint8(3), MAX_SEED, torch.tensor(3)])
def test_a_seed_of_any_integer_type_is_an_int(seed):
    assert type(check_seed(seed)) is int
    assert check_seed(seed) == int(seed)


@pytest.mark.parametrize("seed", [-1, MAX_SEED + 1, 1.5, "3", None, np.int64(-1)])
def test_other_seeds_are_refused_before_any_work(tmp_path, seed):
    for call in (
        lambda: evaluate(None, None, tmp_path, seed=seed),
        lambda: score(tmp_path / "none.npz", tmp_path, ScoreConfig(seed=seed)),
    ):
        with pytest.raises(UserError, match="^--seed must be an integer from 0 to 2147483647, got"):
            call()


def test_numpy_integers_become_integers():
    config = checked(EvaluationConfig(seed=np.int64(5), clips=np.int32(7), trajectories=np.uint16(9)))
    assert json.dumps([config.seed, config.clips, config.trajectories]) == "[5, 7, 9]"


def test_an_evaluation_of_a_small_model_computes_with_one_thread(monkeypatch, tmp_path):
    def measure(*_):
        raise LookupError(torch.get_num_threads())

    for name in threads.CHOSEN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(threads, "default_threads", lambda: frozenset({2}))
    monkeypatch.setattr(evaluation, "measure", measure)
    monkeypatch.setattr(evaluation, "choose_splits", lambda *_: (None, None))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(LookupError, match="^1$"):
            evaluate(SimpleNamespace(), None, tmp_path)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
