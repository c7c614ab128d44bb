"""Factors of variation: each has a switch and is drawn from the family and the seed of a scene.

Each factor has its own random stream, so that switching one on or off does not change the others.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from genie_datasets.base.errors import UserError
from genie_datasets.tabletop import wild
from genie_datasets.tabletop.arm import ArmConfig
from genie_datasets.tabletop.camera import CameraConfig
from genie_datasets.tabletop.objects import COLORS, KINDS, ObjectConfig
from genie_datasets.tabletop.scene import TABLE_TOP, Box, DistractorConfig, FurnitureConfig, LightConfig, SceneConfig
from genie_datasets.tabletop.textures import PATTERNS
from genie_datasets.tabletop.xml_text import Rgb

Behavior = Literal["play", "expert", "mixed"]


@dataclass(frozen=True)
class Factors:
    """A switch for each factor (True: it differs between scenes), and the behavior of the robot.

    The names are stored in data sets, hence their spelling.
    """

    layout: bool = True  # kind of furniture
    textures: bool = True
    colours: bool = True  # of furniture, arm and objects
    lighting: bool = True
    camera: bool = True
    clutter: bool = True
    distractor: bool = True  # a person walks behind the table in half of the scenes; False: in none
    behaviour: Behavior = "mixed"  # play: single moves; expert: one skill after another; mixed: a skill, then play
    style: bool = False  # how frames are drawn; False: as rendered

    def to_json(self) -> str:
        """The switches as JSON, as data sets store them; `style` is left out while it is off, as in old data sets."""
        return json.dumps({name: value for name, value in asdict(self).items() if name != "style" or value})


FAMILY_FACTORS = {
    "easy": Factors(layout=False, lighting=False, camera=False, clutter=False, distractor=False),
    "rt1": Factors(),
    "wild": Factors(distractor=False, style=True),
}

# ---------------------------------------------------------------------------------------------------------- nominal
RT1_CAMERA = CameraConfig(position=(-0.05, 0.0, 1.48), pitch=45.5, fovy=53.0, small_zoom=1.15)
RT1_LIGHT = LightConfig(
    position=(0.55, 0.25, 2.6), color=(0.30, 0.28, 0.25), second_color=(0.26, 0.24, 0.21), ambient=0.52, soft=True
)
RT1_ARM = ArmConfig(
    shoulder=(0.36, -0.58, 1.08),
    link_color=(0.80, 0.77, 0.72),
    joint_color=(0.74, 0.71, 0.66),
    hand_color=(0.70, 0.67, 0.62),
    finger_color=(0.86, 0.66, 0.32),
    slimness=0.82,
    pedestal=False,
)
RT1_WORK = Box((0.52, -0.20, TABLE_TOP + 0.025), (0.80, 0.20, TABLE_TOP + 0.25))
DESK_LIMITS = Box((0.20, -0.20, 0.34), (0.80, 0.20, TABLE_TOP + 0.25))  # includes the drawers
DESK = FurnitureConfig(
    layout="desk",
    x=(0.47, 1.17),
    y=0.45,
    table_color=(0.46, 0.42, 0.38),
    front_color=(0.36, 0.33, 0.30),
    wall_color=(0.16, 0.14, 0.13),
    floor_color=(0.62, 0.55, 0.46),
    clutter=9,
)
EASY_TABLES: tuple[Rgb, ...] = ((0.74, 0.72, 0.69), (0.70, 0.62, 0.52), (0.64, 0.68, 0.72), (0.76, 0.74, 0.64))
RT1_TABLES: tuple[Rgb, ...] = ((0.46, 0.42, 0.38), (0.52, 0.42, 0.32), (0.34, 0.30, 0.28), (0.60, 0.57, 0.53))


def nominal_scene(family: str, seed: int) -> SceneConfig:
    """The scene of a family before any factor is drawn. It has no objects."""
    if family in ("easy", "wild"):
        return SceneConfig(family, seed)
    return SceneConfig(family, seed, DESK, RT1_LIGHT, RT1_CAMERA, RT1_ARM, work=RT1_WORK, limits=DESK_LIMITS)


# ------------------------------------------------------------------------------------------------------------ draws
# Each `draw_*` function takes a random generator, the scene so far and the nominal scene of its family, and returns the
# fields of the scene that change.


def jitter(rng: np.random.Generator, color: Rgb, amount: float) -> Rgb:
    """Draw a color close to `color`: brightness differs by up to `amount`, hue by a quarter of it."""
    values = np.clip(np.asarray(color) + rng.uniform(-amount, amount) + rng.uniform(-amount, amount, 3) / 4, 0.03, 0.97)
    return tuple(float(v) for v in values.round(3))  # type: ignore[return-value]


def _round(value: float) -> float:
    return float(np.round(value, 3))


def _rounded(values: Any) -> Any:
    return tuple(float(v) for v in np.round(values, 4))


def draw_layout(rng: np.random.Generator, scene: SceneConfig, nominal: SceneConfig) -> dict:
    layout = str(rng.choice(("desk", "table", "counter"), p=(0.6, 0.2, 0.2)))
    if layout == "desk":
        x, y = DESK.x, _round(rng.uniform(0.40, 0.50))
    else:
        x, y = ((0.40, 1.12), 0.60) if layout == "table" else ((0.44, 1.20), 1.60)
    furniture = replace(scene.furniture, layout=layout, x=x, y=y)  # type: ignore[arg-type]
    return {"furniture": furniture, "work": RT1_WORK, "limits": DESK_LIMITS if layout == "desk" else RT1_WORK}


def draw_textures(rng: np.random.Generator, scene: SceneConfig, nominal: SceneConfig) -> dict:
    easy = scene.family == "easy"
    patterns = ("plain", "speckle", "wood", "cloth") if easy else PATTERNS
    return {
        "furniture": replace(
            scene.furniture,
            table_pattern=str(rng.choice(patterns)),
            table_contrast=round(rng.uniform(0.02, 0.07 if easy else 0.12), 3),
            floor_pattern="speckle" if easy else str(rng.choice(("speckle", "cloth", "check"))),
            floor_contrast=0.08 if easy else round(rng.uniform(0.05, 0.14), 3),
            texture_seed=int(rng.integers(1 << 30)),
        )
    }


def draw_colors(rng: np.random.Generator, scene: SceneConfig, nominal: SceneConfig) -> dict:
    furniture, base, arm, easy = scene.furniture, nominal.furniture, nominal.arm, scene.family == "easy"
    tables, amounts = (EASY_TABLES, (0.05, 0.08, 0.06, 0.08)) if easy else (RT1_TABLES, (0.08, 0.10, 0.10, 0.12))
    furniture = replace(
        furniture,
        table_color=jitter(rng, tables[int(rng.integers(len(tables)))], amounts[0]),
        front_color=jitter(rng, base.front_color, amounts[1]),
        wall_color=jitter(rng, base.wall_color, amounts[2]),
        floor_color=jitter(rng, base.floor_color, amounts[3]),
    )
    if not easy:  # in `easy` the hand stays dark, in contrast to its pale tables
        arm = replace(
            arm,
            link_color=jitter(rng, arm.link_color, 0.06),
            hand_color=jitter(rng, (0.20, 0.19, 0.19) if rng.random() < 0.25 else arm.hand_color, 0.05),
            finger_color=jitter(rng, arm.finger_color, 0.06),
        )
    names = rng.choice(list(COLORS), len(scene.objects), replace=False)
    objects = tuple(replace(item, color=str(name)) for item, name in zip(scene.objects, names, strict=True))
    return {"furniture": furniture, "arm": arm, "objects": objects}


def draw_lighting(rng: np.random.Generator, scene: SceneConfig, nominal: SceneConfig) -> dict:
    light = nominal.light
    warmth, power = rng.uniform(-0.03, 0.07), rng.uniform(0.75, 1.25)
    tint = np.array([warmth, 0, -warmth])
    return {
        "light": replace(
            light,
            position=_rounded(np.array(light.position) + rng.uniform(-1, 1, 3) * [0.4, 0.6, 0.3]),
            second=_rounded(np.array(light.second) + rng.uniform(-1, 1, 3) * [0.4, 0.5, 0.3]),
            color=_rounded(np.maximum(np.array(light.color) * power + tint, 0)),
            second_color=_rounded(np.array(light.second_color) * rng.uniform(0.5, 1.2)),
            ambient=_round(light.ambient * rng.uniform(0.75, 1.15)),
        )
    }


def draw_camera(rng: np.random.Generator, scene: SceneConfig, nominal: SceneConfig) -> dict:
    pose, camera = rng.normal(0, 1, 7), nominal.camera
    return {
        "camera": replace(
            camera,
            position=_rounded(np.array(camera.position) + pose[:3] * [0.02, 0.03, 0.03]),
            pitch=_round(camera.pitch + 1.5 * pose[3]),
            yaw=_round(camera.yaw + 2.0 * pose[4]),
            roll=_round(camera.roll + 1.2 * pose[5]),
            fovy=_round(camera.fovy + np.clip(2.5 * pose[6], -5, 5)),
        )
    }


def draw_clutter(rng: np.random.Generator, scene: SceneConfig, nominal: SceneConfig) -> dict:
    furniture = replace(
        scene.furniture,
        clutter=int(rng.integers(3, 16)),
        table_clutter=int(rng.integers(0, 7)),
        clutter_seed=int(rng.integers(1 << 30)),
    )
    return {"furniture": furniture}


def draw_distractor(rng: np.random.Generator, scene: SceneConfig, nominal: SceneConfig) -> dict:
    if rng.random() < 0.5:
        return {"distractor": None}
    return {
        "distractor": DistractorConfig(
            color=jitter(rng, (0.35, 0.35, 0.40), 0.25),
            x=_round(rng.uniform(1.25, 1.40)),
            reach=_round(rng.uniform(0.3, 0.8)),
            period=_round(rng.uniform(5, 14)),
            phase=_round(rng.uniform(0, 2 * np.pi)),
        )
    }


# Applied in this order, because later factors change fields that earlier ones drew.
DRAWS: dict[str, Callable[[np.random.Generator, SceneConfig, SceneConfig], dict]] = {
    "layout": draw_layout,
    "textures": draw_textures,
    "colours": draw_colors,
    "lighting": draw_lighting,
    "camera": draw_camera,
    "clutter": draw_clutter,
    "distractor": draw_distractor,
    "style": wild.draw_style,
}
WILD_DRAWS = DRAWS | {
    "layout": wild.draw_layout,
    "textures": wild.draw_textures,
    "colours": wild.draw_colors,
    "lighting": wild.draw_lighting,
    "camera": wild.draw_camera,
    "clutter": wild.draw_clutter,
}
NUM_OBJECTS = {"easy": (3, 5), "rt1": (3, 5), "wild": (0, 6)}  # fewest and most
SWITCHES = tuple(DRAWS)
OBJECTS_STREAM = 100  # kinds of objects: not a factor, they differ in every scene


def _stream(family: str, seed: int, factor: int) -> np.random.Generator:
    return np.random.default_rng([seed, list(FAMILY_FACTORS).index(family), factor])


def _objects(family: str, seed: int) -> tuple[ObjectConfig, ...]:
    """Draw NUM_OBJECTS objects of different kinds, each in the default color of its kind."""
    rng = _stream(family, seed, OBJECTS_STREAM)
    fewest, most = NUM_OBJECTS[family]
    kinds = rng.choice(len(KINDS), int(rng.integers(fewest, most + 1)), replace=False)
    return tuple(ObjectConfig(KINDS[k], list(COLORS)[k]) for k in kinds)


def redraw(scene: SceneConfig, factor: str, seed: int) -> SceneConfig:
    """Draw one factor of a scene again; `factor` is one of SWITCHES.

    All factors but "layout" leave the physics unchanged: a state recorded in `scene` can be restored in the redrawn
    scene and rendered with its light, colors or camera. Raises UserError for an unknown factor.
    """
    if factor not in SWITCHES:
        raise UserError(f"unknown factor {factor!r}; pass one of {', '.join(SWITCHES)}")
    rng = _stream(scene.family, seed, SWITCHES.index(factor))
    draws = WILD_DRAWS if scene.family == "wild" else DRAWS
    return replace(scene, **draws[factor](rng, scene, nominal_scene(scene.family, scene.seed)))


def sample_scene(family: str, seed: int, factors: Factors | None = None) -> SceneConfig:
    """Draw the scene of a family and a seed: the same arguments always give the same scene.

    Args:
        family: "easy" has one camera, one light, and a dark hand above a pale table; colors, textures and objects
            differ between scenes. In "rt1" all factors but the style differ. In "wild" every scene has another look.
        factors: the switches; the default is `FAMILY_FACTORS[family]`.

    Raises UserError for an unknown family or a negative seed.
    """
    if family not in FAMILY_FACTORS:
        raise UserError(f"unknown tabletop family {family!r}; pass one of {', '.join(FAMILY_FACTORS)}")
    if seed < 0:
        raise UserError(f"seed must be 0 or more, got {seed}")
    factors = FAMILY_FACTORS[family] if factors is None else factors
    scene = replace(nominal_scene(family, seed), objects=_objects(family, seed))
    for name in SWITCHES:
        if getattr(factors, name):
            scene = redraw(scene, name, seed)
    return scene
