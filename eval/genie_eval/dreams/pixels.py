"""Error of frames, in squared gray levels and in dB."""

import numpy as np
from jaxtyping import Bool, Float, UInt8

from genie_eval.features import MOVING

PEAK = 255.0
BACKBONE = "none (pixels)"  # stands in reports where other metrics name the network behind a number
MIN_ERROR = 1 / 12  # squared gray levels: the error of rounding to uint8, taken for equal frames (58.9 dB)


def squared_error(a: UInt8[np.ndarray, "... H W 3"], b: UInt8[np.ndarray, "... H W 3"]) -> Float[np.ndarray, "..."]:
    """Mean squared error of each frame."""
    return ((a.astype(np.float32) - b.astype(np.float32)) ** 2).mean(axis=(-3, -2, -1), dtype=np.float64)


def decibel(mse: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """PSNR of a mean squared error; finite for equal frames, so that means over frames stay finite."""
    return 10 * np.log10(PEAK**2 / np.maximum(mse, MIN_ERROR))


def psnr(a: UInt8[np.ndarray, "... H W 3"], b: UInt8[np.ndarray, "... H W 3"]) -> Float[np.ndarray, "..."]:
    """PSNR of each frame, dB."""
    return decibel(squared_error(a, b))


def moving_pixels(a: UInt8[np.ndarray, "... H W 3"], b: UInt8[np.ndarray, "... H W 3"]) -> Bool[np.ndarray, "... H W"]:
    """True where two frames differ by more than MOVING gray levels in some channel."""
    return np.abs(a.astype(np.int16) - b.astype(np.int16)).max(axis=-1) > MOVING


def moving_error(
    a: UInt8[np.ndarray, "... H W 3"], b: UInt8[np.ndarray, "... H W 3"], mask: Bool[np.ndarray, "... H W"]
) -> Float[np.ndarray, "..."]:
    """Mean squared error of each frame over the masked pixels; NaN where there are none."""
    square = ((a.astype(np.float32) - b.astype(np.float32)) ** 2).mean(axis=-1)
    total = np.where(mask, square, 0).sum(axis=(-2, -1), dtype=np.float64)
    count = mask.sum(axis=(-2, -1))
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
