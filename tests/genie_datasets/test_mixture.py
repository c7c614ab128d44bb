"""Mixtures of several sources with weights."""

import numpy as np
import pytest

from genie_datasets.base.errors import UserError
from genie_datasets.clips.dataset import ClipDataset
from genie_datasets.clips.sampler import EpochSampler
from genie_datasets.sources.mixture import parse_mixture
from genie_datasets.sources.opening import open_source
from genie_datasets.writers.frame_cache import build_frame_cache


def test_parsing():
    assert parse_mixture("some/folder") == []
    assert parse_mixture("A:0.7, B:0.3") == [("A", 0.7), ("B", 0.3)]
    assert parse_mixture("A,B:2") == [("A", 1.0), ("B", 2.0)]
    for bad in ("A:0,B:1", "A:1e400,B:1"):
        with pytest.raises(UserError, match="must be above 0"):
            parse_mixture(bad)
    with pytest.raises(UserError, match="SOURCE:WEIGHT"):
        parse_mixture("A:0.7.1,B")


def test_a_mixture_holds_all_episodes_with_their_rates(rlds_dir, video_dir):
    source = open_source(f"{rlds_dir}:0.75,{video_dir}:0.25", hz=None)
    assert (source.kind, list(source.splits)) == ("mixture", ["train", "test"])
    mixed, rlds, video = (s.split("train") for s in (source, open_source(rlds_dir), open_source(video_dir)))
    assert mixed.num_frames.tolist() == [*rlds.num_frames, *video.num_frames]
    assert mixed.hz.tolist() == [3.0] * 4 + [12.0] * 3
    np.testing.assert_array_equal(mixed.frames(1, size=(16, 16)), rlds.frames(1, size=(16, 16)))
    np.testing.assert_array_equal(mixed.frames(5, size=(16, 16)), video.frames(1, size=(16, 16)))
    assert mixed.instruction(5) == "pick can"
    assert mixed.episode_name(6) == "scene2/push it.mp4"
    assert mixed.truth(6) is None


def test_training_draws_the_shares_also_from_a_cache(rlds_dir, video_dir, tmp_path):
    def share_of_videos(weights: tuple[float, float]) -> float:
        split = open_source(f"{rlds_dir}:{weights[0]},{video_dir}:{weights[1]}").split("train")
        cache = build_frame_cache(split, tmp_path / "cache", (16, 16), progress=False)
        clips = ClipDataset(cache, 5)
        drawn = EpochSampler.of(clips, seed=0).batch(0, 400)
        return float(np.mean([clips.locate(int(clip))[0] >= 4 for clip in drawn]))

    assert share_of_videos((1, 3)) == pytest.approx(0.75, abs=0.02)
    made = (tmp_path / "cache" / "frames.u8").stat().st_mtime_ns
    assert share_of_videos((9, 1)) == pytest.approx(0.1, abs=0.02)
    assert (tmp_path / "cache" / "frames.u8").stat().st_mtime_ns == made  # other weights, the same frames
