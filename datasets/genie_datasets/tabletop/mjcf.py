"""A scene as MJCF, MuJoCo's XML, and as a compiled model."""

import numpy as np

from genie_datasets.tabletop.arm import ARM_DEFAULTS, arm_xml
from genie_datasets.tabletop.objects import OBJECT_DEFAULTS, object_xml
from genie_datasets.tabletop.scene import TABLE_TOP, TABLE_X, TABLE_Y, TIMESTEP, Rgb, SceneConfig, jitter
from genie_datasets.tabletop.textures import png_bytes, surface

STATIC_GROUP = 0  # the furniture, which casts no shadow: with it OpenGL is several times slower
CAMERA = "head"


def _text(values) -> str:
    """Numbers as MJCF writes them."""
    return " ".join(f"{v:.5g}" for v in values)


def _box(half, at, look: str) -> str:
    return f'<geom type="box" size="{_text(half)}" pos="{_text(at)}" {look} class="static"/>'


def _paint(colour: Rgb) -> str:
    return f'rgba="{_text(colour)} 1"'


def _furniture(config: SceneConfig) -> str:
    """Table top, a chest of drawers under its near edge, floor, wall, and things along the wall."""
    rng = np.random.default_rng([config.seed, 77])
    near, far = TABLE_X
    middle, half = (far + near) / 2, (far - near) / 2
    front = _paint(config.front_colour)
    shade = _paint((0.6 * config.front_colour[0], 0.6 * config.front_colour[1], 0.6 * config.front_colour[2]))
    handle = _paint((0.75, 0.75, 0.75))
    parts = [
        '<geom name="floor" type="plane" size="3 3 .1" pos=".5 0 0" material="floor" class="static"/>',
        _box((half, TABLE_Y, 0.02), (middle, 0, TABLE_TOP - 0.02), 'name="table" material="table"'),
        _box((half - 0.03, TABLE_Y - 0.03, 0.34), (middle + 0.01, 0, 0.36), shade),
        _box((0.03, 2.5, 1.2), (1.75, 0, 1.2), _paint(config.wall_colour)),
        _box((0.02, 0.9, 0.03), (1.30, 0, 0.93), front),
    ]
    for level in range(3):
        z = 0.60 - 0.2 * level
        parts.append(_box((0.012, TABLE_Y - 0.05, 0.088), (near + 0.03, 0, z), front))
        parts.append(_box((0.012, 0.10, 0.008), (near + 0.015, 0, z + 0.03), handle))
    for _ in range(config.clutter):
        size = rng.uniform(0.04, 0.16, 3)
        colour = jitter(rng, (0.32, 0.30, 0.30), 0.20)
        parts.append(_box(size, (rng.uniform(1.35, 1.6), rng.uniform(-0.9, 0.9), TABLE_TOP + size[2]), _paint(colour)))
    return "\n    ".join(parts)


def scene_xml(config: SceneConfig) -> tuple[str, dict[str, bytes]]:
    """The scene as (MJCF text, files it refers to)."""
    arm, actuators = arm_xml(config.arm)
    camera, axes = config.camera, config.camera.axes()
    aim = np.array([0.62, 0.0, TABLE_TOP]) - config.light_position
    ambient = _text([config.ambient] * 3)
    assets = {
        "table.png": png_bytes(surface(config.table_pattern, config.table_colour, config.table_contrast, config.seed)),
        "floor.png": png_bytes(surface("speckle", config.floor_colour, 0.08, config.seed + 1)),
    }
    things = "".join(object_xml(i, thing) for i, thing in enumerate(config.objects))
    # extent=1 makes znear metres: the extent of the floor would put the near plane behind the arm.
    # Few slices and one quad a side, since a software renderer's time goes into vertices.
    xml = f"""
<mujoco model="tabletop">
  <compiler angle="degree" autolimits="true"/>
  <option timestep="{TIMESTEP}" integrator="implicitfast" cone="elliptic" impratio="10"/>
  <statistic extent="1" center=".6 0 .8"/>
  <visual>
    <map znear=".02" zfar="6" shadowclip="1.2" shadowscale=".45"/>
    <quality shadowsize="1024" offsamples="0" numslices="16" numstacks="10" numquads="1"/>
    <headlight ambient="{ambient}" diffuse=".1 .1 .1" specular="0 0 0"/>
  </visual>
  <asset>
    <texture name="table" type="2d" file="table.png"/>
    <texture name="floor" type="2d" file="floor.png"/>
    <material name="table" texture="table" texuniform="true" texrepeat="2 2" specular=".15" shininess=".3"/>
    <material name="floor" texture="floor" texuniform="true" texrepeat="1 1" specular="0"/>
    <material name="matte" specular="0"/>
  </asset>
  <default>
    <geom condim="4"/>
    <default class="static">
      <geom contype="1" conaffinity="3" group="{STATIC_GROUP}" castshadow="false" material="matte"/>
    </default>
    {ARM_DEFAULTS}{OBJECT_DEFAULTS}
  </default>
  <worldbody>
    <light name="lamp" type="spot" pos="{_text(config.light_position)}" dir="{_text(aim)}" castshadow="true"
      diffuse="{_text(config.light_colour)}" specular=".25 .25 .25" cutoff="75" exponent="0"/>
    <camera name="{CAMERA}" pos="{_text(camera.position)}" fovy="{camera.fovy:.5g}"
      xyaxes="{" ".join(f"{v:.9g}" for v in (*axes[:, 0], *axes[:, 1]))}"/>
    {_furniture(config)}
    {arm}
    {things}
  </worldbody>
  <actuator>{actuators}</actuator>
</mujoco>"""
    return xml, assets


def compile_scene(config: SceneConfig):
    """The compiled mujoco.MjModel of a scene."""
    import mujoco

    xml, assets = scene_xml(config)
    return mujoco.MjModel.from_xml_string(xml, assets)
