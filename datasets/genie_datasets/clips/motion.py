"""What moves from frame to frame, and where the scene is cut: measured on 64x64 pixels in blocks of 8x8.

A transition is static when no block changes on average by more than codecs flicker. It is a cut when most blocks change
at once, far more of them than is usual in its episode (a camera on a wrist changes most of them at every step), and the
two pictures are no longer alike (a base that turns shifts the picture). A cut between two takes of one scene
is not seen.
"""

from dataclasses import dataclass

import numpy as np

from genie_datasets.base.fit import fit_frames
from genie_datasets.sources.split import Split

LOOK_SIZE = (64, 64)
BLOCK = 8
STATIC_LEVELS = 4.0  # mean grey levels by which a block must change; codecs flicker by one or two
CUT_LEVELS = 16.0  # by which a block must change to count as another
CUT_SHARE = 0.5  # of the blocks
CUT_RATIO = 3.0  # times the median share of the episode
CUT_LIKENESS = 0.6  # correlation of the pixels under which pictures are not alike; turning bases stay above .69
LOOK_CHUNK = 512  # frames compared at once


@dataclass(frozen=True)
class Motion:
    """Of n transitions between frames `step` apart."""

    static: np.ndarray  # (n,) bool
    cut: np.ndarray  # (n,) bool


def motion(frames: np.ndarray, step: int = 1) -> Motion:
    """frames: (L, H, W, 3) uint8 of one episode; its transitions t -> t + step, of which there are L - step."""
    largest, share, likeness = [np.zeros(0)], [np.zeros(0)], [np.zeros(0)]
    for start in range(0, max(0, len(frames) - step), LOOK_CHUNK):
        seen = fit_frames(frames[start : start + LOOK_CHUNK + step], LOOK_SIZE).astype(np.float32).mean(-1)
        change = np.abs(seen[step:] - seen[:-step])
        rows, columns = (size // BLOCK for size in LOOK_SIZE)
        blocks = change.reshape(len(change), rows, BLOCK, columns, BLOCK).mean((2, 4)).reshape(len(change), -1)
        largest.append(blocks.max(1))
        share.append((blocks > CUT_LEVELS).mean(1))
        likeness.append(correlation(seen[step:], seen[:-step]))
    changed = np.concatenate(share)
    usual = np.median(changed) if len(changed) else 0.0
    return Motion(
        static=np.concatenate(largest) < STATIC_LEVELS,
        cut=(changed >= CUT_SHARE) & (changed >= CUT_RATIO * usual) & (np.concatenate(likeness) < CUT_LIKENESS),
    )


def correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(n,) of the pixels of n pairs of images (n, H, W); 0 where one is of a single grey."""
    a, b = (x.reshape(len(x), -1) - x.mean((1, 2))[:, None] for x in (a, b))
    return (a * b).sum(1) / np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), 1e-6)


def episode_motion(split: Split, episode: int, step: int) -> Motion:
    """`motion` of one episode of a split."""
    return motion(split.frames(episode, None, LOOK_SIZE), step)
