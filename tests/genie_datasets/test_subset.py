"""Held-out episodes: every episode is in either train or test, with its own frames and truth."""

import numpy as np

from genie_datasets import open_source
from genie_datasets.sources.subset import hold_out


def test_each_episode_is_in_one_split_with_its_frames_and_truth(tabletop_rlds):
    from genie_datasets.sources.split import Source

    whole = open_source(str(tabletop_rlds))
    one = Source(whole.name, whole.path, whole.kind, {"train": whole.split("train")}, whole.fingerprint)
    parted = hold_out(one, every=2)
    assert list(parted.splits) == ["train", "test"]
    assert parted.fingerprint != one.fingerprint
    names = [parted.splits[s].episode_name(e) for s in parted.splits for e in range(parted.splits[s].num_episodes)]
    split = whole.split("train")
    assert sorted(names) == sorted(split.episode_name(e) for e in range(split.num_episodes))
    test = parted.split("test")
    assert test.num_episodes == split.num_episodes // 2
    for episode in range(test.num_episodes):
        assert np.array_equal(test.frames(episode), split.frames(2 * episode + 1))
        assert np.array_equal(test.truth(episode).position, split.truth(2 * episode + 1).position)
        assert test.num_frames[episode] == split.num_frames[2 * episode + 1]


def test_a_source_with_splits_or_one_episode_is_unchanged(tabletop_rlds):
    from genie_datasets.sources.split import Source
    from genie_datasets.sources.subset import Subset

    source = open_source(str(tabletop_rlds))
    assert hold_out(source) is source
    single = Source("one", "", "rlds", {"train": Subset(source.split("train"), "train", [0])}, "x")
    assert hold_out(single) is single
