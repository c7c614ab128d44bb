"""Errors of frames, in squared grey levels and in dB."""

import numpy as np
from jaxtyping import Bool, Float, UInt8

from genie_eval.features import MOVING

PEAK = 255.0
BACKBONE = "none (pixels)"  # what PSNR and SSIM say where a report names the network behind a number
LEAST = 1 / 12  # squared grey levels: what rounding to uint8 alone costs; the error of equal frames, 58.9 dB


def squared_error(a: UInt8[np.ndarray, "... H W 3"], b: UInt8[np.ndarray, "... H W 3"]) -> Float[np.ndarray, "..."]:
    """Mean over the pixels of each frame."""
    return ((a.astype(np.float32) - b.astype(np.float32)) ** 2).mean(axis=(-3, -2, -1), dtype=np.float64)


def decibel(mse: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """PSNR of a mean squared error; finite for equal frames, so that means over frames stay finite."""
    return 10 * np.log10(PEAK**2 / np.maximum(mse, LEAST))


def psnr(a: UInt8[np.ndarray, "... H W 3"], b: UInt8[np.ndarray, "... H W 3"]) -> Float[np.ndarray, "..."]:
    return decibel(squared_error(a, b))


def moving_pixels(a: UInt8[np.ndarray, "... H W 3"], b: UInt8[np.ndarray, "... H W 3"]) -> Bool[np.ndarray, "... H W"]:
    """Where a frame differs from another by more than MOVING grey levels in some channel."""
    return np.abs(a.astype(np.int16) - b.astype(np.int16)).max(axis=-1) > MOVING


def moving_error(
    a: UInt8[np.ndarray, "... H W 3"], b: UInt8[np.ndarray, "... H W 3"], mask: Bool[np.ndarray, "... H W"]
) -> Float[np.ndarray, "..."]:
    """Mean over the masked pixels of each frame; NaN where there are none."""
    square = ((a.astype(np.float32) - b.astype(np.float32)) ** 2).mean(axis=-1)
    total = np.where(mask, square, 0).sum(axis=(-2, -1), dtype=np.float64)
    count = mask.sum(axis=(-2, -1))
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
