"""Rendering styles: how a finished frame is drawn, the same for all frames of a scene."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

STYLE_SHARES = {
    "none": 0.50,
    "flat": 0.07,  # few colors, without texture
    "outlined": 0.09,  # dark lines along edges
    "crayon": 0.09,  # pale colors and dark lines on rough paper
    "posterized": 0.05,
    "noisy": 0.05,  # noise of a sensor, which differs between frames
    "gray": 0.04,
    "sepia": 0.03,
    "graded": 0.05,  # another contrast, saturation and white balance
    "blurred": 0.03,
}
STYLES = tuple(STYLE_SHARES)
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class StyleConfig:
    """A style of STYLE_SHARES and its strength."""

    name: str = "none"
    strength: float = 0.5  # from 0 to 1
    seed: int = 0  # of the paper and of the noise
    gain: tuple[float, float, float] = (1.0, 1.0, 1.0)  # white balance of "graded"


def _edges(image: np.ndarray) -> np.ndarray:
    """Darkness of the lines along edges (H,W,1), from 0 to 1."""
    import cv2

    side = max(2, round(min(image.shape[:2]) / 40))
    spread = cv2.morphologyEx(image, cv2.MORPH_GRADIENT, np.ones((side, side), np.uint8)).max(axis=-1, keepdims=True)
    return np.clip((spread - 28) / 50, 0, 1)


def _smooth(image: np.ndarray) -> np.ndarray:
    """Without texture, with sharp edges."""
    import cv2

    return cv2.bilateralFilter(image, 5, 35, 3)


def _posterize(image: np.ndarray, levels: int) -> np.ndarray:
    step = 255 / (levels - 1)
    return np.rint(image / step) * step


@lru_cache(maxsize=8)
def _paper(height: int, width: int, seed: int) -> np.ndarray:
    """Grain of paper (H,W,1), about from -1 to 1."""
    import cv2

    grain = np.random.default_rng(seed).normal(0, 0.5, (height, width)).astype(np.float32)
    return (0.5 * grain + cv2.GaussianBlur(grain, (3, 3), 0))[..., None]


def _flat(image: np.ndarray, style: StyleConfig, number: int) -> np.ndarray:
    return _posterize(_smooth(_smooth(image)), 7 - round(3 * style.strength))


def _outlined(image: np.ndarray, style: StyleConfig, number: int) -> np.ndarray:
    drawn = _smooth(image)
    filled = _posterize(drawn, 6) if style.strength > 0.5 else drawn
    return filled * (1 - _edges(drawn)) + 15 * _edges(drawn)


def _crayon(image: np.ndarray, style: StyleConfig, number: int) -> np.ndarray:
    drawn = _smooth(image)
    washed = 250 - (250 - drawn) * (1 - 0.75 * style.strength)
    grain = _paper(*image.shape[:2], style.seed)
    lines = _edges(drawn) * np.clip(0.85 + 0.4 * grain, 0, 1)
    return (washed + 14 * grain) * (1 - lines) + 45 * lines


def _posterized(image: np.ndarray, style: StyleConfig, number: int) -> np.ndarray:
    return _posterize(image, 5 - round(2 * style.strength))


def _noisy(image: np.ndarray, style: StyleConfig, number: int) -> np.ndarray:
    rng = np.random.default_rng([style.seed, number])
    return image + rng.standard_normal(image.shape, np.float32) * (4 + 12 * style.strength)


def _gray(image: np.ndarray, style: StyleConfig, number: int) -> np.ndarray:
    return np.repeat((image @ LUMA)[..., None], 3, axis=-1)


def _sepia(image: np.ndarray, style: StyleConfig, number: int) -> np.ndarray:
    return _gray(image, style, number) * (1.08, 0.95, 0.74) + 12


def _graded(image: np.ndarray, style: StyleConfig, number: int) -> np.ndarray:
    gray = _gray(image, style, number)
    mixed = np.clip(gray + (image - gray) * (0.4 + 1.3 * style.strength), 0, 255) / 255
    return 255 * mixed ** (1.5 - 0.8 * style.strength) * np.array(style.gain, np.float32)


def _blurred(image: np.ndarray, style: StyleConfig, number: int) -> np.ndarray:
    import cv2

    return cv2.GaussianBlur(image, (0, 0), min(image.shape[:2]) / 64 * (0.5 + 0.6 * style.strength))


_DRAW: dict[str, Callable[[np.ndarray, StyleConfig, int], np.ndarray]] = {
    "flat": _flat,
    "outlined": _outlined,
    "crayon": _crayon,
    "posterized": _posterized,
    "noisy": _noisy,
    "gray": _gray,
    "sepia": _sepia,
    "graded": _graded,
    "blurred": _blurred,
}


def apply_style(style: StyleConfig, frame: np.ndarray, number: int) -> np.ndarray:
    """Draw a frame (H,W,3) uint8 in a style. Only "noisy" depends on `number`, which differs between frames."""
    if style.name == "none" or not frame.size:
        return frame
    drawn = _DRAW[style.name](frame.astype(np.float32), style, number)
    return np.rint(np.clip(drawn, 0, 255)).astype(np.uint8)
