"""Papers and pens: how the same scene looks in crayon, as a cartoon, in chalk, in pencil, or cut out of paper.

Scenes are drawn in a unit square, x to the right and y down, which is the middle of the picture: a crop keeps it.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from itertools import pairwise

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

Color = tuple[float, float, float]  # red, green, blue, 0 to 255
Point = tuple[float, float]
OVERSAMPLED = 2  # drawn pixels per pixel of the picture and side
SUBPIXEL = 4  # bits of cv2's fixed-point coordinates
INK: Color = (35, 32, 38)
WIPED_BOARD: Color = (52, 66, 58)
DRAWING_PAPER: Color = (246, 244, 238)


class Canvas:
    """A picture in the making: float RGB at OVERSAMPLED times its size."""

    def __init__(self, size: tuple[int, int], color: Color, rng: np.random.Generator):
        self.size, self.rng = size, rng
        self.height, self.width = size[0] * OVERSAMPLED, size[1] * OVERSAMPLED
        self.unit = min(self.height, self.width)  # pixels of a unit
        self.origin = np.array([(self.width - self.unit) / 2, (self.height - self.unit) / 2])
        self.pixels = np.full((self.height, self.width, 3), color, np.float32)
        self.grain = self.noise(1.2)

    def noise(self, sigma: float) -> Float[np.ndarray, "h w"]:
        """Smooth noise, 0 to 1, evenly distributed. sigma: pixels."""
        field = cv2.GaussianBlur(self.rng.standard_normal((self.height, self.width)).astype(np.float32), (0, 0), sigma)
        return field.ravel().argsort().argsort().reshape(field.shape).astype(np.float32) / field.size

    def to_pixels(self, points: Sequence[Point] | np.ndarray) -> np.ndarray:
        """Unit coordinates as cv2's fixed-point ones."""
        pixels = np.asarray(points, np.float64) * self.unit + self.origin
        return np.rint(pixels * 2**SUBPIXEL).astype(np.int32)

    def polygon(self, outline: Sequence[Point] | np.ndarray) -> Float[np.ndarray, "h w"]:
        """Coverage of a polygon, 0 to 1."""
        mask = np.zeros((self.height, self.width), np.uint8)
        cv2.fillPoly(mask, [self.to_pixels(outline)], 255, cv2.LINE_AA, SUBPIXEL)
        return mask.astype(np.float32) / 255

    def stroke(self, points: Sequence[Point] | np.ndarray, width: float) -> Float[np.ndarray, "h w"]:
        """Coverage of a line of this width, 0 to 1."""
        return self.strokes([points], width)

    def paint(self, coverage: Float[np.ndarray, "h w"], color: Color | Float[np.ndarray, "h w 3"]) -> None:
        """Blends a color, or one per pixel, over the picture."""
        rows, columns = np.flatnonzero(coverage.any(axis=1)), np.flatnonzero(coverage.any(axis=0))
        if not len(rows):
            return
        part = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        over = np.asarray(color, np.float32)
        below = self.pixels[part]
        below += coverage[part][..., None] * ((over if over.ndim == 1 else over[part]) - below)

    def strokes(self, lines: Iterable[Sequence[Point] | np.ndarray], width: float) -> Float[np.ndarray, "h w"]:
        """Coverage of many lines of this width, 0 to 1."""
        mask = np.zeros((self.height, self.width), np.uint8)
        points = [self.to_pixels(line) for line in lines]
        cv2.polylines(mask, points, False, 255, max(1, round(width * self.unit)), cv2.LINE_AA, SUBPIXEL)
        return mask.astype(np.float32) / 255

    def finished(self) -> UInt8[np.ndarray, "H W 3"]:
        small = cv2.resize(self.pixels, self.size[::-1], interpolation=cv2.INTER_AREA)
        return np.clip(np.rint(small), 0, 255).astype(np.uint8)


# --------------------------------------------------------------------------------------------------------------- papers
def squared_paper(canvas: Canvas, color: Color = (150, 180, 215), step: float = 0.05) -> None:
    """Thin lines across, as in a school notebook."""
    lines = [line for at in np.arange(-1, 2, step) for line in ([(at, -1), (at, 2)], [(-1, at), (2, at)])]
    canvas.paint(0.6 * canvas.strokes(lines, 0.003), color)


def ruled_paper(canvas: Canvas) -> None:
    lines = [[(-1, at), (2, at)] for at in np.arange(-0.96, 2, 0.08)]
    canvas.paint(0.6 * canvas.strokes(lines, 0.004), (140, 170, 220))
    canvas.paint(0.8 * canvas.stroke([(0.08, -1), (0.08, 2)], 0.005), (230, 110, 110))


def rough_paper(canvas: Canvas, strength: float = 14) -> None:
    """Fibers and stains."""
    canvas.pixels += strength * (canvas.noise(1.0) - 0.5)[..., None] + strength * (canvas.noise(24) - 0.5)[..., None]


def stripes(canvas: Canvas, colors: Sequence[Color], step: float = 0.09, slope: float = 0.5) -> None:
    y, x = np.mgrid[: canvas.height, : canvas.width] / canvas.unit
    canvas.pixels[:] = np.array(colors, np.float32)[np.floor((x + slope * y) / step).astype(int) % len(colors)]


def dots(canvas: Canvas, color: Color, step: float = 0.1, radius: float = 0.028) -> None:
    for row, y in enumerate(np.arange(-1, 2, step)):
        for x in np.arange(-1, 2, step) + (row % 2) * step / 2:
            if -0.4 < x < 1.4 and -0.2 < y < 1.2:
                canvas.paint(canvas.polygon(circle((x, y), radius, 16)), color)


def checks(canvas: Canvas, colors: tuple[Color, Color], step: float = 0.1) -> None:
    y, x = np.mgrid[: canvas.height, : canvas.width] / canvas.unit
    even = (np.floor(x / step) + np.floor(y / step)).astype(int) % 2
    canvas.pixels[:] = np.array(colors, np.float32)[even]


def newspaper(canvas: Canvas) -> None:
    """Columns of gray lines that look like print from afar."""
    words = []
    for left in (-0.3, 0.03, 0.36, 0.69, 1.02):
        for y in np.arange(-0.05, 1.05, 0.024):
            x, end = left, left + 0.3 - (0.12 if canvas.rng.random() < 0.15 else 0)
            while x < end:
                word = canvas.rng.uniform(0.02, 0.06)
                words.append([(x, y), (min(x + word, end), y)])
                x += word + 0.012
    canvas.paint(0.55 * canvas.strokes(words, 0.008), (70, 68, 66))


# ----------------------------------------------------------------------------------------------------------------- pens
class Pen(ABC):
    """Draws closed shapes and lines on a canvas."""

    def __init__(self, canvas: Canvas):
        self.canvas, self.rng = canvas, canvas.rng

    @abstractmethod
    def shape(self, outline: Sequence[Point] | np.ndarray, color: Color, edge: Color | None = INK) -> None:
        """A filled polygon. edge: color of its outline; None: no outline."""

    @abstractmethod
    def line(self, points: Sequence[Point] | np.ndarray, color: Color = INK, width: float = 0.012) -> None: ...

    def disc(self, center: Point, radius: float, color: Color, edge: Color | None = INK) -> None:
        self.shape(circle(center, radius), color, edge)

    def by_hand(self, points: Sequence[Point] | np.ndarray, shake: float) -> np.ndarray:
        """The line with many points, displaced by smooth noise: drawn by a hand that shakes."""
        points = np.asarray(points, np.float64)
        lengths = np.r_[0, np.linalg.norm(np.diff(points, axis=0), axis=1).cumsum()]
        at = np.linspace(0, lengths[-1], max(2, int(lengths[-1] / 0.02)))
        fine = np.stack([np.interp(at, lengths, points[:, axis]) for axis in (0, 1)], axis=1)
        knots = np.linspace(0, lengths[-1], max(2, int(lengths[-1] / 0.09) + 1))
        drift = self.rng.normal(0, shake, (len(knots), 2))
        return fine + np.stack([np.interp(at, knots, drift[:, axis]) for axis in (0, 1)], axis=1)

    def hatching(self, mask: Float[np.ndarray, "h w"], step: float, width: float, shake: float) -> np.ndarray:
        """Coverage of parallel strokes inside of a mask."""
        angle = self.rng.uniform(0.25, 0.75) * np.pi * self.rng.choice([-1, 1])
        along, across = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
        rows, columns = np.nonzero(mask > 0.5)
        if not len(rows):
            return mask
        inside = (np.stack([columns, rows], axis=1) - self.canvas.origin) / self.canvas.unit
        lows, highs = inside @ across, inside @ along
        lines = []
        for at in np.arange(lows.min(), lows.max() + step, step):
            ends = [along * highs.min() + across * at, along * highs.max() + across * at]
            lines.append(self.by_hand(ends, shake))
        return self.canvas.strokes(lines, width) * mask


class Crayon(Pen):
    """Wax crayon: shaky outlines, hatched areas, and paper that shows through."""

    def shape(self, outline, color, edge=INK):
        closed = np.concatenate([np.asarray(outline), np.asarray(outline)[:1]])
        mask = self.canvas.polygon(self.by_hand(closed, 0.004))
        waxy = np.clip((self.canvas.grain - 0.2) * 6, 0, 1)
        self.canvas.paint(0.55 * mask * np.clip((self.canvas.grain - 0.1) * 3, 0, 1), color)
        self.canvas.paint(0.85 * self.hatching(mask, 0.022, 0.016, 0.004) * waxy, color)
        if edge is not None:
            self.line(closed, edge, 0.014)

    def line(self, points, color=INK, width=0.014):
        waxy = np.clip((self.canvas.grain - 0.12) * 5, 0, 1)
        for _ in range(2):  # gone over twice
            self.canvas.paint(0.7 * self.canvas.stroke(self.by_hand(points, 0.0045), width) * waxy, color)


class Cartoon(Pen):
    """Flat areas with an even black outline."""

    def __init__(self, canvas: Canvas, outline: float = 0.014):
        super().__init__(canvas)
        self.outline = outline

    def shape(self, outline, color, edge=INK):
        self.canvas.paint(self.canvas.polygon(outline), color)
        if edge is not None and self.outline:
            self.line(np.concatenate([np.asarray(outline), np.asarray(outline)[:1]]), edge, self.outline)

    def line(self, points, color=INK, width=0.014):
        self.canvas.paint(self.canvas.stroke(points, width), color)


class Scissors(Pen):
    """Shapes cut out of colored paper, which throw a shadow. Lines are strips of paper."""

    def shape(self, outline, color, edge=INK):
        closed = np.concatenate([np.asarray(outline), np.asarray(outline)[:1]])
        cut = self.by_hand(closed, 0.003)
        shadow = cv2.GaussianBlur(self.canvas.polygon(cut + 0.011), (0, 0), 0.006 * self.canvas.unit)
        self.canvas.paint(0.45 * shadow, (20, 18, 22))
        fibers = np.asarray(color, np.float32) + 16 * (self.canvas.grain[..., None] - 0.5)
        self.canvas.paint(self.canvas.polygon(cut), fibers)

    def line(self, points, color=INK, width=0.02):
        for a, b in pairwise(np.asarray(points, np.float64)):
            self.shape(limb(a, b, width, width), color)


class Chalk(Pen):
    """Chalk on a board: outlines in the color, areas only lightly rubbed in."""

    def shape(self, outline, color, edge=INK):
        closed = np.concatenate([np.asarray(outline), np.asarray(outline)[:1]])
        dusty = np.clip((self.canvas.grain - 0.35) * 4, 0, 1)
        mask = self.canvas.polygon(outline)
        self.canvas.paint(mask, WIPED_BOARD)
        self.canvas.paint(0.75 * self.hatching(mask, 0.028, 0.018, 0.005) * dusty, color)
        self.line(closed, color, 0.014)

    def line(self, points, color=INK, width=0.014):
        color = (235, 235, 228) if color == INK else color
        dusty = np.clip((self.canvas.grain - 0.18) * 4, 0, 1)
        self.canvas.paint(0.9 * self.canvas.stroke(self.by_hand(points, 0.003), width) * dusty, color)


class Pencil(Pen):
    """Gray pencil: several thin lines, areas hatched in gray."""

    def shape(self, outline, color, edge=INK):
        closed = np.concatenate([np.asarray(outline), np.asarray(outline)[:1]])
        mask = self.canvas.polygon(outline)
        self.canvas.paint(0.9 * mask, DRAWING_PAPER)
        gray = float(np.dot(color, (0.3, 0.6, 0.1)))
        dark = 1 - gray / 255
        self.canvas.paint(0.55 * self.hatching(mask, 0.02 - 0.008 * dark, 0.005 + 0.008 * dark, 0.002), (95, 95, 102))
        self.line(closed, edge or INK, 0.008)

    def line(self, points, color=INK, width=0.008):
        soft = np.clip((self.canvas.grain - 0.1) * 4, 0, 1)
        for _ in range(2):
            thin = self.canvas.stroke(self.by_hand(points, 0.003), min(width, 0.009))
            self.canvas.paint(0.7 * thin * soft, (62, 62, 70))


# --------------------------------------------------------------------------------------------------------------- shapes
def circle(center: Point, radius: float, corners: int = 40) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    return np.asarray(center) + radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def box(center: Point, width: float, height: float, turn: float = 0.0) -> np.ndarray:
    """A rectangle, turned by `turn` radians."""
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * (width / 2, height / 2)
    spin = np.array([(np.cos(turn), np.sin(turn)), (-np.sin(turn), np.cos(turn))])
    return np.asarray(center) + corners @ spin


def limb(begin: np.ndarray | Point, end: np.ndarray | Point, width: float, end_width: float) -> np.ndarray:
    """A bar from one point to another."""
    begin, end = np.asarray(begin, np.float64), np.asarray(end, np.float64)
    along = (end - begin) / max(float(np.linalg.norm(end - begin)), 1e-9)
    side = np.array([-along[1], along[0]])
    return np.stack(
        [begin + side * width / 2, end + side * end_width / 2, end - side * end_width / 2, begin - side * width / 2]
    )


def star(center: Point, radius: float, points: int = 5) -> np.ndarray:
    angle = np.linspace(-np.pi / 2, 1.5 * np.pi, 2 * points, endpoint=False)
    length = np.where(np.arange(2 * points) % 2, 0.45 * radius, radius)
    return np.asarray(center) + length[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def thick(joints: Sequence[Point], width: float, canvas: Canvas) -> Bool[np.ndarray, "h w"]:
    """True within width / 2 of a line."""
    return canvas.stroke(joints, width) > 0
