"""Clips with a reference: an earlier frame of the same episode, as a dream's start picture is to its later frames."""

from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from genie_datasets.clips.dataset import ClipDataset

STREAM = 67  # of the random numbers that choose references


class ReferencedClips(Dataset):
    """The clips of a ClipDataset, each behind its reference; item i is a uint8 tensor (1 + T, H, W, 3).

    A clip's reference is a function of its number alone: with probability OWN_START the clip's first frame, as in the
    first window of a dream, otherwise one of the frames 0 .. `span` steps of the clip before it. A step is the clip's
    gap, so that a span means the same number of dreamt frames for video of any rate.
    """

    OWN_START = 0.25

    def __init__(self, clips: ClipDataset, span: int):
        if span < 0:
            raise ValueError(f"span must be at least 0 frames, got {span}")
        self.clips, self.span = clips, span
        self.fingerprint = f"{clips.fingerprint}/reference-{span}"
        self.stamp, self.clip_length = clips.stamp, clips.clip_length
        self.group_sizes, self.group_weights = clips.group_sizes, clips.group_weights

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, clip: int | Sequence[int]) -> torch.Tensor:
        return self.batch(clip) if isinstance(clip, Sequence) else self.batch([clip])[0]

    def batch(self, clips: Sequence[int]) -> torch.Tensor:
        """Several clips as one uint8 tensor (B, 1 + T, H, W, 3)."""
        places = [self.clips.locate(int(clip)) for clip in clips]
        ids = np.stack(
            [[self.reference(int(c), frames), *frames] for c, (_, frames) in zip(clips, places, strict=True)]
        )
        return self.clips.windows(np.array([episode for episode, _ in places]), ids)

    def reference(self, clip: int, frames: np.ndarray) -> int:
        """The number in its episode of the reference of a clip with these frames (T,)."""
        rng = np.random.default_rng([clip % len(self), STREAM])
        first, step = int(frames[0]), int(frames[1] - frames[0])
        if rng.random() < self.OWN_START:
            return first
        return first - step * int(rng.integers(min(self.span, first // step) + 1))
