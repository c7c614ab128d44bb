"""The token cache: the same training, without computing tokens and latent actions again."""

import shutil
from collections import namedtuple

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from genie_datasets.base.cache_dir import cache_dir
from genie_datasets.base.errors import UserError
from genie_robotics.genie import Genie
from genie_robotics.training.config import LoopConfig, StageConfig
from genie_robotics.training.distributed import set_up
from genie_robotics.training.token_cache import TokenCache
from genie_robotics.training.trainer import Trainer
from tests.genie_robotics.test_training import STAGE, kill_after

STEPS = 60


def trainer(run, config, clips, cached: bool, seed=0) -> Trainer:
    torch.manual_seed(seed)
    genie = Genie(config)
    for book in (genie.tokenizer.quantizer, genie.latent_action.quantizer):  # as trained ones are
        book.train()
        for _ in range(50):
            book(torch.randn(64, book.config.latent_dim) * 3)
            book.progress = 1.0
        book.eval()
        assert book.started
    loop = LoopConfig(save_every=1, log_every=1, quiet=True, token_cache=cached)
    stage = StageConfig(**{**vars(STAGE), "steps": STEPS})
    return Trainer(genie, "dynamics", clips, stage, run, set_up("cpu", "float32"), loop)


def test_training_is_the_same_and_codes_are_computed_once(tmp_path, config, clips):
    assert 2 * len(clips) < STEPS * 2, "more than two epochs"
    weights, asked = {}, {}
    for name, cached in (("plain", False), ("cached", True), ("again", True)):
        job = trainer(tmp_path / name, config, clips, cached)
        calls = []
        original = job.module.codes
        job.module.codes = lambda frames, calls=calls, original=original: calls.append(1) or original(frames)
        job.train()
        weights[name], asked[name] = load_file(tmp_path / name / "dynamics/model.safetensors"), len(calls)
    for name in ("cached", "again"):
        assert all(torch.equal(value, weights[name][key]) for key, value in weights["plain"].items())
    first_epoch = -(-len(clips) // 2)
    assert asked == {"plain": STEPS, "cached": pytest.approx(first_epoch, abs=1), "again": 0}


@pytest.mark.parametrize("reference", ["none", "start"])
def test_training_in_micro_batches_is_the_same(tmp_path, config, clips, reference):
    config.tokenizer.reference, weights = reference, []
    for cached in (False, True):
        job = trainer(tmp_path / str(cached), config, clips, cached)
        job.config.micro_batches = 2
        job.train()
        weights.append(load_file(tmp_path / str(cached) / "dynamics/model.safetensors"))
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())


def test_a_killed_run_resumes_to_the_same_weights(tmp_path, config, clips):
    trainer(tmp_path / "whole", config, clips, False).train()
    kill_after(trainer(tmp_path / "cut", config, clips, True), 17)
    assert trainer(tmp_path / "cut", config, clips, True).train()
    whole, cut = (load_file(tmp_path / run / "dynamics/model.safetensors") for run in ("whole", "cut"))
    assert all(torch.equal(value, cut[name]) for name, value in whole.items())


def test_changed_video_has_its_own_cache(tmp_path, config, clips):
    """Size and time of change of every file count, because a fingerprint only samples the contents."""
    for number in range(2):
        trainer(tmp_path / str(number), config, clips, True).train()
    assert len(list((cache_dir() / "tokens").iterdir())) == 1
    clips.stamp = "the same files, changed since"
    trainer(tmp_path / "changed", config, clips, True).train()
    assert len(list((cache_dir() / "tokens").iterdir())) == 2


def test_other_weights_have_their_own_cache(tmp_path, config, clips):
    for seed in (0, 1):
        trainer(tmp_path / str(seed), config, clips, True, seed).train()
    assert len(list((cache_dir() / "tokens").iterdir())) == 2


def test_incomplete_rows_are_not_returned(monkeypatch):
    cache = TokenCache("key", 5, 3, 4, 1024, 8)
    tokens, actions = torch.randint(0, 1024, (2, 3, 4)), torch.randint(0, 8, (2, 2))
    assert cache.get(np.array([1, 4])) is None
    cache.put(np.array([4, 1]), tokens, actions)
    found = cache.get(np.array([1, 4]))
    assert torch.equal(found[0], tokens.flip(0))
    assert torch.equal(found[1], actions.flip(0))
    assert cache.get(np.array([1, 2])) is None
    assert cache.num_bytes == 5 * (3 * 4 * 2 + 2 + 1)
    again = TokenCache("key", 5, 3, 4, 1024, 8)
    assert torch.equal(again.get(np.array([4]))[0], tokens[:1])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: namedtuple("usage", "total used free")(1, 1, 10))
    with pytest.raises(UserError, match=r"not enough disk space: --token-cache needs \d+ bytes.*has 10 free"):
        TokenCache("other", 5000, 3, 4, 1024, 8)
