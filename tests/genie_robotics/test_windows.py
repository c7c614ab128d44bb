"""Videos read in windows: batches of several give what one video at a time gives, in order and in bounded memory."""

import numpy as np
import pytest
import torch

from genie_robotics import genie as genie_module
from genie_robotics.models import windows
from genie_robotics.models.windows import frames_at_once, read_transitions, read_windows
from tests.genie_robotics.conftest import random_genie, tiny_config

LENGTHS = [2, 9, 8, 15, 30, 3, 16, 8, 2, 25]


@pytest.fixture(scope="module")
def genie():
    return random_genie(tiny_config())


@pytest.fixture(scope="module")
def videos():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (length, 16, 16, 3), dtype=np.uint8) for length in LENGTHS]


@pytest.mark.parametrize("most", [1, 20, 10_000])
def test_a_batch_of_episodes_reads_what_one_at_a_time_does(most, genie, videos, monkeypatch):
    expected = [(genie.infer_actions(v[None])[0].numpy(), genie.embed_actions(v[None])[0].numpy()) for v in videos]
    monkeypatch.setattr(windows, "frames_at_once", lambda *_: most)
    monkeypatch.setattr(genie_module, "frames_at_once", lambda *_: most)

    def read(clips):
        return genie.infer_actions(clips).numpy(), genie.embed_actions(clips).numpy()

    found = list(read_transitions(genie.config, videos, read))
    for (codes, latents), (true_codes, true_latents) in zip(found, expected, strict=True):
        assert np.array_equal(codes, true_codes)
        np.testing.assert_allclose(latents, true_latents, atol=1e-5)


def test_a_batch_of_long_clips_is_read_as_every_clip_by_itself(genie, monkeypatch):
    clips = np.random.default_rng(1).integers(0, 256, (3, 21, 16, 16, 3), dtype=np.uint8)
    for most in (1, 20, 10_000):
        monkeypatch.setattr(genie_module, "frames_at_once", lambda *_, most=most: most)
        tokens = genie.tokenize(clips)
        for method, given in ((genie.infer_actions, clips), (genie.tokenize, clips), (genie.detokenize, tokens)):
            assert torch.equal(method(given), torch.cat([method(clip[None]) for clip in given]))


def test_batches_are_bounded_and_videos_are_read_when_they_are_needed(videos):
    most, taken, batches = 40, [], []

    def lazily():
        for video in videos:
            taken.append(len(video))
            yield video

    def read(found):
        assert len({len(window) for window in found}) == 1
        batches.append(len(found) * len(found[0]))
        return [len(window) for window in found]

    done = 0
    for video, lengths in zip(videos, read_windows(lazily(), read, 8, 1, most), strict=True):
        assert sum(lengths) - (len(lengths) - 1) == len(video)
        assert sum(taken) - done < most + max(LENGTHS)
        done += len(video)
    assert max(batches) <= most
    assert len(batches) < sum(-(-(length - 1) // 7) for length in LENGTHS)


def test_a_cpu_reads_fewer_frames_at_once():
    cpu, gpu = (frames_at_once((64, 64), torch.device(name)) for name in ("cpu", "cuda"))
    assert (cpu, gpu, frames_at_once((64, 64))) == (64, 1024, 1024)
    assert frames_at_once((4096, 4096)) == 1
