"""What a scene is made of. How one is drawn from a family and a seed is in `factors`.

Base frame: x away from the camera, y to the left, z up, metres; the origin is on the floor under the camera.
"""

import dataclasses
import json
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Literal

from genie_datasets.tabletop.arm import ArmConfig
from genie_datasets.tabletop.camera import CameraConfig
from genie_datasets.tabletop.objects import ObjectConfig

Layout = Literal["table", "desk", "counter"]
MAX_OBJECTS = 6
NUM_DRAWERS = 3
TABLE_TOP = 0.75  # m
TIMESTEP = 0.005  # s

Rgb = tuple[float, float, float]
Vector = tuple[float, float, float]


@dataclass(frozen=True)
class FurnitureConfig:
    """The table and what stands around it.

    table: a wide top; desk: a chest whose three drawers open, as in RT-1's videos; counter: a long top before a
    tiled wall.
    """

    layout: Layout = "table"
    x: tuple[float, float] = (0.34, 1.06)  # m: near and far edge of the top
    y: float = 0.52  # m: half its width
    table_pattern: str = "plain"
    table_contrast: float = 0.06
    floor_pattern: str = "speckle"
    floor_contrast: float = 0.08
    texture_seed: int = 0
    table_colour: Rgb = (0.72, 0.70, 0.67)
    front_colour: Rgb = (0.45, 0.42, 0.40)
    wall_colour: Rgb = (0.17, 0.16, 0.16)
    floor_colour: Rgb = (0.50, 0.45, 0.40)
    clutter: int = 5  # boxes against the wall
    table_clutter: int = 0  # small things along the far edge of the top, out of the robot's reach
    clutter_seed: int = 0


@dataclass(frozen=True)
class LightConfig:
    """Two lamps and light from everywhere. The first lamp casts shadows; with `soft` the second does too."""

    position: Vector = (0.35, 0.30, 2.60)
    colour: Rgb = (0.41, 0.40, 0.38)
    second: Vector = (0.65, -0.25, 2.70)
    second_colour: Rgb = (0.0, 0.0, 0.0)
    ambient: float = 0.52
    soft: bool = False


@dataclass(frozen=True)
class DistractorConfig:
    """Somebody who walks to and fro behind the table: moves that have nothing to do with the robot."""

    colour: Rgb = (0.25, 0.30, 0.45)
    x: float = 1.35  # m
    reach: float = 0.55  # m to either side
    period: float = 8.0  # s
    phase: float = 0.0  # rad


@dataclass(frozen=True)
class Box:
    """Where something may be: low and high corner, m."""

    low: Vector
    high: Vector


@dataclass(frozen=True)
class SceneConfig:
    """Everything that is the same in all episodes of one scene."""

    family: str
    seed: int
    furniture: FurnitureConfig = field(default_factory=FurnitureConfig)
    light: LightConfig = field(default_factory=LightConfig)
    camera: CameraConfig = field(default_factory=CameraConfig)
    arm: ArmConfig = field(default_factory=ArmConfig)
    objects: tuple[ObjectConfig, ...] = ()
    distractor: DistractorConfig | None = None
    work: Box = Box((0.43, -0.17, TABLE_TOP + 0.025), (0.70, 0.17, TABLE_TOP + 0.25))  # where play and objects are
    limits: Box = Box((0.43, -0.17, TABLE_TOP + 0.025), (0.70, 0.17, TABLE_TOP + 0.25))  # where the tool is kept

    def to_json(self) -> str:
        """One line that `from_json` reads."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "SceneConfig":
        """The scene of `to_json`; raises ValueError, KeyError or TypeError where the text is no scene."""
        return _read(cls, json.loads(text))


def _read(kind: Any, value: Any) -> Any:
    """A JSON value as the type that a field is declared with."""
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return kind(**{name: _read(hints[name], part) for name, part in value.items()})  # type: ignore[operator]
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        return None if value is None else _read(arguments[0], value)
    if origin is tuple:
        parts = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        return tuple(_read(part, v) for part, v in zip(parts, value, strict=True))
    return value
