"""The objects on the table: seven kinds and twelve colors, made of MJCF primitives."""

from dataclasses import dataclass

from genie_datasets.tabletop.xml_text import Rgb, rgba

COLORS: dict[str, Rgb] = {
    "red": (0.80, 0.10, 0.10),
    "green": (0.12, 0.55, 0.18),
    "blue": (0.12, 0.25, 0.75),
    "yellow": (0.92, 0.80, 0.10),
    "orange": (0.95, 0.45, 0.06),
    "purple": (0.45, 0.15, 0.60),
    "cyan": (0.10, 0.65, 0.70),
    "pink": (0.92, 0.45, 0.62),
    "brown": (0.40, 0.23, 0.12),
    "white": (0.92, 0.92, 0.90),
    "black": (0.09, 0.09, 0.10),
    "lime": (0.55, 0.80, 0.15),
}
LONG_KINDS = ("sponge", "chip bag")  # only their narrow side fits between the fingers
UPRIGHT_KINDS = ("can", "bottle", "cup")  # they stand, and can be knocked over and put upright
RADIUS = {"can": 0.030, "bottle": 0.027, "cup": 0.033}  # m, of the upright kinds
HEIGHTS = {  # m: half of the height of an object, and height above the table at which it is grasped
    "can": (0.055, 0.075),
    "bottle": (0.062, 0.060),
    "ball": (0.033, 0.036),
    "block": (0.027, 0.030),
    "sponge": (0.018, 0.022),
    "chip bag": (0.022, 0.026),
    "cup": (0.040, 0.052),
}
KINDS = tuple(HEIGHTS)
HALF_HEIGHT = {kind: half for kind, (half, _) in HEIGHTS.items()}
GRASP_HEIGHT = {kind: grasp for kind, (_, grasp) in HEIGHTS.items()}


@dataclass(frozen=True)
class ObjectConfig:
    """One object of a scene."""

    kind: str  # one of KINDS
    color: str  # a key of COLORS

    @property
    def name(self) -> str:
        """The name in instructions, such as "red can"."""
        return f"{self.color} {self.kind}"


def _geoms(kind: str, color: Rgb) -> str:
    main, light, dark = rgba(color), rgba(color, 0.5, 0.45), rgba(color, 0.55)
    metal = ".78 .78 .80 1"
    match kind:
        case "can":
            return f"""<geom type="cylinder" size=".030 .047" rgba="{main}"/>
              <geom type="cylinder" size=".0303 .010" pos="0 0 .012" rgba="{light}" class="mark"/>
              <geom type="cylinder" size=".026 .055" rgba="{metal}"/>"""
        case "bottle":
            return f"""<geom type="cylinder" size=".027 .045" pos="0 0 -.017" rgba="{main}"/>
              <geom type="capsule" size=".012" fromto="0 0 .02 0 0 .045" rgba="{main}"/>
              <geom type="cylinder" size=".014 .008" pos="0 0 .054" rgba="{dark}"/>"""
        case "ball":
            return f"""<geom type="sphere" size=".033" rgba="{main}"/>
              <geom type="sphere" size=".008" pos="0 0 .029" rgba="{dark}" class="mark"/>"""
        case "block":
            return f"""<geom type="box" size=".027 .027 .027" rgba="{main}"/>
              <geom type="box" size=".014 .014 .0275" rgba="{light}" class="mark"/>"""
        case "sponge":
            return f"""<geom type="box" size=".050 .030 .013" pos="0 0 .005" rgba="{main}"/>
              <geom type="box" size=".050 .030 .005" pos="0 0 -.013" rgba="{dark}"/>"""
        case "chip bag":
            return f"""<geom type="ellipsoid" size=".062 .036 .022" rgba="{main}"/>
              <geom type="box" size=".068 .012 .003" rgba="{light}" class="mark"/>
              <geom type="ellipsoid" size=".030 .018 .0228" rgba="{light}" class="mark"/>"""
        case "cup":
            return f"""<geom type="cylinder" size=".033 .040" rgba="{main}"/>
              <geom type="cylinder" size=".028 .0405" rgba="{dark}" class="mark"/>"""
    raise ValueError(f"unknown kind of object {kind!r}; expected one of {', '.join(KINDS)}")


def object_xml(index: int, config: ObjectConfig) -> str:
    """MJCF of a free body `object{index}` whose origin is its center."""
    return f"""
    <body name="object{index}" pos="0 0 {2 + index}" childclass="object">
      <freejoint name="object{index}"/>
      {_geoms(config.kind, COLORS[config.color])}
    </body>"""


OBJECT_DEFAULTS = """
    <default class="object"><geom density="260" friction="1 .02 .002" contype="1" conaffinity="3" group="2"/>
      <default class="mark"><geom contype="0" conaffinity="0" density="0"/></default></default>
"""
