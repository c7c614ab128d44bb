"""Filters that drop clips without motion and clips across a cut."""

from dataclasses import dataclass

import numpy as np

from genie_datasets.base.errors import UserError
from genie_datasets.clips.motion import Motion


@dataclass(frozen=True)
class ClipFilter:
    """The options --drop-static and --drop-cuts."""

    static: float | None = None
    """Drop clips with at least this share of static transitions, above 0 and up to 1; 1: without any motion."""
    cuts: bool = False
    """Drop clips across a cut."""

    def __post_init__(self) -> None:
        if self.static is not None and not 0 < self.static <= 1:
            raise UserError(f"--drop-static must be a share of transitions above 0 and at most 1, got {self.static:g}")

    def __bool__(self) -> bool:
        return self.static is not None or self.cuts

    def __str__(self) -> str:
        """The filter in words, which are part of the fingerprint of clips."""
        static = "" if self.static is None else f"static from {self.static:g}"
        return ", ".join(filter(None, [static, "cuts" if self.cuts else ""]))

    def kept(self, motion: Motion, num_clips: int, clip_length: int, step: int) -> np.ndarray:
        """(num_clips,) bool: True for the windows of an episode that stay.

        Window s has `clip_length` frames s, s + step, ..., and `motion` is that of the transitions between them.
        """
        starts = np.arange(num_clips)
        kept = np.ones(num_clips, bool)
        if self.static is not None:
            static = count_flags(motion.static, starts, clip_length - 1, step)
            kept &= static < self.static * (clip_length - 1) - 1e-9
        if self.cuts:
            kept &= count_flags(motion.cut, starts, clip_length - 1, step) == 0
        return kept


def count_flags(flags: np.ndarray, starts: np.ndarray, num: int, step: int) -> np.ndarray:
    """The number of flags set among flags[s], flags[s + step], ... (`num` of them), for each start s."""
    return sum((flags[starts + k * step].astype(np.int64) for k in range(num)), np.zeros(len(starts), np.int64))


KEEP_ALL = ClipFilter()
