"""Errors of frames, in squared grey levels and in dB."""

import numpy as np
from jaxtyping import Float, UInt8

PEAK = 255.0
LEAST = 1 / 12  # squared grey levels: what rounding to uint8 alone costs; the error of equal frames, 58.9 dB


def squared_error(a: UInt8[np.ndarray, "... H W 3"], b: UInt8[np.ndarray, "... H W 3"]) -> Float[np.ndarray, "..."]:
    """Mean over the pixels of each frame."""
    return ((a.astype(np.float32) - b.astype(np.float32)) ** 2).mean(axis=(-3, -2, -1), dtype=np.float64)


def decibel(mse: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """PSNR of a mean squared error; finite for equal frames, so that means over frames stay finite."""
    return 10 * np.log10(PEAK**2 / np.maximum(mse, LEAST))


def psnr(a: UInt8[np.ndarray, "... H W 3"], b: UInt8[np.ndarray, "... H W 3"]) -> Float[np.ndarray, "..."]:
    return decibel(squared_error(a, b))
