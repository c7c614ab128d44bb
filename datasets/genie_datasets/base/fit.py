"""Fitting of images to the model's size, by one rule for frame caches, `infer_actions` and the player."""

import cv2
import numpy as np

from genie_datasets.base.errors import UserError

# One image is too small to split over threads: OpenCV's would only wait for a core, and loaders have their own.
cv2.setNumThreads(1)

Size = tuple[int, int]  # (height, width)
MODES = ("crop", "letterbox")
FIT_VERSION = 1  # part of a frame cache's fingerprint: raise it when this file gives other pixels


def parse_size(text: str) -> Size:
    """'64x80' -> (64, 80), height first; raises UserError."""
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(p.strip().isdigit() and int(p) > 0 for p in parts):
        raise UserError(f"'{text}' is not a size; expected HEIGHTxWIDTH, such as 64x64")
    return int(parts[0]), int(parts[1])


def check_mode(mode: str) -> None:
    """Raises UserError for an unknown way to fit images."""
    if mode not in MODES:
        raise UserError(f"unknown way to fit images '{mode}'; expected one of {', '.join(MODES)}")


def fit_frames(frames: np.ndarray, size: Size, mode: str = "crop") -> np.ndarray:
    """Fits images to `size` without changing their proportions.

    frames: (..., H0, W0, 3) uint8; size: (H, W). Returns (..., H, W, 3) uint8, the input itself if it has that size.
    mode: "crop" cuts the center to the aspect of `size` and resizes it; "letterbox" resizes the whole image and pads it
        with black.

    Shrinking averages over areas (no aliasing); enlarging is bilinear.
    """
    check_mode(mode)
    frames = np.asarray(frames)
    if frames.dtype != np.uint8 or frames.ndim < 3 or frames.shape[-1] != 3:
        raise ValueError(f"frames must be (..., H, W, 3) uint8, got {frames.shape} {frames.dtype}")
    if frames.shape[-3:-1] == tuple(size):
        return frames
    out = np.zeros((*frames.shape[:-3], *size, 3), np.uint8)
    fit = _crop if mode == "crop" else _letterbox
    for index in np.ndindex(frames.shape[:-3]):
        fit(frames[index], out[index])
    return out


def crop_box(height: int, width: int, size: Size) -> tuple[int, int, int, int]:
    """(top, left, height, width) of the largest centered box with the aspect of `size`."""
    h = min(height, max(1, round(width * size[0] / size[1])))
    w = min(width, max(1, round(height * size[1] / size[0])))
    return (height - h) // 2, (width - w) // 2, h, w


def _crop(image: np.ndarray, out: np.ndarray) -> None:
    top, left, h, w = crop_box(image.shape[0], image.shape[1], out.shape[:2])
    out[:] = resize(image[top : top + h, left : left + w], out.shape[:2])


def _letterbox(image: np.ndarray, out: np.ndarray) -> None:
    scale = min(out.shape[0] / image.shape[0], out.shape[1] / image.shape[1])
    h = min(out.shape[0], max(1, round(image.shape[0] * scale)))
    w = min(out.shape[1], max(1, round(image.shape[1] * scale)))
    top, left = (out.shape[0] - h) // 2, (out.shape[1] - w) // 2
    out[top : top + h, left : left + w] = resize(image, (h, w))


def resize(image: np.ndarray, size: Size) -> np.ndarray:
    """An image (H, W, 3) resized to `size`: averaged over areas where it shrinks, else bilinear."""
    if image.shape[:2] == tuple(size):
        return image
    shrinks = image.shape[0] >= size[0] and image.shape[1] >= size[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(np.ascontiguousarray(image), (size[1], size[0]), interpolation=method)
