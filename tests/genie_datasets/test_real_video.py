"""The real RT-1 camera clips."""

import numpy as np

from genie_datasets.sources.opening import open_source
from genie_datasets.sources.video.file import numbered


def test_all_rt1_clips_are_found(realdata):
    split = open_source(realdata / "rt1_page", hz=3).split("train")
    assert (split.num_episodes, split.num_frames.sum()) == (240, 11721)
    assert (split.num_frames.min(), split.num_frames.max()) == (14, 115)
    assert split.image_size == (256, 320)
    held_out = open_source(realdata / "rt1_page", hz=3, include="*scene3*").split("train")
    kept = open_source(realdata / "rt1_page", hz=3, exclude="*scene3*").split("train")
    assert (held_out.num_episodes, kept.num_episodes) == (38, 202)
    episode = next(e for e in range(240) if split.episode_name(e).endswith("scene1/pick_sponge.mp4"))
    assert split.instruction(episode) == "pick sponge"


def test_packets_count_the_frames_that_decode(realdata):
    for folder, chosen in (("rt1_page", slice(0, 240, 40)), ("moto_oxe", slice(None)), ("bridge_page", slice(0, 3))):
        split = open_source(realdata / folder, hz=3).split("train")
        for file, info in zip(split.files[chosen], split.infos[chosen], strict=True):
            assert [number for number, _ in numbered(file, info)] == list(range(info.num_frames))


def test_moto_is_known_to_be_fractal(realdata):
    split = open_source(realdata / "moto_oxe").split("train")
    assert set(split.hz.tolist()) == {3.0}
    frames = split.frames(0, np.array([0, 5]), (64, 64))
    assert 20 < frames.mean() < 200
    assert not np.array_equal(frames[0], frames[1])
