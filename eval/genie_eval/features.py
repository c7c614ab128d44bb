"""Description of a transition without any learning: optical flow and frame difference.

The learning-free baselines are made of them, and the flow takes the place of motion where no true motion is known.
"""

from itertools import pairwise

import numpy as np
from jaxtyping import Float, UInt8

GRID = 4  # the flow is pooled on GRID x GRID cells
SIDE = 32  # frame differences are taken at SIDE x SIDE pixels
MOVING = 12  # gray levels; a pixel that changes by more is moving
FULL_RANGE = 255.0


def flow_fields(frames: UInt8[np.ndarray, "T H W 3"]) -> tuple[Float[np.ndarray, "n H W 2"], np.ndarray]:
    """Farneback flow from each frame to the next (pixels; x right, y down), and the mask of pixels that changed."""
    import cv2

    gray = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    start = np.zeros((*frames.shape[1:3], 2), np.float32)
    flows = [cv2.calcOpticalFlowFarneback(a, b, start.copy(), 0.5, 3, 9, 3, 5, 1.1, 0) for a, b in pairwise(gray)]
    change = np.abs(np.diff(frames.astype(np.int16), axis=0)).max(axis=-1)
    return np.stack(flows), change > MOVING


def flow_features(frames: UInt8[np.ndarray, "T H W 3"]) -> tuple[np.ndarray, np.ndarray]:
    """(n, 2) mean flow of the moving pixels in fractions of width and height, and (n, GRID*GRID*2) by grid cell."""
    flow, moves = flow_fields(frames)
    height, width = frames.shape[1:3]
    flow = flow / np.array([width, height]) * moves[..., None]
    area = np.maximum(moves.sum(axis=(1, 2)), 1)
    mean = flow.sum(axis=(1, 2)) / area[:, None]
    rows = np.array_split(np.arange(height), GRID)
    columns = np.array_split(np.arange(width), GRID)
    cells = [flow[:, r[0] : r[-1] + 1, c[0] : c[-1] + 1].sum(axis=(1, 2)) for r in rows for c in columns]
    return mean, np.concatenate(cells, axis=1) / area[:, None]


def difference_features(frames: UInt8[np.ndarray, "T H W 3"]) -> Float[np.ndarray, "n S"]:
    """(n, SIDE*SIDE) gray-level change from each frame to the next, in -1 .. 1."""
    import cv2

    gray = [cv2.resize(cv2.cvtColor(f, cv2.COLOR_RGB2GRAY), (SIDE, SIDE), interpolation=cv2.INTER_AREA) for f in frames]
    return np.diff(np.stack(gray).astype(np.float32).reshape(len(gray), -1), axis=0) / FULL_RANGE
