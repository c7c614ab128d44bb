"""What a scene is made of, and how a (family, seed) draws one.

Base frame: x away from the camera, y to the left, z up, metres; the origin is on the floor under the camera.
"""

from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np

from genie_datasets.tabletop.arm import ArmConfig
from genie_datasets.tabletop.camera import CameraConfig
from genie_datasets.tabletop.objects import COLOURS, KINDS, ObjectConfig
from genie_datasets.tabletop.textures import PATTERNS

Family = Literal["easy", "rt1"]
FAMILIES: tuple[str, ...] = get_args(Family)
MAX_OBJECTS = 6
TABLE_TOP = 0.75  # m
TABLE_X = (0.34, 1.06)  # m: near and far edge
TABLE_Y = 0.52  # m: half width
TIMESTEP = 0.005  # s

Rgb = tuple[float, float, float]


@dataclass(frozen=True)
class SceneConfig:
    """Everything that is the same in all episodes of one scene."""

    family: str
    seed: int
    table_pattern: str = "plain"
    table_colour: Rgb = (0.72, 0.70, 0.67)
    table_contrast: float = 0.06
    front_colour: Rgb = (0.45, 0.42, 0.40)
    wall_colour: Rgb = (0.17, 0.16, 0.16)
    floor_colour: Rgb = (0.50, 0.45, 0.40)
    light_position: tuple[float, float, float] = (0.35, 0.30, 2.60)
    light_colour: Rgb = (0.62, 0.60, 0.57)
    ambient: float = 0.36
    camera: CameraConfig = field(default_factory=CameraConfig)
    arm: ArmConfig = field(default_factory=ArmConfig)
    objects: tuple[ObjectConfig, ...] = ()
    clutter: int = 5  # boxes against the wall


def jitter(rng: np.random.Generator, colour: Rgb, amount: float) -> Rgb:
    """A colour near `colour`: brighter or darker by up to `amount`, and a little of another hue."""
    values = np.clip(
        np.asarray(colour) + rng.uniform(-amount, amount) + rng.uniform(-amount, amount, 3) / 4, 0.03, 0.97
    )
    return tuple(float(v) for v in values.round(3))  # type: ignore[return-value]


def _sample_objects(rng: np.random.Generator, low: int, high: int) -> tuple[ObjectConfig, ...]:
    count = int(rng.integers(low, high + 1))
    kinds = rng.choice(len(KINDS), count, replace=False)
    colours = rng.choice(len(COLOURS), count, replace=False)
    return tuple(ObjectConfig(KINDS[k], list(COLOURS)[c]) for k, c in zip(kinds, colours, strict=True))


def sample_scene(family: str, seed: int) -> SceneConfig:
    """Scene number `seed` of a family, the same for ever.

    easy: one camera, one light, a pale table under a dark hand; colours, texture and objects differ between scenes.
    rt1: camera, lights, textures, colours, clutter and objects all differ.
    """
    rng = np.random.default_rng([seed, FAMILIES.index(family)])
    if family == "easy":
        tables: tuple[Rgb, ...] = ((0.74, 0.72, 0.69), (0.70, 0.62, 0.52), (0.64, 0.68, 0.72), (0.76, 0.74, 0.64))
        return SceneConfig(
            family,
            seed,
            table_pattern=str(rng.choice(("plain", "speckle", "wood", "cloth"))),
            table_colour=jitter(rng, tables[int(rng.integers(len(tables)))], 0.05),
            table_contrast=float(rng.uniform(0.02, 0.07)),
            front_colour=jitter(rng, (0.45, 0.42, 0.40), 0.08),
            wall_colour=jitter(rng, (0.17, 0.16, 0.16), 0.06),
            floor_colour=jitter(rng, (0.50, 0.45, 0.40), 0.08),
            objects=_sample_objects(rng, 3, 5),
        )
    pose = rng.normal(0, 1, 7)
    camera = CameraConfig(
        position=(0.02 + 0.02 * pose[0], 0.03 * pose[1], 1.45 + 0.03 * pose[2]),
        pitch=43.0 + 2.0 * pose[3],
        yaw=2.0 * pose[4],
        roll=1.2 * pose[5],
        fovy=float(np.clip(50.0 + 3.0 * pose[6], 44, 58)),
    )
    dark_hand = rng.random() < 0.5
    arm = ArmConfig(
        link_colour=jitter(rng, (0.80, 0.79, 0.77), 0.10),
        hand_colour=jitter(rng, (0.16, 0.16, 0.18) if dark_hand else (0.70, 0.68, 0.66), 0.06),
        finger_colour=jitter(rng, (0.90, 0.66, 0.28), 0.07),
    )
    warmth = float(rng.uniform(-0.05, 0.09))
    power = float(rng.uniform(0.42, 0.80))
    table = jitter(rng, (0.55, 0.53, 0.50), 0.18)
    return SceneConfig(
        family,
        seed,
        table_pattern=str(rng.choice(PATTERNS)),
        table_colour=table,
        table_contrast=float(rng.uniform(0.02, 0.12)),
        front_colour=jitter(rng, (0.38, 0.35, 0.33), 0.15),
        wall_colour=jitter(rng, (0.30, 0.28, 0.28), 0.20),
        floor_colour=jitter(rng, (0.50, 0.45, 0.40), 0.18),
        light_position=tuple(float(v) for v in np.array([0.4, 0.2, 2.5]) + rng.uniform(-1, 1, 3) * [0.5, 0.7, 0.4]),  # type: ignore[arg-type]
        light_colour=(power + warmth, power, power - warmth),
        ambient=float(rng.uniform(0.26, 0.48)),
        camera=camera,
        arm=arm,
        objects=_sample_objects(rng, 3, 5),
        clutter=int(rng.integers(3, 12)),
    )


def _rgb(colour: Rgb) -> str:
    return " ".join(f"{c:.3f}" for c in colour)
