"""Windows of video with one labeled transition each, which the option --labels adds to the clips of training."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from genie_datasets.base.errors import UserError
from genie_datasets.clips.dataset import ClipDataset
from genie_datasets.clips.labels import Labels
from genie_datasets.clips.sampler import EpochSampler


class LabeledBatch(NamedTuple):
    """`action[b]` is the true action from frame `position[b]` of window b to the frame after it."""

    frames: UInt8[Tensor, "B n H W 3"]
    position: Int[Tensor, " B"]
    action: Float[Tensor, "B A"]

    def to(self, device: torch.device) -> "LabeledBatch":
        return LabeledBatch(*(tensor.to(device, non_blocking=True) for tensor in self))


class LabeledWindows:
    """Labeled transitions in an endless order of their own, which is stateless like that of the clips (EpochSampler).

    With labels for 1 % of all transitions, a batch of four clips holds about half a label. Drawn separately, the number
    of labels is the same at every training step, and the clips and their order do not change.

    Args:
        clips: reads the frames, fitted as in training.
        labels: of the split of `clips` (see labels.check_places).
        history: False gives the two frames of the transition. True gives a whole clip around it from a random start,
            for models that read all earlier frames, and leaves out labels in episodes shorter than a clip.

    Raises:
        UserError: no label is left, or the frames of a clip are not consecutive: an action leads over one step.
    """

    def __init__(self, clips: ClipDataset, labels: Labels, seed: int, *, history: bool):
        self.clips, self.seed = clips, seed
        self.length = clips.clip_length if history else 2
        fits = clips.num_frames[labels.episode] >= self.length
        self.num_left_out = int((~fits).sum())
        if not fits.any():
            raise UserError(
                f"all labels are of episodes shorter than a clip of {self.length} frames: label longer episodes, or "
                "pass a smaller --clip-length"
            )
        strides = clips.steps[labels.episode[fits]]
        if (strides > 1).any():
            raise UserError(
                f"with this --gap the frames of a clip are {strides.max()} frames apart, but a label is of the step "
                "from one frame to the next: leave out --gap or --labels"
            )
        # The order of the rows in the file has no meaning.
        kept = Labels(labels.split, labels.episode[fits], labels.step[fits], labels.action[fits]).ordered()
        self.episode, self.step, self.action = kept.episode, kept.step, kept.action.astype(np.float32)  # action: (M, A)

    def __len__(self) -> int:
        return len(self.step)

    def batch(self, step: int, batch_size: int, rank: int = 0, world_size: int = 1) -> LabeledBatch:
        """The `batch_size` labeled windows of this rank at one training step: a function of the arguments alone."""
        rows = EpochSampler(len(self), self.seed, rank, world_size).batch(step, batch_size)
        episode, at = self.episode[rows], self.step[rows]
        # Lowest and highest first frame of a window that holds both frames of the transition.
        lowest = np.maximum(0, at + 2 - self.length)
        highest = np.minimum(at, self.clips.num_frames[episode] - self.length)
        first = np.random.default_rng([self.seed, step, rank, 53]).integers(lowest, highest + 1)
        frames = self.clips.windows(episode, first[:, None] + np.arange(self.length))
        return LabeledBatch(frames, torch.from_numpy(at - first), torch.from_numpy(self.action[rows]))
