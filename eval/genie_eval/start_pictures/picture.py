"""A picture to start from, with what may be measured on it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt8

from genie_datasets import fit_frames

Side = tuple[int, int]  # (height, width)


@dataclass(frozen=True)
class StartPicture:
    """A picture of any size.

    kind: group under which its results are listed. has_arm: it shows an arm, so that commands can be judged. reach:
    True where the arm, or what it moves, may come; None: not known, so that retention is not measured.
    """

    name: str
    kind: str
    picture: UInt8[np.ndarray, "H W 3"]
    has_arm: bool = True
    reach: Bool[np.ndarray, "H W"] | None = None


@dataclass(frozen=True)
class FittedStarts:
    """S start pictures as the model sees them.

    still: True for pixels that should not change; all False for a picture whose reach is not known.
    """

    names: list[str]
    kinds: list[str]
    frames: UInt8[np.ndarray, "S H W 3"]
    has_arm: Bool[np.ndarray, " S"]
    still: Bool[np.ndarray, "S H W"]

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def fingerprint(self) -> str:
        """A hash of pictures and masks: results of equal fingerprints are of the same starts."""
        digest = hashlib.sha256()
        for part in (self.frames, self.has_arm, self.still):
            digest.update(repr(part.shape).encode() + np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()[:16]


def fit_starts(pictures: Sequence[StartPicture], size: Side, mode: str) -> FittedStarts:
    """Fits pictures and masks by the model's own rule. A pixel is still if no part of it is within reach."""
    frames, still = [], []
    for start in pictures:
        frames.append(fit_frames(start.picture, size, mode))
        if start.reach is None:
            still.append(np.zeros(size, bool))
        else:
            away = np.repeat((~start.reach)[..., None], 3, axis=-1).astype(np.uint8) * 255
            still.append(fit_frames(away, size, mode)[..., 0] == 255)  # a letterbox's bars are within reach: not judged
    has_arm = np.array([start.has_arm for start in pictures], bool)
    names, kinds = [start.name for start in pictures], [start.kind for start in pictures]
    return FittedStarts(names, kinds, np.stack(frames), has_arm, np.stack(still))
