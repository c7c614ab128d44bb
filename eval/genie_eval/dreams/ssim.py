"""SSIM (Wang et al. 2004) of frames, averaged over R, G and B.

The window and the constants are the published ones: Gaussian 11 x 11 with sigma 1.5, K1 = 0.01, K2 = 0.03, range 255,
mean over the places where the whole window lies inside the frame. Agrees with scikit-image's
`structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255, channel_axis=-1)`.
"""

import numpy as np
from jaxtyping import Float, UInt8

from genie_eval.dreams.pixels import PEAK

WINDOW, SIGMA = 11, 1.5
C1, C2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2
BATCH_PIXELS = 2**15  # blurred together: fits into the processor's cache, twice as fast as all frames at once


def ssim(a: UInt8[np.ndarray, "... H W 3"], b: UInt8[np.ndarray, "... H W 3"]) -> Float[np.ndarray, "..."]:
    """SSIM of each frame; 1 for equal frames, NaN if a side is shorter than the window (11 pixels)."""
    *lead, height, width, channels = a.shape
    if min(height, width) < WINDOW:
        return np.full(lead, np.nan)
    a, b = (x.reshape(-1, height, width, channels) for x in (a, b))
    step = max(1, BATCH_PIXELS // (height * width))
    parts = [_ssim(a[i : i + step], b[i : i + step]) for i in range(0, len(a), step)]
    return np.concatenate(parts).reshape(lead) if parts else np.zeros(lead)


def _ssim(a: UInt8[np.ndarray, "F H W C"], b: UInt8[np.ndarray, "F H W C"]) -> Float[np.ndarray, " F"]:
    x, y = a.astype(np.float64), b.astype(np.float64)
    mx, my, xx, yy, xy = (_window_means(image) for image in (x, y, x * x, y * y, x * y))
    luminance = (2 * mx * my + C1) / (mx**2 + my**2 + C1)
    structure = (2 * (xy - mx * my) + C2) / ((xx - mx**2) + (yy - my**2) + C2)
    return (luminance * structure).mean(axis=(1, 2, 3))


def _window_means(frames: Float[np.ndarray, "F H W C"]) -> Float[np.ndarray, "F h w C"]:
    """Window means; h = H - 10, w = W - 10.

    The frames are blurred as one tall image. Windows that cross into the neighboring frame are cut off with the border.
    """
    import cv2

    number, height, width, channels = frames.shape
    tall = cv2.GaussianBlur(frames.reshape(number * height, width, channels), (WINDOW, WINDOW), SIGMA)
    edge = WINDOW // 2
    return tall.reshape(frames.shape)[:, edge : height - edge, edge : width - edge]
