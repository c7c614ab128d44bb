"""Clips: windows of T frames of one episode, `gap` seconds apart. They hold pixels only, and no way to actions."""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from genie_datasets.base.errors import UserError
from genie_datasets.base.notes import warn
from genie_datasets.clips.filters import KEEP_ALL, ClipFilter
from genie_datasets.clips.kept_clips import KeptClips
from genie_datasets.sources.split import Size, Split


def frame_step(gap: float | None, hz: float) -> int:
    """Frames from one frame of a clip to the next: `gap` seconds at `hz`, at least 1; 1 without a gap."""
    return 1 if gap is None else max(1, round(gap * hz))


class ClipDataset(Dataset):
    """Every window of `clip_length` frames, from every start frame; item i is a uint8 tensor (T, H, W, 3).

    With a list of numbers as index it gives a batch (B, T, H, W, 3), which is read in one call and never copied:
    `DataLoader(clips, sampler=EpochSampler.of(clips, seed=0).batches(8), batch_size=None)`.

    Args:
        frames: a FrameCache, or a Split with the `size` (H, W) that its images are fitted to.
        gap: seconds between the frames of a clip. Default: consecutive frames.
        drop: leaves out clips without motion or across a cut. Of `num_windows` clips, `len(self)` stay.

    Episodes shorter than a clip are skipped and counted in `num_short`.

    Raises:
        UserError: no clip is left.
    """

    def __init__(
        self,
        frames: Split,
        clip_length: int = 16,
        gap: float | None = None,
        *,
        size: Size | None = None,
        mode: str = "crop",
        drop: ClipFilter = KEEP_ALL,
    ):
        if clip_length < 2:
            raise UserError(f"--clip-length must be at least 2 frames, got {clip_length}")
        self._frames, self._size, self._mode = frames, size, mode
        self.clip_length = clip_length
        self.steps = np.array([frame_step(gap, hz) for hz in frames.hz], np.int64)  # (E,)
        self.num_frames = frames.num_frames  # (E,)
        starts = np.maximum(0, frames.num_frames - (clip_length - 1) * self.steps)
        self.num_windows = int(starts.sum())
        # The same gap at another --hz gives other clips.
        steps = hashlib.sha256(self.steps.tobytes()).hexdigest()[:8]
        self.fingerprint = f"{frames.fingerprint}/{clip_length}/{steps}/{size}-{mode}/{drop}"
        self.stamp = frames.stamp
        self._kept = None
        if drop and starts.sum():
            self._kept = KeptClips(frames, starts, clip_length, self.steps, drop)
            starts = self._kept.num_clips
            if not starts.sum():
                raise UserError(
                    f"every clip of split '{frames.name}' is dropped ({drop}): pass a larger --drop-static, or leave "
                    "out --drop-static and --drop-cuts"
                )
        self._first = np.concatenate([[0], np.cumsum(starts)])  # first clip of each episode
        self.num_short = int((frames.num_frames <= (clip_length - 1) * self.steps).sum())
        self.group_sizes = np.bincount(frames.group, starts, len(frames.group_weights)).astype(np.int64)
        self.group_weights = frames.group_weights
        if not len(self):
            self._raise_too_short()
        if self.num_short:
            warn(f"{self.num_short} of {len(starts)} episodes are shorter than a clip of {clip_length} frames: skipped")

    def __len__(self) -> int:
        return int(self._first[-1])

    def locate(self, clip: int) -> tuple[int, np.ndarray]:
        """The episode of a clip, and the numbers (T,) of its frames in the episode."""
        if not -len(self) <= clip < len(self):
            raise IndexError(f"clip {clip} of {len(self)}")
        clip %= len(self)
        episode = int(np.searchsorted(self._first, clip, side="right")) - 1
        start = clip - self._first[episode]
        if self._kept is not None:
            start = self._kept.start(episode, int(start))
        return episode, start + np.arange(self.clip_length) * self.steps[episode]

    def __getitem__(self, clip: int | Sequence[int]) -> torch.Tensor:
        if isinstance(clip, Sequence):
            return self.batch(clip)
        episode, ids = self.locate(clip)
        return torch.from_numpy(self._frames.frames(episode, ids, self._size, self._mode))

    def batch(self, clips: Sequence[int]) -> torch.Tensor:
        """Several clips as one uint8 tensor (B, T, H, W, 3)."""
        places = [self.locate(int(clip)) for clip in clips]
        return self.windows(np.array([episode for episode, _ in places]), np.stack([ids for _, ids in places]))

    def windows(self, episodes: np.ndarray, ids: np.ndarray) -> torch.Tensor:
        """Frames ids[b] (B, n) of episodes[b] (B,), fitted like those of clips: uint8 (B, n, H, W, 3)."""
        return torch.from_numpy(self._frames.gather(episodes, ids, self._size, self._mode))

    def _raise_too_short(self) -> None:
        frames = self._frames
        longest = int(frames.num_frames.max(initial=0))
        if longest < 2:
            raise UserError(
                f"no episode of split '{frames.name}' is long enough for a clip: the longest has {longest} frames; "
                "expected at least 2; choose a source with longer episodes"
            )
        span = int(((frames.num_frames - 1) // self.steps + 1).max())
        what = (
            f"no episode of split '{frames.name}' is as long as a clip of {self.clip_length} frames (the longest has "
            f"{span} at this gap)"
        )
        if span < 2:
            # The longest gap in seconds, rounded down, at which some episode still has two frames.
            exact = float(((frames.num_frames - 1) / frames.hz).max())
            gap = rounded if (rounded := float(f"{exact:.3e}")) <= exact else exact * 0.999
            raise UserError(f"{what}: pass --clip-length 2 and a --gap of at most {gap:.4g} (s)")
        raise UserError(f"{what}: pass --clip-length {span}")
