"""How numbers and colors are written in MJCF."""

from collections.abc import Iterable

Rgb = tuple[float, float, float]
"""Red, green and blue, each from 0 to 1."""


def numbers(values: Iterable[float]) -> str:
    """Numbers separated by spaces."""
    return " ".join(f"{value:.5g}" for value in values)


def rgba(color: Rgb, scale: float = 1.0, add: float = 0.0) -> str:
    """An opaque color, each channel times `scale` plus `add`."""
    return " ".join(f"{min(1.0, channel * scale + add):.3f}" for channel in color) + " 1"
