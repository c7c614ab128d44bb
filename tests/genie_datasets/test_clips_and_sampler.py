"""Clips are every window of every episode; the order of the sampler is exact, stateless and sharded across ranks."""

import pickle
import re
import tracemalloc
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genie_datasets.base.errors import UserError
from genie_datasets.clips import sampler as permutation
from genie_datasets.clips.dataset import ClipDataset, frame_step
from genie_datasets.clips.sampler import EpochSampler
from genie_datasets.sources.opening import open_source
from genie_datasets.sources.split import Split
from genie_datasets.writers.frame_cache import build_frame_cache


class Numbered(Split):
    """Frames whose pixels are (episode, frame, 0)."""

    def __init__(self, lengths, hz=3.0):
        self.name, self.fingerprint = "train", "numbered"
        self.num_frames = np.array(lengths, np.int64)
        self.hz = np.broadcast_to(np.asarray(hz, float), self.num_frames.shape)

    def frames(self, episode, ids=None, size=None, mode="crop"):
        out = np.zeros((len(ids), 1, 1, 3), np.uint8)
        out[:, 0, 0, 0], out[:, 0, 0, 1] = episode, ids
        return out

    def instruction(self, episode):
        return ""

    def episode_name(self, episode):
        return str(episode)


@given(
    st.lists(st.tuples(st.integers(0, 12), st.sampled_from([3.0, 10.0])), min_size=1, max_size=6),
    st.integers(2, 5),
    st.sampled_from([None, 0.1, 0.34, 1.0]),
)
def test_every_window_comes_once_and_stays_inside_its_episode(episodes, clip_length, gap):
    lengths, rates = [n for n, _ in episodes], [hz for _, hz in episodes]
    expected = set()
    for e, (n, hz) in enumerate(episodes):
        step = 1 if gap is None else max(1, round(gap * hz))
        expected |= {(e, s, step) for s in range(max(0, n - (clip_length - 1) * step))}
    if not expected:
        with pytest.raises(UserError, match="clip") as caught:
            ClipDataset(Numbered(lengths, rates), clip_length, gap)
        if max(lengths) < 2:
            assert "choose a source with longer episodes" in str(caught.value)
            return
        length = int(re.search(r"--clip-length (\d+)", str(caught.value))[1])
        smaller = re.search(r"--gap of at most ([\d.e-]+) ", str(caught.value))
        assert len(ClipDataset(Numbered(lengths, rates), length, float(smaller[1]) if smaller else gap))
        return
    clips = ClipDataset(Numbered(lengths, rates), clip_length, gap)
    seen = [(int(c[0, 0, 0, 0]), int(c[0, 0, 0, 1]), int(c[1, 0, 0, 1] - c[0, 0, 0, 1])) for c in clips]
    assert len(seen) == len(clips)
    assert set(seen) == expected
    for clip in clips:
        assert clip.shape == (clip_length, 1, 1, 3)
        assert clip.dtype == torch.uint8
        assert len(torch.unique(clip[:, 0, 0, 0])) == 1
        assert len(torch.unique(torch.diff(clip[:, 0, 0, 1].int()))) == 1
    covered = {e for e, _, _ in expected}
    assert clips.num_short == len(lengths) - len(covered)


def test_gap_is_time_not_frames():
    assert [frame_step(g, 3) for g in (None, 0.01, 1 / 3, 1)] == [1, 1, 1, 3]
    assert [frame_step(1 / 3, hz) for hz in (3, 5, 10, 15)] == [1, 2, 3, 5]


def test_the_message_names_a_clip_length_that_works(capsys):
    with pytest.raises(UserError, match=r"the longest has 4 at this gap.*--clip-length 4"):
        ClipDataset(Numbered([3, 10]), 16, gap=1.0)
    assert len(ClipDataset(Numbered([3, 10]), 4, gap=1.0)) == 1
    assert "1 of 2 episodes are shorter" in capsys.readouterr().err
    with pytest.raises(UserError, match="at least 2"):
        ClipDataset(Numbered([3]), 1)


def test_clips_hold_pixels_only(rlds_dir):
    clips = ClipDataset(open_source(rlds_dir).split("train"), 4, size=(16, 16))
    assert isinstance(clips[0], torch.Tensor)
    public = {name for name in dir(clips) if not name.startswith("_")}
    assert public == {
        *("batch", "windows", "locate", "clip_length", "steps", "num_short", "group_sizes", "group_weights"),
        *("num_frames", "num_windows", "fingerprint", "stamp"),
    }
    assert clips.windows(np.array([1, 3]), np.array([[0, 1], [4, 6]])).shape == (2, 2, 16, 16, 3)


@pytest.mark.parametrize("reader", ["split", "cache"])
def test_a_batch_is_its_clips_and_loaders_can_read_it(rlds_dir, tmp_path, reader):
    split = open_source(rlds_dir).split("train")
    frames = split if reader == "split" else build_frame_cache(split, tmp_path / "c", (16, 16), progress=False)
    clips = ClipDataset(frames, 6, size=(16, 16))
    numbers = EpochSampler.of(clips, seed=3).batch(0, 5)
    batch = clips.batch(numbers)
    assert batch.shape == (5, 6, 16, 16, 3)
    assert torch.equal(batch, torch.stack([clips[int(n)] for n in numbers]))
    episode, ids = clips.locate(int(numbers[0]))
    np.testing.assert_array_equal(batch[0], split.frames(episode, ids, (16, 16)))
    assert torch.equal(clips[numbers.tolist()], batch)
    order, sent = EpochSampler.of(clips, seed=3), pickle.loads(pickle.dumps(clips))
    for options in ({"batch_sampler": order.batches(5)}, {"sampler": order.batches(5), "batch_size": None}):
        assert torch.equal(next(iter(torch.utils.data.DataLoader(sent, **options))), batch)


RANKED = st.integers(1, 4).flatmap(lambda world: st.tuples(st.just(world), st.integers(1, 40)))


TABLES = pytest.mark.parametrize("largest", [permutation.LARGEST_TABLE, 0], ids=["table", "no table"])


@TABLES
@given(RANKED, st.integers(0, 5), st.integers(0, 2**32))
def test_ranks_together_read_each_clip_once_per_epoch(largest, ranked, epoch, seed):
    world, clips = ranked
    with patch.object(permutation, "LARGEST_TABLE", largest):
        parts = [EpochSampler(clips, seed, rank, world).indices(epoch) for rank in range(world)]
    assert sorted(np.concatenate(parts).tolist()) == list(range(clips))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize(("world", "workers"), [(1, 2), (3, 0), (2, 2)])
def test_loaders_of_all_ranks_give_each_clip_once_per_epoch_in_one_order(rlds_dir, world, workers):
    clips = ClipDataset(open_source(rlds_dir).split("train"), 6, size=(16, 16))
    place = {bytes(clips[i].numpy()): i for i in range(len(clips))}
    assert len(place) == len(clips), "no two clips look alike"
    seen, batch = [], 2
    for rank in range(world):
        sampler = EpochSampler.of(clips, 5, rank, world)
        loader = torch.utils.data.DataLoader(clips, batch_sampler=sampler.batches(batch), num_workers=workers)
        mine = []
        for frames in loader:
            mine += [place[bytes(clip.numpy())] for clip in frames]
            if len(mine) >= len(sampler.indices(0)):
                break
        mine = mine[: len(sampler.indices(0))]
        assert mine == sampler.indices(0).tolist()
        seen += mine
    assert sorted(seen) == list(range(len(clips)))


@TABLES
@given(RANKED, st.integers(1, 7), st.integers(0, 2**32), st.data())
@settings(max_examples=50)
def test_batches_are_the_epochs_in_order_from_any_step(largest, ranked, batch_size, seed, data):
    with patch.object(permutation, "LARGEST_TABLE", largest):
        check_batches(*ranked, batch_size, seed, data)


def check_batches(world, clips, batch_size, seed, data):
    rank = data.draw(st.integers(0, world - 1))
    sampler = EpochSampler(clips, seed, rank, world)
    in_order = np.concatenate([sampler.indices(epoch) for epoch in range(world * batch_size + 3)])
    steps = len(in_order) // batch_size
    for step in {0, steps // 2, max(0, steps - 1)} if steps else ():
        fresh = EpochSampler(clips, seed, rank, world)  # depends only on the step
        np.testing.assert_array_equal(
            fresh.batch(step, batch_size), in_order[step * batch_size : (step + 1) * batch_size]
        )
        np.testing.assert_array_equal(next(fresh.batches(batch_size, step)), fresh.batch(step, batch_size))


def test_the_order_depends_on_seed_and_epoch():
    orders = [EpochSampler(100, seed).indices(epoch).tolist() for seed, epoch in [(0, 0), (0, 1), (1, 0), (1, 1)]]
    assert len({tuple(order) for order in orders}) == 4
    sampler = pickle.loads(pickle.dumps(EpochSampler(100, 1)))
    assert sampler.indices(1).tolist() == orders[3]


@TABLES
@given(st.lists(st.integers(0, 30), min_size=2, max_size=4), st.data())
def test_groups_get_their_shares_and_read_all_their_clips(largest, sizes, data):
    with patch.object(permutation, "LARGEST_TABLE", largest):
        check_groups(sizes, data)


def check_groups(sizes, data):
    weights = data.draw(st.lists(st.floats(0.05, 1), min_size=len(sizes), max_size=len(sizes)))
    if not sum(sizes):
        return
    sampler = EpochSampler(sizes, 7, weights=weights)
    epochs = 4
    drawn = np.concatenate([sampler.indices(epoch) for epoch in range(epochs)])
    assert len(drawn) == epochs * sum(sizes)
    first = np.concatenate([[0], np.cumsum(sizes)])
    total = sum(w for w, n in zip(weights, sizes, strict=True) if n)
    for group, (weight, size) in enumerate(zip(weights, sizes, strict=True)):
        mine = drawn[(drawn >= first[group]) & (drawn < first[group + 1])]
        share = weight / total * sum(sizes) if size else 0
        assert abs(len(mine) - epochs * share) <= epochs
        if size:  # no clip is read more than once more than another
            counts = np.bincount(mine - first[group], minlength=size)
            assert counts.max() - counts.min() <= 1


def test_impossible_samplers_are_refused():
    for args in [(0, 0), (5, 0, 2, 2), ([1, 2], 0, 0, 1, [1.0])]:
        with pytest.raises(ValueError, match=r"cannot sample|rank"):
            EpochSampler(*args)


@given(st.integers(1, 3000), st.integers(0, 2**32))
def test_a_permutation_without_a_table_is_a_permutation(n, seed):
    shuffled = permutation.Feistel(n, [seed, 1])
    assert np.sort(shuffled(np.arange(n))).tolist() == list(range(n))
    assert shuffled(np.array([n // 2])) == shuffled(np.arange(n))[n // 2]


def test_a_permutation_without_a_table_looks_random():
    n = 1_000_003
    order = permutation.Feistel(n, [0])(np.arange(n))
    assert abs(np.corrcoef(order, np.arange(n))[0, 1]) < 0.01  # 10 standard errors
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.01
    runs = np.bincount(order[:100_000] * 100 // n, minlength=100)
    assert abs(runs - 1000).max() < 5.5 * np.sqrt(1000)
    assert (order == np.arange(n)).sum() < 12
    assert not np.array_equal(order, permutation.Feistel(n, [1])(np.arange(n)))


def test_the_order_of_millions_of_clips_takes_no_memory():
    sampler = EpochSampler([40_000_000, 10_000_000], 0, weights=[0.5, 0.5])
    tracemalloc.start()
    batch = sampler.batch(123_456, 64)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
    assert len(set(batch.tolist())) == 64
    assert 15 < (batch < 40_000_000).sum() < 49
