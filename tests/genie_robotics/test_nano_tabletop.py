"""The world that comes with the package, as it is: small, offline, and obedient in scenes that it never saw."""

import numpy as np
import pytest
import torch

from genie_datasets.tabletop import Simulator, sample_scene
from genie_eval.pretrain.export import LARGEST, folder_bytes
from genie_robotics import Genie
from genie_robotics.pretrained import WORLDS, judge_of, world_folder

NAME = "nano-tabletop"
SEEDS = range(900, 908)  # of no data set: those count their scenes from a million times their seed


@pytest.fixture(scope="module")
def genie() -> Genie:
    return Genie.from_pretrained(NAME)


@pytest.fixture(scope="module")
def dreams(genie) -> torch.Tensor:
    """(S, K, 1 + n, H, W, 3): every code, played twice from simulated starts."""
    starts = torch.stack(
        [torch.from_numpy(Simulator(sample_scene("easy", seed)).observe().frame.copy()) for seed in SEEDS]
    )
    codes = torch.arange(8).repeat(len(starts))[:, None].repeat(1, 2)
    first = starts.repeat_interleave(8, 0)[:, None]
    return torch.cat([first, genie.generate(first, codes)], dim=1).reshape(len(starts), 8, 3, 64, 64, 3)


def bits(told: torch.Tensor, read: torch.Tensor) -> float:
    """Mutual information of two codes."""
    joint = np.zeros((8, 8))
    np.add.at(joint, (told.numpy(), read.numpy()), 1 / len(told))
    independent = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    some = joint > 0
    return float((joint[some] * np.log2(joint[some] / independent[some])).sum())


def test_it_is_there_and_small():
    assert 8_000_000 < folder_bytes(world_folder(NAME)) < LARGEST
    assert (WORLDS[NAME] / "MODEL_CARD.md").is_file()


def test_its_own_and_its_judges_reading_of_a_played_code_tell_the_code(genie, dreams):
    told = torch.arange(8).repeat(len(dreams))
    judge = judge_of(NAME)
    assert judge is not None
    for reader in (genie, Genie.from_pretrained(judge)):
        assert bits(told, reader.infer_actions(dreams.flatten(0, 1))[:, 0]) > 1.5


def test_parts_of_the_frame_that_no_code_moves_do_not_change(dreams):
    """Codes move the arm; the upper corner, where no arm comes from, is the start's."""
    corner = dreams[:, :, :, :10, :24].float()
    assert (corner[:, :, 1:] - corner[:, :, :1]).abs().mean() < 8
    assert (dreams[:, :, 2].float() - dreams[:, :, 0].float()).abs().mean() > 2
