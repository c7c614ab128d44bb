"""The start set: pictures of other kinds than the model was trained on, drawn by this code and always the same.

    python -m genie_eval.start_pictures.drawn FOLDER      # writes them as PNG files, to look at

Children's drawings, cartoons, chalk, pencil, collages, renders of the tabletop in odd styles, and landscapes without an
arm. Everything is drawn for this project; nothing is a foreign picture.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from genie_eval.start_pictures.pens import (
    INK,
    OVERSAMPLED,
    Canvas,
    Cartoon,
    Chalk,
    Color,
    Crayon,
    Pen,
    Pencil,
    Point,
    Scissors,
    box,
    checks,
    circle,
    dots,
    limb,
    newspaper,
    rough_paper,
    ruled_paper,
    squared_paper,
    star,
    stripes,
    thick,
)
from genie_eval.start_pictures.picture import StartPicture
from genie_eval.start_pictures.renders import STYLES, odd_render

SQUARE, WIDE, TALL = (256, 256), (240, 320), (320, 240)  # (height, width), pixels
REACH_OF_HAND = 0.30  # of the picture: how far the hand may get from where it is
REACH_OF_ARM = 0.16  # half of the width of the corridor that the arm may sweep
WOOD, RED, BLUE, GREEN, YELLOW = (186, 134, 84), (214, 56, 48), (52, 98, 196), (70, 158, 82), (244, 202, 52)
ORANGE, PURPLE, PINK, TEAL, LIME = (238, 134, 44), (134, 76, 168), (240, 150, 178), (38, 132, 132), (164, 204, 70)
GRAY, SILVER, WHITE, CREAM, NAVY = (126, 128, 134), (186, 192, 200), (248, 248, 244), (250, 240, 214), (36, 52, 96)
CYAN, BROWN, SKY, SAND, MINT = (74, 182, 204), (120, 78, 48), (150, 206, 240), (232, 208, 158), (188, 226, 198)
ROSE = (238, 196, 196)
Thing = tuple[str, Point, Color]  # kind of object, its middle, its color


@dataclass(frozen=True)
class Arm:
    """A robot arm: joints from its base, often outside of the picture, to the hand."""

    joints: Sequence[Point]
    color: Color
    width: float = 0.10
    hand: Color = GRAY

    def draw(self, pen: Pen) -> None:
        joints = [np.asarray(joint) for joint in self.joints]
        for n, (a, b) in enumerate(pairwise(joints)):
            width = self.width * (1 - 0.16 * n)
            pen.shape(limb(a, b, width, 0.84 * width), self.color)
        for joint in joints[1:-1]:
            pen.disc(tuple(joint), 0.62 * self.width, self.hand)
        along = (joints[-1] - joints[-2]) / np.linalg.norm(joints[-1] - joints[-2])
        side, palm = np.array([-along[1], along[0]]), joints[-1]
        pen.shape(limb(palm - 0.1 * self.width * along, palm + 0.45 * self.width * along, 1.7 * self.width,
                       1.7 * self.width), self.hand)  # fmt: skip
        for sign in (-1, 1):
            root = palm + 0.4 * self.width * along + sign * 0.62 * self.width * side
            pen.shape(limb(root, root + 0.95 * self.width * along, 0.42 * self.width, 0.30 * self.width), self.hand)

    def reach(self, canvas: Canvas) -> np.ndarray:
        """True where the arm may come in a long dream (H, W)."""
        along = np.subtract(self.joints[-1], self.joints[-2])
        palm = np.asarray(self.joints[-1]) + self.width * along / np.linalg.norm(along)
        near = thick(list(self.joints), 2 * REACH_OF_ARM, canvas)
        near |= canvas.polygon(circle(tuple(palm), REACH_OF_HAND, 80)) > 0
        blocks = near.reshape(canvas.size[0], OVERSAMPLED, canvas.size[1], OVERSAMPLED)
        return np.asarray(blocks.any(axis=(1, 3)))


def draw_thing(pen: Pen, thing: Thing, size: float = 1.0) -> None:
    """An object on the table, about 0.1 wide."""
    kind, (x, y), color = thing
    match kind:
        case "ball":
            pen.disc((x, y), 0.052 * size, color)
        case "block":
            pen.shape(box((x, y), 0.10 * size, 0.10 * size), color)
        case "cup":
            w = 0.045 * size
            pen.line([(x + w, y - 0.03 * size), (x + 1.9 * w, y - 0.02 * size), (x + 1.8 * w, y + 0.03 * size),
                      (x + 0.8 * w, y + 0.035 * size)], color, 0.016)  # fmt: skip
            pen.shape([(x - w, y - 0.06 * size), (x + w, y - 0.06 * size), (x + 0.8 * w, y + 0.06 * size),
                       (x - 0.8 * w, y + 0.06 * size)], color)  # fmt: skip
        case "bottle":
            w, h = 0.036 * size, 0.075 * size
            pen.shape([(x - w, y + h), (x - w, y - 0.2 * h), (x - 0.4 * w, y - 0.6 * h), (x - 0.4 * w, y - 1.2 * h),
                       (x + 0.4 * w, y - 1.2 * h), (x + 0.4 * w, y - 0.6 * h), (x + w, y - 0.2 * h), (x + w, y + h)],
                      color)  # fmt: skip
        case "apple":
            pen.line([(x, y - 0.03 * size), (x + 0.015 * size, y - 0.085 * size)], BROWN, 0.014)
            pen.disc((x, y), 0.05 * size, color)
            pen.shape(box((x + 0.04 * size, y - 0.07 * size), 0.045 * size, 0.02 * size, 0.5), GREEN, None)
        case "pyramid":
            pen.shape([(x - 0.06 * size, y + 0.05 * size), (x + 0.06 * size, y + 0.05 * size), (x, y - 0.065 * size)],
                      color)  # fmt: skip
        case "star":
            pen.shape(star((x, y), 0.065 * size), color)
        case "car":
            pen.shape(box((x, y), 0.15 * size, 0.05 * size), color)
            pen.shape(box((x - 0.01 * size, y - 0.045 * size), 0.075 * size, 0.045 * size), color)
            for wheel in (-0.045, 0.045):
                pen.disc((x + wheel * size, y + 0.03 * size), 0.022 * size, INK)
        case _:
            raise ValueError(f"unknown thing {kind!r}")


def table(pen: Pen, color: Color, top: float, front: float, inset: float = 0.12) -> None:
    """A table seen from the front and above: its top is a trapezoid, with two legs."""
    legs = (0.72 * color[0], 0.72 * color[1], 0.72 * color[2])
    for x in (0.10, 0.90):
        pen.shape(box((x, (front + 1.12) / 2), 0.06, 1.12 - front), legs)
    pen.shape([(inset, top), (1 - inset, top), (1.0, front), (0.0, front)], color)
    pen.shape([(0.0, front), (1.0, front), (1.0, front + 0.045), (0.0, front + 0.045)], legs)


def sun(pen: Pen, center: Point, radius: float = 0.07) -> None:
    for angle in np.linspace(0, 2 * np.pi, 10, endpoint=False):
        away = np.array([np.cos(angle), np.sin(angle)])
        pen.line(np.asarray(center) + radius * np.outer((1.35, 1.9), away), ORANGE, 0.018)
    pen.disc(center, radius, YELLOW, ORANGE)


def cloud(pen: Pen, center: Point, color: Color = WHITE) -> None:
    lobes = [circle((center[0] + dx, center[1] + dy), r, 24) for dx, dy, r in
             ((-0.07, 0.01, 0.04), (0.0, -0.015, 0.055), (0.07, 0.01, 0.042))]  # fmt: skip
    hull = cv2.convexHull(np.concatenate(lobes).astype(np.float32))[:, 0]
    pen.shape(hull, color, (120, 150, 190))


def window(pen: Pen, center: Point, width: float = 0.2, height: float = 0.2, glass: Color = SKY) -> None:
    pen.shape(box(center, width, height), glass)
    pen.line([(center[0], center[1] - height / 2), (center[0], center[1] + height / 2)])
    pen.line([(center[0] - width / 2, center[1]), (center[0] + width / 2, center[1])])


def flower(pen: Pen, foot: Point, color: Color, height: float = 0.16) -> None:
    x, y = foot
    pen.line([(x, y), (x, y - height)], GREEN, 0.016)
    for angle in np.linspace(0, 2 * np.pi, 5, endpoint=False):
        pen.disc((x + 0.03 * np.cos(angle), y - height + 0.03 * np.sin(angle)), 0.022, color, None)
    pen.disc((x, y - height), 0.02, YELLOW, None)


def house(pen: Pen, foot: Point, color: Color, roof: Color, size: float = 1.0) -> None:
    x, y = foot
    pen.shape(box((x, y - 0.09 * size), 0.2 * size, 0.18 * size), color)
    pen.shape([(x - 0.13 * size, y - 0.18 * size), (x + 0.13 * size, y - 0.18 * size), (x, y - 0.31 * size)], roof)
    pen.shape(box((x + 0.04 * size, y - 0.055 * size), 0.05 * size, 0.11 * size), BROWN)
    pen.shape(box((x - 0.045 * size, y - 0.11 * size), 0.05 * size, 0.05 * size), SKY)


def tree(pen: Pen, foot: Point, size: float = 1.0, crown: Color = GREEN) -> None:
    x, y = foot
    pen.shape(box((x, y - 0.07 * size), 0.04 * size, 0.14 * size), BROWN)
    pen.disc((x, y - 0.19 * size), 0.085 * size, crown)


def bird(pen: Pen, center: Point) -> None:
    x, y = center
    pen.line([(x - 0.04, y - 0.02), (x, y + 0.01), (x + 0.04, y - 0.02)], INK, 0.012)


# ------------------------------------------------------------------------------------------------------------- pictures
@dataclass(frozen=True)
class Drawing:
    """How one picture is made: paper, pen, what is behind, the table, things on it, the arm."""

    name: str
    kind: str
    size: tuple[int, int]
    paper: Color
    pen: Callable[[Canvas], Pen]
    arm: Arm | None = None
    things: tuple[Thing, ...] = ()
    prepare: Callable[[Canvas], None] = lambda canvas: None
    behind: Callable[[Pen], None] = lambda pen: None

    def make(self, seed: int) -> StartPicture:
        canvas = Canvas(self.size, self.paper, np.random.default_rng(seed))
        self.prepare(canvas)
        pen = self.pen(canvas)
        self.behind(pen)
        for thing in self.things:
            draw_thing(pen, thing)
        reach = np.zeros(self.size, bool)
        if self.arm is not None:
            self.arm.draw(pen)
            reach = self.arm.reach(canvas)
        return StartPicture(self.name, self.kind, canvas.finished(), self.arm is not None, reach)


def together(*parts: Callable[[Pen], None]) -> Callable[[Pen], None]:
    def draw(pen: Pen) -> None:
        for part in parts:
            part(pen)

    return draw


def floor(color: Color, top: float) -> Callable[[Pen], None]:
    """A flat area from `top` down, as wide as the picture."""
    return lambda pen: pen.shape([(-0.3, top), (1.3, top), (1.3, 1.3), (-0.3, 1.3)], color, None)


FROM_LEFT = ((-0.2, 0.22), (0.16, 0.16), (0.44, 0.38))
FROM_RIGHT = ((1.2, 0.26), (0.86, 0.14), (0.58, 0.36))
FROM_TOP = ((0.40, -0.2), (0.40, 0.10), (0.52, 0.34))
FROM_BELOW = ((0.66, 1.2), (0.72, 0.82), (0.54, 0.58))
THREE: tuple[Thing, ...] = (("ball", (0.22, 0.66), RED), ("block", (0.50, 0.70), BLUE), ("cup", (0.80, 0.64), GREEN))

DRAWINGS = (
    # ------------------------------------------------------------------------------------------- a child's drawing, wax
    Drawing("crayon, arm from the left", "crayon", SQUARE, WHITE, Crayon, Arm(FROM_LEFT, BLUE), THREE,
            behind=together(lambda p: sun(p, (0.86, 0.13)), lambda p: table(p, WOOD, 0.55, 0.80))),
    Drawing("crayon, arm from the right", "crayon", SQUARE, CREAM, Crayon, Arm(FROM_RIGHT, RED),
            (("apple", (0.26, 0.62), RED), ("bottle", (0.46, 0.66), GREEN), ("pyramid", (0.74, 0.70), PURPLE)),
            rough_paper, together(lambda p: window(p, (0.22, 0.22)), lambda p: table(p, ORANGE, 0.54, 0.82))),
    Drawing("crayon, arm from above", "crayon", WIDE, WHITE, Crayon, Arm(FROM_TOP, GREEN, 0.09),
            (("star", (0.20, 0.66), YELLOW), ("block", (0.38, 0.72), RED), ("ball", (0.82, 0.66), PURPLE)),
            squared_paper, together(lambda p: flower(p, (0.92, 0.42), PINK), lambda p: table(p, BROWN, 0.55, 0.80))),
    Drawing("crayon, on brown paper", "crayon", SQUARE, (196, 160, 116), Crayon, Arm(FROM_LEFT, WHITE),
            (("cup", (0.28, 0.66), WHITE), ("apple", (0.56, 0.68), RED), ("block", (0.82, 0.66), YELLOW)),
            rough_paper, together(lambda p: cloud(p, (0.80, 0.16)), lambda p: table(p, TEAL, 0.55, 0.80))),
    Drawing("crayon, in a notebook", "crayon", SQUARE, WHITE, Crayon, Arm(FROM_RIGHT, PURPLE, 0.09),
            (("car", (0.24, 0.66), RED), ("ball", (0.50, 0.70), ORANGE), ("bottle", (0.84, 0.62), CYAN)),
            ruled_paper, together(lambda p: house(p, (0.26, 0.36), YELLOW, RED), lambda p: table(p, WOOD, 0.54, 0.80))),
    Drawing("crayon, whole arm on the table", "crayon", TALL, CREAM, Crayon,
            Arm(((0.84, 0.66), (0.80, 0.30), (0.48, 0.30), (0.44, 0.44)), ORANGE, 0.085),
            (("ball", (0.20, 0.66), BLUE), ("block", (0.44, 0.72), RED)),
            behind=together(lambda p: sun(p, (0.14, 0.12)), lambda p: bird(p, (0.40, 0.10)),
                            lambda p: table(p, LIME, 0.55, 0.80),
                            lambda p: p.shape(box((0.84, 0.68), 0.17, 0.08), GRAY))),
    # --------------------------------------------------------------------------------------------------------- cartoons
    Drawing("cartoon, kitchen", "cartoon", SQUARE, (252, 226, 168), Cartoon, Arm(FROM_RIGHT, SILVER),
            (("apple", (0.24, 0.64), RED), ("cup", (0.46, 0.70), BLUE), ("bottle", (0.84, 0.64), GREEN)),
            behind=together(lambda p: window(p, (0.22, 0.24), 0.24, 0.24),
                            lambda p: table(p, (206, 132, 92), 0.55, 0.82))),
    Drawing("cartoon, at night", "cartoon", WIDE, NAVY, Cartoon, Arm(FROM_LEFT, YELLOW),
            (("block", (0.26, 0.68), ORANGE), ("star", (0.58, 0.70), YELLOW), ("ball", (0.84, 0.66), PINK)),
            behind=together(lambda p: p.disc((0.84, 0.15), 0.08, CREAM),
                            *(lambda p, s=s: p.shape(star(s, 0.022), CREAM, None) for s in
                              ((0.10, 0.44), (0.62, 0.10), (0.98, 0.34), (-0.1, 0.1), (1.1, 0.12))),
                            lambda p: table(p, (96, 84, 140), 0.55, 0.80))),
    Drawing("cartoon, from below", "cartoon", SQUARE, MINT, Cartoon, Arm(FROM_BELOW, RED, 0.11),
            (("cup", (0.20, 0.36), PURPLE), ("ball", (0.46, 0.34), YELLOW), ("block", (0.84, 0.30), BLUE)),
            prepare=lambda c: dots(c, (166, 210, 182), 0.12, 0.02),
            behind=lambda p: p.shape([(0.06, 0.16), (0.94, 0.16), (1.02, 0.78), (-0.02, 0.78)], (240, 216, 184))),
    Drawing("flat, no outlines", "cartoon", SQUARE, (246, 150, 120), lambda c: Cartoon(c, 0), Arm(FROM_TOP, NAVY),
            (("ball", (0.20, 0.70), WHITE), ("pyramid", (0.46, 0.72), YELLOW), ("block", (0.82, 0.70), TEAL)),
            behind=together(lambda p: p.disc((0.80, 0.22), 0.14, (250, 196, 110), None), floor((112, 62, 96), 0.60))),
    Drawing("thick outlines", "cartoon", SQUARE, WHITE, lambda c: Cartoon(c, 0.026), Arm(FROM_LEFT, WHITE, hand=WHITE),
            (("block", (0.24, 0.70), RED), ("ball", (0.54, 0.72), YELLOW), ("cup", (0.82, 0.68), BLUE)),
            behind=together(lambda p: cloud(p, (0.76, 0.18)), lambda p: table(p, WHITE, 0.55, 0.84))),
    # --------------------------------------------------------------------------------------------------------- collages
    Drawing("collage on stripes", "collage", SQUARE, WHITE, Scissors, Arm(FROM_LEFT, RED),
            (("ball", (0.22, 0.68), BLUE), ("block", (0.52, 0.72), YELLOW), ("star", (0.82, 0.66), ORANGE)),
            prepare=lambda c: stripes(c, (SKY, WHITE)),
            behind=lambda p: p.shape([(-0.3, 0.54), (1.3, 0.57), (1.3, 1.2), (-0.3, 1.2)], WOOD)),
    Drawing("collage on dots", "collage", WIDE, (250, 214, 96), Scissors, Arm(FROM_RIGHT, TEAL),
            (("pyramid", (0.20, 0.66), RED), ("apple", (0.44, 0.70), GREEN), ("bottle", (0.84, 0.64), BLUE)),
            prepare=lambda c: dots(c, (240, 120, 96)),
            behind=lambda p: p.shape([(-0.05, 0.52), (1.05, 0.55), (1.05, 0.90), (-0.05, 0.88)], (236, 230, 220))),
    Drawing("collage on newspaper", "collage", SQUARE, (228, 222, 208), Scissors, Arm(FROM_TOP, PURPLE),
            (("cup", (0.20, 0.66), RED), ("ball", (0.42, 0.74), GREEN), ("block", (0.82, 0.70), ORANGE)), newspaper,
            lambda p: p.shape([(0.04, 0.52), (0.96, 0.55), (1.04, 0.92), (-0.06, 0.90)], (86, 146, 160))),
    Drawing("collage on checks", "collage", SQUARE, WHITE, Scissors, Arm(FROM_BELOW, GRAY, hand=INK),
            (("star", (0.18, 0.34), YELLOW), ("car", (0.46, 0.32), BLUE), ("ball", (0.84, 0.34), RED)),
            prepare=lambda c: checks(c, ((232, 92, 92), (250, 232, 226)), 0.125),
            behind=lambda p: p.shape([(0.06, 0.14), (0.94, 0.17), (0.96, 0.74), (0.04, 0.72)], (250, 246, 236))),
    # ------------------------------------------------------------------------------------------------- chalk and pencil
    Drawing("chalk on a board", "sketch", WIDE, (46, 60, 52), Chalk, Arm(FROM_LEFT, CYAN),
            (("ball", (0.22, 0.66), PINK), ("block", (0.54, 0.70), YELLOW), ("cup", (0.82, 0.64), ORANGE)),
            lambda c: rough_paper(c, 26),
            together(lambda p: sun(p, (0.86, 0.14)), lambda p: table(p, (210, 200, 180), 0.55, 0.80))),
    Drawing("pencil on paper", "sketch", SQUARE, (246, 244, 238), Pencil, Arm(FROM_RIGHT, SILVER),
            (("apple", (0.26, 0.64), (90, 90, 90)), ("bottle", (0.48, 0.68), (140, 140, 140)),
             ("block", (0.82, 0.68), (60, 60, 60))), rough_paper,
            together(lambda p: window(p, (0.24, 0.24)), lambda p: table(p, (200, 200, 200), 0.55, 0.82))),
    # ------------------------------------------------------------------------------------------ landscapes, without arm
    Drawing("landscape, hills", "landscape", WIDE, SKY, Crayon, behind=together(
        lambda p: sun(p, (0.16, 0.16), 0.08), lambda p: cloud(p, (0.66, 0.16)),
        lambda p: p.shape([(-0.3, 1.2), (-0.3, 0.6),
                           *((x, 0.58 - 0.12 * np.sin(4 * x)) for x in np.linspace(-0.2, 1.3, 24)), (1.3, 1.2)], GREEN),
        lambda p: house(p, (0.34, 0.68), ROSE, RED, 1.1),
        lambda p: tree(p, (0.74, 0.84), 1.4), lambda p: tree(p, (0.92, 0.80)),
        lambda p: flower(p, (0.14, 0.96), PURPLE), lambda p: flower(p, (0.52, 0.98), PINK))),
    Drawing("landscape, sea", "landscape", SQUARE, (250, 200, 150), lambda c: Cartoon(c, 0), behind=together(
        lambda p: p.disc((0.62, 0.40), 0.13, (250, 120, 84), None),
        floor((44, 110, 160), 0.45), floor((36, 92, 142), 0.62),
        lambda p: p.shape([(0.18, 0.66), (0.50, 0.66), (0.44, 0.74), (0.24, 0.74)], BROWN, None),
        lambda p: p.shape([(0.33, 0.30), (0.33, 0.63), (0.49, 0.63)], WHITE, None),
        lambda p: p.shape([(0.31, 0.38), (0.31, 0.63), (0.21, 0.63)], CREAM, None), floor(SAND, 0.88))),
    Drawing("landscape, town of paper", "landscape", SQUARE, (60, 66, 110), Scissors, behind=together(
        lambda p: p.disc((0.80, 0.18), 0.09, CREAM), *(
            lambda p, x=x, h=h, c=c: together(
                lambda q: q.shape(box((x, 1.05 - h / 2), 0.2, h), c),
                *(lambda q, y=y, dx=dx: q.shape(box((x + dx, y), 0.045, 0.05), YELLOW)
                  for y in np.arange(1.12 - h, 0.92, 0.13) for dx in (-0.045, 0.045)))(p)
            for x, h, c in ((0.10, 0.62, TEAL), (0.34, 0.78, PURPLE), (0.58, 0.54, RED), (0.84, 0.66, BLUE))))),
)  # fmt: skip


NUM_WITH_ARM = sum(drawing.arm is not None for drawing in DRAWINGS)
NUMBER = len(DRAWINGS) + len(STYLES)


@cache
def draw(number: int) -> StartPicture:
    """Picture `number` of the start set: the drawings with an arm, the renders, the landscapes."""
    render = number - NUM_WITH_ARM
    if 0 <= render < len(STYLES):
        return odd_render(render)
    drawing = number if render < 0 else number - len(STYLES)
    return DRAWINGS[drawing].make(seed=drawing)


def start_set(number: int | None = None) -> list[StartPicture]:
    """The start set of 24 pictures, always the same; or `number` of them, spread evenly over the kinds."""
    wanted = NUMBER if number is None else min(number, NUMBER)
    return [draw(int(n)) for n in np.unique(np.linspace(0, NUMBER - 1, wanted).round())]


def write_pictures(folder: Path) -> None:
    """Writes the start set as PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, start in enumerate(start_set()):
        name = f"{number:02} {start.name}".replace(", ", " ").replace(" ", "_")
        cv2.imwrite(str(folder / f"{name}.png"), start.picture[..., ::-1])


if __name__ == "__main__":
    write_pictures(Path(sys.argv[1]))
