"""Procedural textures, so that no image files need to be shipped."""

import numpy as np

from genie_datasets.tabletop.xml_text import Rgb

SHADES = 6  # steps from the base color to the extreme of the pattern
PATTERNS = ("plain", "speckle", "wood", "check", "cloth")
TWO_COLOR_PATTERNS = ("stripes", "dots", "squares", "gradient", "blotches", "photo")  # the other color is drawn
SHEET = "sheet"  # one color


def _noise(rng: np.random.Generator, size: int, cells: int) -> np.ndarray:
    """Smooth noise (size,size) from -1 to 1 that tiles without a seam."""
    grid = rng.uniform(-1, 1, (cells, cells))
    at = np.arange(size) * cells / size
    low, part = np.floor(at).astype(int), at - np.floor(at)
    part = part * part * (3 - 2 * part)
    high = (low + 1) % cells
    rows = grid[low] * (1 - part)[:, None] + grid[high] * part[:, None]
    return rows[:, low] * (1 - part) + rows[:, high] * part


def surface(pattern: str, color: Rgb, contrast: float, seed: int, size: int = 128) -> np.ndarray:
    """A square texture (size,size,3) uint8: one of PATTERNS around a base color."""
    rng = np.random.default_rng(seed)
    if pattern == SHEET or pattern in TWO_COLOR_PATTERNS:
        return _two_colors(rng, pattern, np.asarray(color), contrast, size)
    grain = rng.normal(0, 0.25, (size, size))
    match pattern:
        case "plain":
            field = 0.5 * _noise(rng, size, 4) + 0.3 * grain
        case "speckle":
            field = 1.2 * grain + 2.0 * (rng.random((size, size)) < 0.02)
        case "wood":
            rings = np.arange(size)[:, None] / size * 10 + 1.3 * _noise(rng, size, 3)
            field = np.sin(2 * np.pi * rings) * 0.7 + _noise(rng, size, 16) * 0.3 + 0.4 * grain
        case "check":
            step = size // 8
            field = (
                (((np.arange(size)[:, None] // step) + (np.arange(size)[None] // step)) % 2) * 1.6 - 0.8 + 0.3 * grain
            )
        case "cloth":
            weave = np.sin(np.arange(size) * 2 * np.pi * 16 / size)
            field = 0.5 * (weave[:, None] + weave[None]) + 0.5 * _noise(rng, size, 8) + 0.3 * grain
        case _:
            raise ValueError(f"unknown texture pattern {pattern!r}; expected one of {', '.join(PATTERNS)}")
    field = np.round(field * SHADES) / SHADES  # few shades keep the PNG in every episode's record small
    image = np.asarray(color)[None, None] * (1 + contrast * field[..., None])
    return (np.clip(image, 0, 1) * 255).round().astype(np.uint8)


def _two_colors(rng: np.random.Generator, pattern: str, color: np.ndarray, contrast: float, size: int) -> np.ndarray:
    """A texture between `color` and another one, which differs from it by up to `contrast`."""
    other = color + contrast * (rng.uniform(0, 1, 3) - color)
    row, column = np.mgrid[:size, :size] / size
    count = int(rng.integers(2, 7))
    match pattern:
        case "stripes":
            along = (row, column, row + column)[int(rng.integers(3))]
            share = (along * count) % 1 < rng.uniform(0.25, 0.6)
        case "dots":
            share = np.hypot((row * count) % 1 - 0.5, (column * count) % 1 - 0.5) < rng.uniform(0.15, 0.4)
        case "squares":
            share = (np.floor(row * 2 * count) + np.floor(column * 2 * count)) % 2
        case "gradient":
            share = np.round((0.5 - 0.5 * np.cos(2 * np.pi * (row, column)[int(rng.integers(2))])) * 24) / 24
        case "blotches":
            share = _noise(rng, size, count) + 0.5 * _noise(rng, size, 3 * count) > rng.uniform(-0.3, 0.3)
        case "photo":
            layers = [_noise(rng, size, cells) / cells**0.6 for _ in range(3) for cells in (2, 4, 8, 16, 32)]
            field = np.stack([sum(layers[i : i + 5]) for i in (0, 5, 10)], axis=-1)
            field = 0.6 * field[..., :1] + 0.4 * field
            image = color + contrast * np.round(field * 12) / 12
            return (np.clip(image, 0, 1) * 255).round().astype(np.uint8)
        case _:
            share = np.zeros((size, size))
    image = color + np.asarray(share, float)[..., None] * (other - color)
    return (np.clip(image, 0, 1) * 255).round().astype(np.uint8)


def png_bytes(image: np.ndarray) -> bytes:
    """An RGB image (H,W,3) uint8 as the content of a PNG file."""
    import cv2

    return cv2.imencode(".png", image[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes()
