"""The draws of the family `wild`: every scene has another look, and the arm enters from another side.

Each function takes a random generator, the scene so far and the nominal scene, and returns the fields that change.
"""

import colorsys
from dataclasses import replace

import numpy as np

from genie_datasets.tabletop.arm import ArmConfig
from genie_datasets.tabletop.camera import CameraConfig
from genie_datasets.tabletop.objects import COLORS
from genie_datasets.tabletop.scene import TABLE_TOP, SceneConfig
from genie_datasets.tabletop.styles import STYLE_SHARES, StyleConfig
from genie_datasets.tabletop.textures import PATTERNS, SHEET, TWO_COLOR_PATTERNS
from genie_datasets.tabletop.xml_text import Rgb

WORK_CENTER = np.array([0.565, 0.0, TABLE_TOP + 0.13])  # m
WORK_WIDTH = 0.34  # m
USUAL_YAW = (15.0, 50.0)  # degrees that most cameras turn at most: toward the shoulder, and away from it
ANY_YAW_SHARE = 0.15  # of scenes whose camera may be on any side
CLOSE_UP_SHARE = 0.20  # of scenes in which the work area reaches beyond the picture
SHEET_SHARE = 0.25  # of scenes in which table and background are one sheet
FREE_ANGLE = 40.0  # degrees between shoulder and camera, seen from the work area
MIN_CONTRAST = 0.35  # between the colors of arm and table, as a distance in RGB


def any_color(rng: np.random.Generator) -> Rgb:
    """Draw a color: saturated, pale, dark, or gray from black to white."""
    kind, hue = rng.random(), rng.random()
    if kind < 0.40:
        saturation, value = rng.uniform(0.55, 1.0), rng.uniform(0.45, 0.95)
    elif kind < 0.60:
        saturation, value = rng.uniform(0.10, 0.40), rng.uniform(0.75, 1.0)
    elif kind < 0.75:
        saturation, value = rng.uniform(0.0, 0.6), rng.uniform(0.06, 0.3)
    else:
        saturation, value = rng.uniform(0.0, 0.08), rng.uniform(0.1, 1.0)
    red, green, blue = np.round(colorsys.hsv_to_rgb(hue, saturation, value), 3)
    return float(red), float(green), float(blue)


def contrasting_color(rng: np.random.Generator, against: Rgb) -> Rgb:
    """Draw a color that differs from `against`."""
    colors = [any_color(rng) for _ in range(12)]
    distances = [float(np.linalg.norm(np.subtract(color, against))) for color in colors]
    return next((c for c, d in zip(colors, distances, strict=True) if d > MIN_CONTRAST), colors[np.argmax(distances)])


def _rounded(values) -> tuple:
    return tuple(float(v) for v in np.round(values, 3))


def draw_layout(rng: np.random.Generator, scene: SceneConfig, nominal: SceneConfig) -> dict:
    """The table's size, and the arm's side and shape: all that decides the physics."""
    side, size = (1.0 if rng.random() < 0.5 else -1.0), rng.uniform(0, 1, 3) ** 2
    default, slimness = ArmConfig(), float(np.round(np.exp(rng.uniform(np.log(0.5), np.log(1.8))), 3))
    shoulder = rng.uniform((0.22, 0.54, 1.02), (0.36, 0.62, 1.14))
    mirror = (-1, 1, -1, 1, -1, 1, -1) if side > 0 else (1,) * 7
    arm = replace(
        scene.arm,
        shoulder=_rounded(shoulder * [1, side, 1]),
        rest=tuple(angle * sign for angle, sign in zip(default.rest, mirror, strict=True)),
        slimness=slimness,
        finger_size=float(np.round(rng.uniform(0.7, 1.6), 3)),
        hand_size=float(np.round(np.clip(slimness ** rng.uniform(0, 0.6) * rng.uniform(0.85, 1.15), 0.75, 1.3), 3)),
        pedestal=bool(rng.random() < 0.5),
    )
    edges = float(np.round(0.34 - 1.2 * size[0], 3)), float(np.round(1.0 + 1.2 * size[1], 3))
    return {"arm": arm, "furniture": replace(scene.furniture, x=edges, y=float(np.round(0.45 + 1.2 * size[2], 3)))}


def draw_textures(rng: np.random.Generator, scene: SceneConfig, nominal: SceneConfig) -> dict:
    """Patterns of table, floor and walls; on a sheet, all are of one color."""
    patterns = (*PATTERNS, *TWO_COLOR_PATTERNS, *TWO_COLOR_PATTERNS, SHEET, SHEET)
    table, floor = (str(rng.choice(patterns)) for _ in range(2))
    strengths = rng.uniform(0.1, 1.0, 2) ** 1.5
    room = str(rng.choice(("plain", "table", "floor")))
    if rng.random() < SHEET_SHARE:
        table, floor, room = SHEET, SHEET, "floor"
    furniture = replace(
        scene.furniture,
        table_pattern=table,
        table_contrast=float(np.round(strengths[0] * (0.25 if table in PATTERNS else 0.8), 3)),
        floor_pattern=floor,
        floor_contrast=float(np.round(strengths[1] * (0.3 if floor in PATTERNS else 1.0), 3)),
        texture_seed=int(rng.integers(1 << 30)),
        texture_repeat=float(np.round(np.exp(rng.uniform(np.log(0.6), np.log(2.5))), 3)),
        room=room,
    )
    return {"furniture": furniture}


def draw_colors(rng: np.random.Generator, scene: SceneConfig, nominal: SceneConfig) -> dict:
    """Colors of everything; the arm's differ from the table's."""
    furniture = scene.furniture
    is_white = rng.random() < 0.3
    table: Rgb = _rounded(np.full(3, rng.uniform(0.85, 1.0))) if is_white else any_color(rng)
    colors = [any_color(rng) for _ in range(3)]
    is_sheet = furniture.table_pattern == furniture.floor_pattern == SHEET
    front, wall, floor = [table] * 3 if is_sheet else colors
    link = contrasting_color(rng, table)
    joint, ring, hand, finger = (contrasting_color(rng, table) for _ in range(4))
    one_color, has_rings = rng.random() < 0.3, rng.random() < 0.6
    if one_color:
        joint = hand = link
    if rng.random() < 0.25:
        finger = hand
    names = rng.choice(list(COLORS), len(scene.objects), replace=False)
    return {
        "furniture": replace(furniture, table_color=table, front_color=front, wall_color=wall, floor_color=floor),
        "arm": replace(
            scene.arm,
            link_color=link,
            joint_color=joint,
            hand_color=hand,
            finger_color=finger,
            ring_color=ring if has_rings else None,
        ),
        "objects": tuple(replace(item, color=str(name)) for item, name in zip(scene.objects, names, strict=True)),
    }


def draw_lighting(rng: np.random.Generator, scene: SceneConfig, nominal: SceneConfig) -> dict:
    """One or two lamps of any color on any side, from hard shadows to flat light."""
    is_flat, ambient = rng.random() < 0.2, rng.uniform(0.3, 0.85)
    tint, second_tint = (1 + rng.uniform(-0.25, 0.25, 3) * rng.random() for _ in range(2))
    power, second = (0.95 - ambient) * rng.uniform(0.6, 1.2), rng.uniform(0, 0.3) * (rng.random() < 0.5)
    places = [(0.56, 0.0, 2.3) + rng.uniform(-1, 1, 3) * (1.1, 1.1, 0.5) for _ in range(2)]
    if is_flat:
        ambient, power, second = rng.uniform(0.86, 1.0), 0.0, 0.0
    return {
        "light": replace(
            scene.light,
            position=_rounded(places[0]),
            color=_rounded(tint * power),
            second=_rounded(places[1]),
            second_color=_rounded(second_tint * second),
            ambient=float(np.round(ambient, 3)),
            shadows=bool(rng.random() < 0.6),
            soft=bool(rng.random() < 0.5),
        )
    }


def draw_camera(rng: np.random.Generator, scene: SceneConfig, nominal: SceneConfig) -> dict:
    """A camera on a sphere around the work area, where the shoulder does not hide it."""
    shoulder = np.array(scene.arm.shoulder)
    side = 1.0 if scene.arm.is_left else -1.0
    anywhere, is_close = rng.random() < ANY_YAW_SHARE, rng.random() < CLOSE_UP_SHARE
    share = rng.uniform(0.9, 1.2) if is_close else rng.uniform(0.38, 0.75)  # of the picture's width
    while True:
        toward, away = USUAL_YAW
        yaw = rng.uniform(-180, 180) if anywhere else side * rng.uniform(-toward, away)
        pitch, distance = rng.uniform(18, 82), rng.uniform(0.6, 1.3)
        target = WORK_CENTER + rng.uniform(-1, 1, 3) * (0.04, 0.04, 0.04)
        camera = CameraConfig(yaw=float(np.round(yaw, 3)), pitch=float(np.round(pitch, 3)))
        position = target + camera.axes()[:, 2] * distance
        to_shoulder, to_camera = shoulder - WORK_CENTER, position - WORK_CENTER
        cosine = to_shoulder @ to_camera / np.linalg.norm(to_shoulder) / np.linalg.norm(to_camera)
        if cosine < np.cos(np.radians(FREE_ANGLE)) and np.linalg.norm(position - shoulder) > 0.5:
            break
    half = WORK_WIDTH / (2 * share * distance)
    return {
        "camera": replace(
            camera,
            position=_rounded(position),
            roll=float(np.round(rng.normal(0, 3), 3)),
            fovy=float(np.round(np.clip(2 * np.degrees(np.arctan(half)), 14, 75), 3)),
        )
    }


def draw_clutter(rng: np.random.Generator, scene: SceneConfig, nominal: SceneConfig) -> dict:
    """Boxes in the background and on the table; a sheet is empty."""
    furniture = scene.furniture
    is_empty = furniture.table_pattern == furniture.floor_pattern == SHEET or rng.random() < 0.3
    counts = int(rng.integers(0, 13)), int(rng.integers(0, 7))
    background, table = (0, 0) if is_empty else counts
    return {
        "furniture": replace(
            furniture, clutter=background, table_clutter=table, clutter_seed=int(rng.integers(1 << 30))
        )
    }


def draw_style(rng: np.random.Generator, scene: SceneConfig, nominal: SceneConfig) -> dict:
    """The way the frames are drawn."""
    return {
        "style": StyleConfig(
            name=str(rng.choice(list(STYLE_SHARES), p=list(STYLE_SHARES.values()))),
            strength=float(np.round(rng.random(), 3)),
            seed=int(rng.integers(1 << 30)),
            gain=_rounded(rng.uniform(0.75, 1.25, 3)),
        )
    }
