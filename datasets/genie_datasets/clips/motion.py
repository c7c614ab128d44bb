"""Static transitions and cuts of an episode, measured in blocks of 8x8 on frames of 64x64 pixels.

A transition is static if no block changes on average by more than codecs flicker. It is a cut if most blocks change at
once, three times as many as in the median transition of the episode (a wrist camera changes most of them at every
step), and the two frames are hardly correlated (a turning base shifts the frame). A cut between two takes of one scene
is not detected.
"""

from dataclasses import dataclass

import numpy as np

from genie_datasets.base.fit import fit_frames

MOTION_SIZE = (64, 64)
BLOCK = 8
STATIC_LEVELS = 4.0  # mean gray levels below which a block is static; codecs flicker by one or two
CUT_LEVELS = 16.0  # mean gray levels above which a block counts as changed
CUT_SHARE = 0.5  # of the blocks must change
CUT_RATIO = 3.0  # times the median share of changed blocks in the episode
CUT_CORRELATION = 0.6  # of the pixels, below which two frames differ; turning bases stay above 0.69
CHUNK = 512  # transitions compared at once


@dataclass(frozen=True)
class Motion:
    """The n transitions of an episode between frames `step` apart."""

    static: np.ndarray  # (n,) bool
    cut: np.ndarray  # (n,) bool


def motion(frames: np.ndarray, step: int = 1) -> Motion:
    """The motion of the L - step transitions t -> t + step of one episode; frames: (L, H, W, 3) uint8."""
    largest, share, correlations = [np.zeros(0)], [np.zeros(0)], [np.zeros(0)]
    for start in range(0, max(0, len(frames) - step), CHUNK):
        gray = fit_frames(frames[start : start + CHUNK + step], MOTION_SIZE).astype(np.float32).mean(-1)
        change = np.abs(gray[step:] - gray[:-step])
        rows, columns = (size // BLOCK for size in MOTION_SIZE)
        blocks = change.reshape(len(change), rows, BLOCK, columns, BLOCK).mean((2, 4)).reshape(len(change), -1)
        largest.append(blocks.max(1))
        share.append((blocks > CUT_LEVELS).mean(1))
        correlations.append(correlation(gray[step:], gray[:-step]))
    changed = np.concatenate(share)
    median = np.median(changed) if len(changed) else 0.0
    return Motion(
        static=np.concatenate(largest) < STATIC_LEVELS,
        cut=(changed >= CUT_SHARE) & (changed >= CUT_RATIO * median) & (np.concatenate(correlations) < CUT_CORRELATION),
    )


def correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(n,) correlation of the pixels of n pairs of images (n, H, W); 0 for an image of one gray level."""
    a, b = (x.reshape(len(x), -1) - x.mean((1, 2))[:, None] for x in (a, b))
    return (a * b).sum(1) / np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), 1e-6)
