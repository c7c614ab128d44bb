"""Table, drawers, floor, wall and what lies about, as MJCF; the kinds of layout differ here and nowhere else."""

import numpy as np

from genie_datasets.tabletop.scene import NUM_DRAWERS, TABLE_TOP, FurnitureConfig, Rgb

STATIC_GROUP = 0  # the furniture, which casts no shadow: with it OpenGL is several times slower
DRAWER_TRAVEL = 0.20  # m
DRAWER_NAMES = ("top", "middle", "bottom")
DRAWER_HEIGHT = 0.17  # m from one drawer to the next
TOP_DRAWER = 0.625  # m: height of the middle of the top drawer's front
FRONT_SET_BACK = 0.02  # m from the edge of the top to the drawers' fronts
HANDLE_STANDS_OUT = 0.045  # m

FURNITURE_DEFAULTS = f"""
    <default class="static">
      <geom contype="1" conaffinity="3" group="{STATIC_GROUP}" castshadow="false" material="matte"/>
    </default>
    <default class="drawer">
      <geom contype="8" conaffinity="3" group="{STATIC_GROUP}" castshadow="false" material="matte" density="300"/>
      <joint type="slide" axis="-1 0 0" range="0 {DRAWER_TRAVEL}" limited="true" damping="12" frictionloss="1.5"/>
    </default>"""


def numbers(values) -> str:
    """Numbers as MJCF writes them."""
    return " ".join(f"{v:.5g}" for v in values)


def paint(colour: Rgb, brightness: float = 1.0) -> str:
    return f'rgba="{numbers(min(1.0, c * brightness) for c in colour)} 1"'


def box(half, at, look: str, kind: str = "static") -> str:
    return f'<geom type="box" size="{numbers(half)}" pos="{numbers(at)}" {look} class="{kind}"/>'


def drawer_names(config: FurnitureConfig) -> tuple[str, ...]:
    """Names of the joints of the drawers that open, from the top: none but in a desk."""
    return tuple(f"drawer{i}" for i in range(NUM_DRAWERS)) if config.layout == "desk" else ()


def handle_position(config: FurnitureConfig, drawer: int) -> np.ndarray:
    """Middle (3,) m of a closed drawer's handle."""
    front = config.x[0] + FRONT_SET_BACK - 0.012
    return np.array([front - HANDLE_STANDS_OUT, 0.0, TOP_DRAWER - drawer * DRAWER_HEIGHT])


def _drawer(config: FurnitureConfig, index: int) -> str:
    """One drawer: front, handle, and an open box behind it that slides towards the camera."""
    width = config.y - 0.05
    depth = min(0.46, config.x[1] - config.x[0] - 0.10)
    front = config.x[0] + FRONT_SET_BACK
    z = TOP_DRAWER - index * DRAWER_HEIGHT
    half = DRAWER_HEIGHT / 2 - 0.005
    inner, handle = paint(config.front_colour, 1.5), paint((0.56, 0.54, 0.50))
    parts = [
        box((0.012, width, half), (0, 0, 0), paint(config.front_colour, 1.3), "drawer"),
        box((depth / 2, width - 0.02, 0.006), (depth / 2, 0, -half + 0.012), inner, "drawer"),
        box((depth / 2, 0.006, 0.05), (depth / 2, width - 0.026, -half + 0.06), inner, "drawer"),
        box((depth / 2, 0.006, 0.05), (depth / 2, 0.026 - width, -half + 0.06), inner, "drawer"),
        box((0.006, width - 0.02, 0.05), (depth, 0, -half + 0.06), inner, "drawer"),
    ]
    # A bar upright between two posts: the fingers, which open to left and right, close on it.
    for up in (-0.03, 0.03):
        parts.append(
            box((HANDLE_STANDS_OUT / 2, 0.006, 0.006), (-0.012 - HANDLE_STANDS_OUT / 2, 0, up), handle, "drawer")
        )
    parts.append(
        box((0.007, 0.009, 0.042), (-0.012 - HANDLE_STANDS_OUT, 0, 0), handle + ' friction="2 .05 .002"', "drawer")
    )
    inside = "\n      ".join(parts)
    return f"""
    <body name="drawer{index}" pos="{numbers((front, 0, z))}">
      <joint name="drawer{index}" class="drawer"/>
      {inside}
    </body>"""


def _under_the_top(config: FurnitureConfig) -> tuple[list[str], str]:
    """What carries the top: (geoms of the world, bodies)."""
    near, far = config.x
    middle, half = (far + near) / 2, (far - near) / 2
    front, shade = paint(config.front_colour), paint(config.front_colour, 0.6)
    if config.layout == "desk":
        side = (half - 0.02, 0.012, 0.36)
        geoms = [
            box(side, (middle + 0.01, config.y - 0.025, 0.36), front),
            box(side, (middle + 0.01, 0.025 - config.y, 0.36), front),
            box((0.012, config.y - 0.03, 0.36), (far - 0.02, 0, 0.36), shade),
            box((half - 0.03, config.y - 0.03, 0.07), (middle + 0.01, 0, 0.07), front),
        ]
        return geoms, "".join(_drawer(config, i) for i in range(NUM_DRAWERS))
    if config.layout == "counter":
        geoms = [box((half - 0.03, config.y, 0.36), (middle + 0.02, 0, 0.36), front)]
        for i in range(-3, 4):
            geoms.append(box((0.004, 0.23, 0.30), (near + 0.048, 0.48 * i, 0.38), paint(config.front_colour, 1.15)))
            geoms.append(box((0.008, 0.008, 0.06), (near + 0.035, 0.48 * i + 0.19, 0.60), paint((0.7, 0.7, 0.7))))
        return geoms, ""
    if config.x[0] < 0.38:  # the `easy` table, whose underside no picture shows
        return [box((half - 0.03, config.y - 0.03, 0.34), (middle + 0.01, 0, 0.36), shade)], ""
    geoms = [
        box((0.025, 0.025, 0.355), (x, y, 0.355), shade)
        for x in (near + 0.06, far - 0.06)
        for y in (config.y - 0.06, 0.06 - config.y)
    ]
    return [*geoms, box((half - 0.05, config.y - 0.05, 0.03), (middle, 0, TABLE_TOP - 0.07), front)], ""


def _background(config: FurnitureConfig) -> list[str]:
    """Wall, rail and clutter behind the top."""
    if config.layout == "counter":
        far = config.x[1]
        tiles = paint(config.wall_colour, 2.0)
        parts = [box((0.02, 2.5, 0.5), (far + 0.02, 0, TABLE_TOP + 0.35), tiles)]
        parts += [box((0.14, 2.5, 0.30), (far - 0.12, 0, TABLE_TOP + 0.80), paint(config.front_colour))]
        where = (far - 0.16, far - 0.06)
    else:
        parts = [
            box((0.03, 2.5, 1.2), (1.95, 0, 1.2), paint(config.wall_colour)),
            box((0.02, 1.8, 0.03), (1.30, 0, 0.93), paint(config.front_colour)),
        ]
        where = (1.38, 1.8)
    rng = np.random.default_rng([config.clutter_seed, 77])
    for number in range(config.clutter):
        half = rng.uniform(0.04, 0.16, 3) * (0.35 if config.layout == "counter" else 1.0)
        at = (rng.uniform(*where), rng.uniform(-1.1, 1.1))
        grey, hue, round_one = rng.uniform(0.10, 0.55), rng.uniform(-0.06, 0.06, 3), rng.random() < 0.3
        colour: Rgb = tuple(np.clip(grey + hue, 0.02, 0.9))  # type: ignore[assignment]
        floor = TABLE_TOP if config.layout == "counter" or number % 2 else 0.35
        if round_one:
            parts.append(
                f'<geom type="cylinder" size="{numbers(half[:2])}" pos="{numbers((*at, floor + half[1]))}"'
                f' {paint(colour)} class="static"/>'
            )
        else:
            parts.append(box(half, (*at, floor + half[2]), paint(colour)))
    return parts + _on_the_far_edge(config)


def _on_the_far_edge(config: FurnitureConfig) -> list[str]:
    """Small things that nothing touches: they are for the eye alone."""
    rng = np.random.default_rng([config.clutter_seed, 78])
    width = min(config.y, 0.7) - 0.06
    parts = []
    for _ in range(config.table_clutter):
        half = rng.uniform(0.015, 0.055, 3)
        at = (config.x[1] - rng.uniform(0.06, 0.18), rng.uniform(-width, width), TABLE_TOP + half[2])
        colour: Rgb = tuple(rng.uniform(0.05, 0.85, 3))  # type: ignore[assignment]
        parts.append(box(half, at, paint(colour) + ' contype="0" conaffinity="0"'))
    return parts


def furniture_xml(config: FurnitureConfig) -> str:
    """The furniture as elements of <worldbody>."""
    near, far = config.x
    top = (((far - near) / 2, config.y, 0.02), ((far + near) / 2, 0, TABLE_TOP - 0.02))
    geoms, bodies = _under_the_top(config)
    parts = [
        '<geom name="floor" type="plane" size="3 3 .1" pos=".5 0 0" material="floor" class="static"/>',
        box(*top, 'name="table" material="table" castshadow="true" group="2"'),
        *geoms,
        *_background(config),
    ]
    return "\n    ".join(parts) + bodies
