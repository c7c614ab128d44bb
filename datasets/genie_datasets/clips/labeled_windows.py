"""Windows of video in which one transition is labelled: what `--labels` gives training beside its clips."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from genie_datasets.base.errors import UserError
from genie_datasets.clips.dataset import ClipDataset
from genie_datasets.clips.labels import Labels
from genie_datasets.clips.sampler import EpochSampler


class LabelledBatch(NamedTuple):
    """`action[b]` is the true action from frame `position[b]` of window b to the frame after it."""

    frames: UInt8[Tensor, "B n H W 3"]
    position: Int[Tensor, " B"]
    action: Float[Tensor, "B A"]

    def to(self, device: torch.device) -> "LabelledBatch":
        return LabelledBatch(*(tensor.to(device, non_blocking=True) for tensor in self))


class LabelledWindows:
    """Labelled transitions in an endless order of their own, as stateless as that of the clips (EpochSampler).

    One label in a hundred transitions is half a label in a batch of four clips; drawn by themselves they are as many
    at every step, and training's clips and their order do not change.

    Args:
        clips: where frames are read, fitted as in training.
        labels: of the split that `clips` are of (labels.check_places).
        history: False gives the two frames of the transition. True gives a whole clip around it, begun at random, for
            models that read all earlier frames; labels in episodes shorter than a clip are left out then.

    Raises:
        UserError: no label is left, or there is a frame between the frames of a clip: an action leads over one step.
    """

    def __init__(self, clips: ClipDataset, labels: Labels, seed: int, *, history: bool):
        self.clips, self.seed = clips, seed
        self.length = clips.clip_length if history else 2
        fits = clips.num_frames[labels.episode] >= self.length
        self.num_left_out = int((~fits).sum())
        if not fits.any():
            raise UserError(f"all labels are of episodes shorter than a clip of {self.length} frames: label others")
        strides = clips.steps[labels.episode[fits]]
        if (strides > 1).any():
            raise UserError(
                f"with this --gap the frames of a clip are {strides.max()} frames apart, but a label is of the step "
                "from a frame to the next: train without --gap, or without --labels"
            )
        # In the order of the video: the order of the file's rows means nothing.
        order = np.lexsort((labels.step[fits], labels.episode[fits]))
        self.episode, self.step = labels.episode[fits][order], labels.step[fits][order]
        self.action = labels.action[fits][order].astype(np.float32)  # (M, A)

    def __len__(self) -> int:
        return len(self.step)

    def batch(self, step: int, batch_size: int, rank: int = 0, world_size: int = 1) -> LabelledBatch:
        """The labelled windows of one training step; `batch_size` on this rank. A function of its arguments alone."""
        rows = EpochSampler(len(self), self.seed, rank, world_size).batch(step, batch_size)
        episode, at = self.episode[rows], self.step[rows]
        # The first frame: any from which the window holds both frames of the transition.
        lowest = np.maximum(0, at + 2 - self.length)
        highest = np.minimum(at, self.clips.num_frames[episode] - self.length)
        first = np.random.default_rng([self.seed, step, rank, 53]).integers(lowest, highest + 1)
        frames = self.clips.windows(episode, first[:, None] + np.arange(self.length))
        return LabelledBatch(frames, torch.from_numpy(at - first), torch.from_numpy(self.action[rows]))
