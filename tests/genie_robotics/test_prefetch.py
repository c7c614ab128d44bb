"""Batches of clips: a thread reads and pins the next one for a GPU; the order is that of the sampler."""

import threading
from itertools import count, islice

import pytest
import torch
from safetensors.torch import load_file

from genie_datasets import EpochSampler
from genie_datasets.base.errors import UserError
from genie_robotics.training import trainer as trainer_module
from genie_robotics.training.prefetch import iter_batches, read_ahead
from tests.genie_robotics.test_training import kill_after, trainer

GPU = torch.device("cuda", 1)


@pytest.fixture
def pretend(monkeypatch):
    """Stands for a GPU; returns the devices that threads chose, and the number of batches that were pinned."""
    chosen, pinned = [], []
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: chosen.append((threading.current_thread(), device)))
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda batch: pinned.append(len(batch)) or batch)
    return chosen, pinned


class Recorded:
    """Clips that note when a batch is read."""

    def __init__(self, broken_at: int | None = None):
        self.read, self.broken_at = [], broken_at
        self.events = [threading.Event() for _ in range(20)]

    def batch(self, numbers):
        if numbers[0] == self.broken_at:
            raise UserError("the file is damaged")
        self.read.append(numbers[0])
        self.events[numbers[0]].set()
        return torch.tensor(numbers)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("start", [0, 7])
def test_every_way_reads_the_batches_of_the_sampler(clips, workers, start, pretend):
    sampler = EpochSampler.of(clips, seed=3)
    expected = [clips.batch(sampler.batch(step, 4)) for step in range(start, start + 5)]
    for device in (torch.device("cpu"), GPU)[: 2 - workers]:
        found = iter_batches(clips, sampler.batches(4, start), device, workers)
        for batch, wanted in zip(islice(found, 5), expected, strict=True):
            assert torch.equal(batch, wanted)


def test_one_thread_with_the_ranks_gpu_reads_one_batch_ahead(pretend):
    chosen, pinned = pretend
    clips = Recorded()
    found = read_ahead(clips, ([number] for number in count()), GPU)
    assert clips.read == []
    for number in range(6):
        assert next(found).item() == number
        assert clips.events[number + 1].wait(10), "the next batch is read while this one is used"
        assert max(clips.read) <= number + 1
    assert [device for _, device in chosen] == [GPU]
    assert len(pinned) >= 6
    found.close()
    assert not chosen[0][0].is_alive(), "the thread ends with the loop"


def test_an_error_of_the_reader_comes_after_the_batches_before_it(pretend):
    found = read_ahead(Recorded(broken_at=2), ([number] for number in count()), GPU)
    assert [next(found).item(), next(found).item()] == [0, 1]
    with pytest.raises(UserError, match="the file is damaged"):
        next(found)
    assert not pretend[0][0][0].is_alive()


def test_a_run_that_reads_ahead_resumes_to_the_weights_of_one_that_does_not(
    tmp_path, config, clips, monkeypatch, pretend
):
    trainer(tmp_path / "whole", config, clips, "tokenizer").train()
    monkeypatch.setattr(trainer_module, "iter_batches", lambda c, batches, *_: read_ahead(c, batches, GPU))
    kill_after(trainer(tmp_path / "cut", config, clips, "tokenizer", save_every=1), 7)
    assert trainer(tmp_path / "cut", config, clips, "tokenizer").train()
    whole, cut = (load_file(tmp_path / run / "tokenizer" / "model.safetensors") for run in ("whole", "cut"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    assert not any(thread.is_alive() for thread, _ in pretend[0])
