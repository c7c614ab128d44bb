"""Table, drawers, floor, wall and clutter as MJCF. The only module that depends on the kind of layout."""

import numpy as np

from genie_datasets.tabletop.scene import NUM_DRAWERS, TABLE_TOP, FurnitureConfig
from genie_datasets.tabletop.xml_text import Rgb, numbers

STATIC_GROUP = 0  # furniture casts no shadow: with its shadow, OpenGL is several times slower
DRAWER_TRAVEL = 0.20  # m
DRAWER_NAMES = ("top", "middle", "bottom")
DRAWER_HEIGHT = 0.17  # m from one drawer to the next
TOP_DRAWER = 0.625  # m; height of the center of the top drawer's front
FRONT_SETBACK = 0.02  # m from the edge of the table top to the drawer fronts
HANDLE_DEPTH = 0.045  # m
ROOM_CENTER, ROOM_SIZE = (0.56, 0.0), 1.9  # m; half the side of a room

FURNITURE_DEFAULTS = f"""
    <default class="static">
      <geom contype="1" conaffinity="3" group="{STATIC_GROUP}" castshadow="false" material="matte"/>
    </default>
    <default class="drawer">
      <geom contype="8" conaffinity="3" group="{STATIC_GROUP}" castshadow="false" material="matte" density="300"/>
      <joint type="slide" axis="-1 0 0" range="0 {DRAWER_TRAVEL}" limited="true" damping="12" frictionloss="1.5"/>
    </default>"""


def paint(color: Rgb, brightness: float = 1.0) -> str:
    """The attribute that gives a geom its color."""
    return f'rgba="{numbers(min(1.0, channel * brightness) for channel in color)} 1"'


def _box(half_size, center, attributes: str, geom_class: str = "static") -> str:
    return f'<geom type="box" size="{numbers(half_size)}" pos="{numbers(center)}" {attributes} class="{geom_class}"/>'


def drawer_names(config: FurnitureConfig) -> tuple[str, ...]:
    """Names of the drawer joints, from the top. Only a desk has drawers."""
    return tuple(f"drawer{i}" for i in range(NUM_DRAWERS)) if config.layout == "desk" else ()


def handle_position(config: FurnitureConfig, drawer: int) -> np.ndarray:
    """Center (3,) in m of a closed drawer's handle."""
    front = config.x[0] + FRONT_SETBACK - 0.012
    return np.array([front - HANDLE_DEPTH, 0.0, TOP_DRAWER - drawer * DRAWER_HEIGHT])


def _drawer(config: FurnitureConfig, index: int) -> str:
    """One drawer that slides toward the camera: a front, a handle and an open box."""
    width = config.y - 0.05
    depth = min(0.46, config.x[1] - config.x[0] - 0.10)
    front = config.x[0] + FRONT_SETBACK
    z = TOP_DRAWER - index * DRAWER_HEIGHT
    half = DRAWER_HEIGHT / 2 - 0.005
    inner, handle = paint(config.front_color, 1.5), paint((0.56, 0.54, 0.50))
    parts = [
        _box((0.012, width, half), (0, 0, 0), paint(config.front_color, 1.3), "drawer"),
        _box((depth / 2, width - 0.02, 0.006), (depth / 2, 0, -half + 0.012), inner, "drawer"),
        _box((depth / 2, 0.006, 0.05), (depth / 2, width - 0.026, -half + 0.06), inner, "drawer"),
        _box((depth / 2, 0.006, 0.05), (depth / 2, 0.026 - width, -half + 0.06), inner, "drawer"),
        _box((0.006, width - 0.02, 0.05), (depth, 0, -half + 0.06), inner, "drawer"),
    ]
    # An upright bar between two posts: the fingers open to the left and right and close on it.
    for up in (-0.03, 0.03):
        parts.append(_box((HANDLE_DEPTH / 2, 0.006, 0.006), (-0.012 - HANDLE_DEPTH / 2, 0, up), handle, "drawer"))
    parts.append(
        _box((0.007, 0.009, 0.042), (-0.012 - HANDLE_DEPTH, 0, 0), handle + ' friction="2 .05 .002"', "drawer")
    )
    inside = "\n      ".join(parts)
    return f"""
    <body name="drawer{index}" pos="{numbers((front, 0, z))}">
      <joint name="drawer{index}" class="drawer"/>
      {inside}
    </body>"""


def _base(config: FurnitureConfig) -> tuple[list[str], str]:
    """Everything under the table top: (geoms, bodies)."""
    near, far = config.x
    middle, half = (far + near) / 2, (far - near) / 2
    front, shade = paint(config.front_color), paint(config.front_color, 0.6)
    if config.layout == "desk":
        side = (half - 0.02, 0.012, 0.36)
        geoms = [
            _box(side, (middle + 0.01, config.y - 0.025, 0.36), front),
            _box(side, (middle + 0.01, 0.025 - config.y, 0.36), front),
            _box((0.012, config.y - 0.03, 0.36), (far - 0.02, 0, 0.36), shade),
            _box((half - 0.03, config.y - 0.03, 0.07), (middle + 0.01, 0, 0.07), front),
        ]
        return geoms, "".join(_drawer(config, i) for i in range(NUM_DRAWERS))
    if config.layout == "counter":
        geoms = [_box((half - 0.03, config.y, 0.36), (middle + 0.02, 0, 0.36), front)]
        for i in range(-3, 4):
            geoms.append(_box((0.004, 0.23, 0.30), (near + 0.048, 0.48 * i, 0.38), paint(config.front_color, 1.15)))
            geoms.append(_box((0.008, 0.008, 0.06), (near + 0.035, 0.48 * i + 0.19, 0.60), paint((0.7, 0.7, 0.7))))
        return geoms, ""
    if config.x[0] < 0.38:  # the `easy` table, whose underside is outside the image
        return [_box((half - 0.03, config.y - 0.03, 0.34), (middle + 0.01, 0, 0.36), shade)], ""
    geoms = [
        _box((0.025, 0.025, 0.355), (x, y, 0.355), shade)
        for x in (near + 0.06, far - 0.06)
        for y in (config.y - 0.06, 0.06 - config.y)
    ]
    return [*geoms, _box((half - 0.05, config.y - 0.05, 0.03), (middle, 0, TABLE_TOP - 0.07), front)], ""


def _background(config: FurnitureConfig) -> list[str]:
    """Wall, rail and clutter behind the table."""
    if config.layout == "counter":
        far = config.x[1]
        tiles = paint(config.wall_color, 2.0)
        parts = [_box((0.02, 2.5, 0.5), (far + 0.02, 0, TABLE_TOP + 0.35), tiles)]
        parts += [_box((0.14, 2.5, 0.30), (far - 0.12, 0, TABLE_TOP + 0.80), paint(config.front_color))]
        where = (far - 0.16, far - 0.06)
    elif config.room:
        parts, where = _room(config), (1.38, 1.8)
    else:
        parts = [
            _box((0.03, 2.5, 1.2), (1.95, 0, 1.2), paint(config.wall_color)),
            _box((0.02, 1.8, 0.03), (1.30, 0, 0.93), paint(config.front_color)),
        ]
        where = (1.38, 1.8)
    rng = np.random.default_rng([config.clutter_seed, 77])
    for number in range(config.clutter):
        half = rng.uniform(0.04, 0.16, 3) * (0.35 if config.layout == "counter" else 1.0)
        at = (rng.uniform(*where), rng.uniform(-1.1, 1.1))
        gray, hue, is_round = rng.uniform(0.10, 0.55), rng.uniform(-0.06, 0.06, 3), rng.random() < 0.3
        color: Rgb = tuple(np.clip(gray + hue, 0.02, 0.9))  # type: ignore[assignment]
        floor = TABLE_TOP if config.layout == "counter" or number % 2 else 0.35
        if is_round:
            parts.append(
                f'<geom type="cylinder" size="{numbers(half[:2])}" pos="{numbers((*at, floor + half[1]))}"'
                f' {paint(color)} class="static"/>'
            )
        else:
            parts.append(_box(half, (*at, floor + half[2]), paint(color)))
    return parts + _table_clutter(config)


def _room(config: FurnitureConfig) -> list[str]:
    """Four walls around the table, so that a camera on any side sees one behind it."""
    surface = f'material="{config.room}"' if config.room != "plain" else paint(config.wall_color) + ' material="matte"'
    x, y = ROOM_CENTER
    return [
        f'<geom type="box" size="{ROOM_SIZE} {ROOM_SIZE} .01" class="static" contype="0" conaffinity="0" {surface}'
        f' pos="{numbers((x + ROOM_SIZE * dx, y + ROOM_SIZE * dy, ROOM_SIZE))}"'
        f' xyaxes="{numbers((dy, -dx, 0))} 0 0 1"/>'
        for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1))
    ]


def _table_clutter(config: FurnitureConfig) -> list[str]:
    """Small boxes along the far edge of the table, visible but without contacts."""
    rng = np.random.default_rng([config.clutter_seed, 78])
    width = min(config.y, 0.7) - 0.06
    parts = []
    for _ in range(config.table_clutter):
        half = rng.uniform(0.015, 0.055, 3)
        at = (config.x[1] - rng.uniform(0.06, 0.18), rng.uniform(-width, width), TABLE_TOP + half[2])
        color: Rgb = tuple(rng.uniform(0.05, 0.85, 3))  # type: ignore[assignment]
        parts.append(_box(half, at, paint(color) + ' contype="0" conaffinity="0"'))
    return parts


def furniture_xml(config: FurnitureConfig) -> str:
    """The furniture as elements of <worldbody>."""
    near, far = config.x
    top = (((far - near) / 2, config.y, 0.02), ((far + near) / 2, 0, TABLE_TOP - 0.02))
    geoms, bodies = _base(config)
    parts = [
        '<geom name="floor" type="plane" size="3 3 .1" pos=".5 0 0" material="floor" class="static"/>',
        _box(*top, 'name="table" material="table" castshadow="true" group="2"'),
        *geoms,
        *_background(config),
    ]
    return "\n    ".join(parts) + bodies
