"""The configuration of a scene. `factors` draws one from a family and a seed.

Base frame: x away from the camera, y to the left, z up, in meters; the origin is on the floor under the camera.
"""

import dataclasses
import json
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Literal

from genie_datasets.tabletop.arm import LATER, ArmConfig
from genie_datasets.tabletop.camera import CameraConfig
from genie_datasets.tabletop.objects import ObjectConfig
from genie_datasets.tabletop.styles import StyleConfig
from genie_datasets.tabletop.xml_text import Rgb

Layout = Literal["table", "desk", "counter"]
MAX_OBJECTS = 6
NUM_DRAWERS = 3
TABLE_TOP = 0.75  # m
TIMESTEP = 0.005  # s

Vector = tuple[float, float, float]


@dataclass(frozen=True)
class FurnitureConfig:
    """The table and its surroundings.

    Layouts: "table" has a wide top; "desk" has three drawers that open, as in RT-1's videos; "counter" has a long top
    in front of a tiled wall.
    """

    layout: Layout = "table"
    x: tuple[float, float] = (0.34, 1.06)  # m; near and far edge of the top
    y: float = 0.52  # m; half the width of the top
    table_pattern: str = "plain"
    table_contrast: float = 0.06
    floor_pattern: str = "speckle"
    floor_contrast: float = 0.08
    texture_seed: int = 0
    table_color: Rgb = (0.72, 0.70, 0.67)
    front_color: Rgb = (0.45, 0.42, 0.40)
    wall_color: Rgb = (0.17, 0.16, 0.16)
    floor_color: Rgb = (0.50, 0.45, 0.40)
    clutter: int = 5  # number of boxes against the wall
    table_clutter: int = 0  # number of small boxes along the far edge of the top, out of the robot's reach
    clutter_seed: int = 0
    room: str = field(
        default="", metadata=LATER
    )  # what covers the four walls of a room: "plain", "table" or "floor"; "": there is one wall
    texture_repeat: float = field(default=1.0, metadata=LATER)  # of table and floor, relative to the default


@dataclass(frozen=True)
class LightConfig:
    """Two lamps and ambient light. The first lamp casts shadows; with `soft` the second does too."""

    position: Vector = (0.35, 0.30, 2.60)
    color: Rgb = (0.41, 0.40, 0.38)
    second: Vector = (0.65, -0.25, 2.70)
    second_color: Rgb = (0.0, 0.0, 0.0)
    ambient: float = 0.52
    soft: bool = False
    shadows: bool = field(default=True, metadata=LATER)


@dataclass(frozen=True)
class DistractorConfig:
    """A person who walks back and forth behind the table: motion that is unrelated to the robot."""

    color: Rgb = (0.25, 0.30, 0.45)
    x: float = 1.35  # m
    reach: float = 0.55  # m to each side
    period: float = 8.0  # s
    phase: float = 0.0  # rad


@dataclass(frozen=True)
class Box:
    """An axis-aligned box: its low and high corners in m."""

    low: Vector
    high: Vector


EASY_WORK_AREA = Box((0.43, -0.17, TABLE_TOP + 0.025), (0.70, 0.17, TABLE_TOP + 0.25))


@dataclass(frozen=True)
class SceneConfig:
    """Everything that the episodes of one scene share."""

    family: str
    seed: int
    furniture: FurnitureConfig = field(default_factory=FurnitureConfig)
    light: LightConfig = field(default_factory=LightConfig)
    camera: CameraConfig = field(default_factory=CameraConfig)
    arm: ArmConfig = field(default_factory=ArmConfig)
    objects: tuple[ObjectConfig, ...] = ()
    distractor: DistractorConfig | None = None
    work: Box = EASY_WORK_AREA  # the robot plays here, and the objects are here
    limits: Box = EASY_WORK_AREA  # the tool's target stays in here
    style: StyleConfig = field(default=StyleConfig(), metadata=LATER)

    def to_json(self) -> str:
        """The scene as one line of JSON. Data sets spell its keys "colour"."""
        return json.dumps(_to_json(self), sort_keys=True).replace("color", "colour")

    @classmethod
    def from_json(cls, text: str) -> "SceneConfig":
        """The scene that `to_json` wrote. Raises ValueError, KeyError or TypeError if the text is not a scene."""
        return _from_json(cls, json.loads(text.replace("colour", "color")))


def _to_json(value: Any) -> Any:
    """Convert a dataclass to a dict; fields that were added later are left out while they have their default."""
    if not dataclasses.is_dataclass(value):
        return [_to_json(item) for item in value] if isinstance(value, tuple) else value
    parts = {field.name: (field, getattr(value, field.name)) for field in dataclasses.fields(value)}
    return {
        name: _to_json(part)
        for name, (field, part) in parts.items()
        if not (field.metadata.get("later") and part == field.default)
    }


def _from_json(field_type: Any, value: Any) -> Any:
    """Convert a JSON value to the declared type of a field."""
    if dataclasses.is_dataclass(field_type):
        hints = typing.get_type_hints(field_type)
        return field_type(**{name: _from_json(hints[name], part) for name, part in value.items()})  # type: ignore[operator]
    origin, arguments = typing.get_origin(field_type), typing.get_args(field_type)
    if origin is types.UnionType:
        return None if value is None else _from_json(arguments[0], value)
    if origin is tuple:
        types_of_items = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        return tuple(_from_json(item_type, item) for item_type, item in zip(types_of_items, value, strict=True))
    return value
