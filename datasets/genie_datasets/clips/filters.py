"""Which clips are worth training on: not those in which nothing moves, nor those across a cut."""

from dataclasses import dataclass

import numpy as np

from genie_datasets.base.errors import UserError
from genie_datasets.clips.motion import Motion


@dataclass(frozen=True)
class ClipFilter:
    static: float | None = None
    """Clips are dropped with at least this share of static transitions: 1 drops those in which nothing moves at all."""
    cuts: bool = False
    """Clips across a cut are dropped."""

    def __post_init__(self) -> None:
        if self.static is not None and not 0 < self.static <= 1:
            raise UserError(f"--drop-static {self.static:g} is no share of transitions: give one above 0 and up to 1")

    def __bool__(self) -> bool:
        return self.static is not None or self.cuts

    def __str__(self) -> str:
        """What it does; part of what a run was trained on."""
        static = [] if self.static is None else [f"static from {self.static:g}"]
        return ", ".join([*static, *(["cuts"] if self.cuts else [])])

    def kept(self, motion: Motion, num_clips: int, clip_length: int, step: int) -> np.ndarray:
        """(num_clips,) bool: which windows of `clip_length` frames, `step` apart, of an episode stay.

        motion: of transitions `step` apart. Window s has the transitions s, s + step, ...
        """
        starts = np.arange(num_clips)
        kept = np.ones(num_clips, bool)
        if self.static is not None:
            static = counted(motion.static, starts, clip_length - 1, step)
            kept &= static < self.static * (clip_length - 1) - 1e-9
        if self.cuts:
            kept &= counted(motion.cut, starts, clip_length - 1, step) == 0
        return kept


def counted(flags: np.ndarray, starts: np.ndarray, num: int, step: int) -> np.ndarray:
    """How many of flags[s], flags[s + step], ... (`num` of them) are set, for each start s."""
    return sum((flags[starts + k * step].astype(np.int64) for k in range(num)), np.zeros(len(starts), np.int64))


KEEP_ALL = ClipFilter()
