"""Static transitions, cuts, and the clips dropped for them, on video with known motion."""

import pickle

import numpy as np
import pytest

from genie_datasets import build_frame_cache
from genie_datasets.base.errors import UserError
from genie_datasets.clips.dataset import ClipDataset
from genie_datasets.clips.filters import ClipFilter
from genie_datasets.clips.motion import MOTION_SIZE, motion
from genie_datasets.clips.sampler import EpochSampler
from genie_datasets.inspect.pace import pace
from genie_datasets.sources.split import Split

SIZE = (64, 64)


class Planted(Split):
    """A split of episodes given as frames."""

    name, fingerprint = "planted", "planted"

    def __init__(self, episodes, hz=3.0):
        self.episodes = episodes
        self.num_frames = np.array([len(e) for e in episodes])
        self.hz = np.full(len(episodes), hz)

    def frames(self, episode, ids=None, size=None, mode="crop"):
        return self.episodes[episode] if ids is None else self.episodes[episode][ids]

    def instruction(self, episode):
        return ""

    def episode_name(self, episode):
        return f"#{episode}"


def episode(moves: str, seed: int = 0, background: int = 60) -> np.ndarray:
    """Frames before and after each letter of `moves`: m moves the square, s is static, c cuts to another scene."""
    rng = np.random.default_rng(seed)
    scene = rng.integers(0, background, (8, 8, 3)).repeat(8, 0).repeat(8, 1)
    at, frames = 4, []
    for move in ["s", *moves]:
        if move == "c":
            scene = 255 - rng.integers(0, background, (8, 8, 3)).repeat(8, 0).repeat(8, 1)
        at += 3 * (move == "m")
        frame = scene.astype(np.float64)
        frame[20:30, at % 50 : at % 50 + 10] = 240
        noise = rng.normal(0, 1.5, frame.shape)  # noise of a sensor, which is not motion
        frames.append(np.clip(frame + noise, 0, 255).astype(np.uint8))
    return np.stack(frames)


def test_motion_and_cuts_are_found_where_they_are():
    moves = "mmssmcmsmmmm"
    found = motion(episode(moves))
    assert found.static.tolist() == [m == "s" for m in moves]
    assert found.cut.tolist() == [m == "c" for m in moves]
    assert motion(episode(moves)[:1]).static.shape == (0,)
    long = motion(np.concatenate([episode("m" * 700), episode("m" * 700, 1)]))  # in several chunks
    assert np.flatnonzero(long.cut).tolist() == [700] or not long.cut.any()
    assert len(long.static) == 1401


def test_a_camera_that_always_moves_has_no_cuts():
    rng = np.random.default_rng(0)
    world = rng.integers(0, 255, (64, 400, 3)).astype(np.uint8)
    frames = np.stack([world[:, 9 * t : 9 * t + 64] for t in range(30)])
    found = motion(frames)
    assert not found.cut.any()
    assert not found.static.any()


def test_slow_motion_is_visible_over_two_frames():
    slow = episode("msmsmsms")
    assert motion(slow, 1).static.sum() == 4
    assert motion(slow, 2).static.sum() == 0


EPISODES = [episode("mmmmmmmm"), episode("ssssssss", 1), episode("mmmmcmmm", 2), episode("msssssss", 3)]


@pytest.mark.parametrize("reader", ["split", "cache"])
def test_static_clips_and_cuts_are_dropped(reader, tmp_path):
    split = Planted(EPISODES)
    frames = build_frame_cache(split, tmp_path / "cache", SIZE, progress=False) if reader == "cache" else split

    def kept(**drop):
        clips = ClipDataset(frames, 4, size=SIZE, drop=ClipFilter(**drop))
        assert clips.num_windows == 24
        return clips, {(e, int(ids[0])) for e, ids in map(clips.locate, range(len(clips)))}

    everything = {(e, s) for e in range(4) for s in range(6)}
    still = {(1, s) for s in range(6)} | {(3, s) for s in range(1, 6)}
    clips, found = kept(static=1.0)
    assert found == everything - still
    assert kept(static=0.6)[1] == everything - still - {(3, 0)}
    assert kept(cuts=True)[1] == everything - {(2, s) for s in (2, 3, 4)}
    both, found = kept(static=1.0, cuts=True)
    assert found == everything - still - {(2, s) for s in (2, 3, 4)}
    again = pickle.loads(pickle.dumps(both))
    assert [again.locate(i)[1][0] for i in range(len(both))] == [both.locate(i)[1][0] for i in range(len(both))]
    np.testing.assert_array_equal(clips.batch([len(clips) - 1])[0], split.frames(3, np.arange(4)))
    assert len(EpochSampler.of(clips, 0).indices(0)) == len(clips) == 13
    if reader == "cache":
        assert len(list((tmp_path / "cache").glob("motion-*.npz"))) == 1
        assert kept(static=1.0)[1] == everything - still


def test_a_gap_counts_the_clips_own_transitions():
    clips = ClipDataset(Planted([episode("msmsmsms")]), 4, gap=2 / 3, drop=ClipFilter(static=0.3))
    assert (len(clips), clips.num_windows) == (3, 3)
    with pytest.raises(UserError, match="every clip"):
        ClipDataset(Planted([episode("msmsmsms")]), 4, drop=ClipFilter(static=0.3))


def test_impossible_filters():
    with pytest.raises(UserError, match="every clip of split 'planted' is dropped"):
        ClipDataset(Planted([EPISODES[1]]), 4, drop=ClipFilter(static=1.0))
    for share in (0.0, 1.5, float("nan")):
        with pytest.raises(UserError, match="--drop-static"):
            ClipFilter(static=share)


def test_the_pace_of_a_source_and_the_gap_it_suggests():
    found = pace(Planted(EPISODES, hz=3), clip_length=4)
    assert found.static_transitions == pytest.approx(15 / 32)
    assert found.static_clips == pytest.approx(11 / 24)
    assert found.cut_clips == pytest.approx(3 / 24)
    assert found.gaps[0] == pytest.approx(1 / 3)
    # At a pixel per frame, a block changes visibly only over several frames, so the suggested gap is longer.
    slow = np.stack([episode("", 5)[0]] * 41)
    for t in range(41):
        slow[t, 20:30] = 40
        slow[t, 20:30, 3 + t // 4 : 13 + t // 4] = 52
    quick = pace(Planted([episode("m" * 40)], hz=10)).suggested_gap
    assert quick == pytest.approx(0.1)
    assert pace(Planted([slow], hz=10)).suggested_gap > 0.3


def test_motion_of_an_episode_of_any_size():
    big = np.kron(EPISODES[0], np.ones((1, 2, 2, 1), np.uint8))

    class Fitted(Planted):
        def frames(self, episode, ids=None, size=None, mode="crop"):
            from genie_datasets.base.fit import fit_frames

            return fit_frames(self.episodes[episode], size)

    assert motion(Fitted([big]).frames(0, None, MOTION_SIZE), 1).static.tolist() == [False] * 8
