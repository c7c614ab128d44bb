"""A scene as MJCF, MuJoCo's XML."""

import numpy as np

from genie_datasets.tabletop.arm import ARM_DEFAULTS, arm_xml
from genie_datasets.tabletop.furniture import FURNITURE_DEFAULTS, drawer_names, furniture_xml, paint
from genie_datasets.tabletop.objects import OBJECT_DEFAULTS, object_xml
from genie_datasets.tabletop.scene import TABLE_TOP, TIMESTEP, SceneConfig, Vector
from genie_datasets.tabletop.textures import png_bytes, surface
from genie_datasets.tabletop.xml_text import Rgb, numbers

CAMERA = "head"
TEXTURES = ("table.png", "floor.png")
DISTRACTOR = "passer_by"
HIDDEN = (0.0, 0.0, -4.0)  # m; below the floor


def _lamp(name: str, position: Vector, color: Rgb, shadow: bool) -> str:
    direction = np.array([0.62, 0.0, TABLE_TOP]) - position
    return f"""<light name="{name}" type="spot" pos="{numbers(position)}" dir="{numbers(direction)}"
      castshadow="{str(shadow).lower()}" diffuse="{numbers(color)}"
      specular=".15 .15 .15" cutoff="75" exponent="0"/>"""


def _distractor(config: SceneConfig) -> str:
    """The passer-by. Every scene has one, hidden below the floor if nobody walks, so that all states have one size."""
    rgba = paint(config.distractor.color if config.distractor else (0.3, 0.3, 0.3))
    free = 'contype="0" conaffinity="0" group="0" castshadow="false" material="matte"'
    return f"""
    <body name="{DISTRACTOR}" mocap="true" pos="{numbers(HIDDEN)}">
      <geom type="ellipsoid" size=".13 .21 .36" pos="0 0 .98" {rgba} {free}/>
      <geom type="capsule" size=".075" fromto="0 .10 .10 0 .09 .75" rgba=".12 .12 .15 1" {free}/>
      <geom type="capsule" size=".075" fromto="0 -.10 .10 0 -.09 .75" rgba=".12 .12 .15 1" {free}/>
    </body>"""


def scene_xml(config: SceneConfig) -> tuple[str, dict[str, bytes]]:
    """The scene as (MJCF text, file name -> content of the files it refers to)."""
    arm, actuators = arm_xml(config.arm)
    camera, axes, furniture = config.camera, config.camera.axes(), config.furniture
    light = config.light
    lamps = _lamp("lamp", light.position, light.color, light.shadows)
    if any(light.second_color):
        lamps += _lamp("second", light.second, light.second_color, light.soft and light.shadows)
    repeat = furniture.texture_repeat
    twice = f"{2 * repeat:.5g}"
    ambient = numbers([light.ambient] * 3)
    seed, shadow_size = furniture.texture_seed, 512 if light.soft else 1024
    table = surface(furniture.table_pattern, furniture.table_color, furniture.table_contrast, seed)
    floor = surface(furniture.floor_pattern, furniture.floor_color, furniture.floor_contrast, seed + 1)
    objects = "".join(object_xml(i, item) for i, item in enumerate(config.objects))
    exclude = "".join(f'<exclude body1="world" body2="{name}"/>' for name in drawer_names(furniture))
    # extent=1 makes znear a length in meters: with the extent of the floor, the near plane would be behind the arm.
    # Few slices and one quad per side, because a software renderer spends its time on vertices. Two small shadow maps
    # cost no more than one large map and have softer edges.
    xml = f"""
<mujoco model="tabletop">
  <compiler angle="degree" autolimits="true"/>
  <option timestep="{TIMESTEP}" integrator="implicitfast" cone="elliptic" impratio="10"/>
  <statistic extent="1" center=".6 0 .8"/>
  <visual>
    <map znear=".02" zfar="6" shadowclip="1.2" shadowscale=".45"/>
    <quality shadowsize="{shadow_size}" offsamples="0" numslices="16" numstacks="10" numquads="1"/>
    <headlight ambient="{ambient}" diffuse=".14 .14 .14" specular="0 0 0"/>
  </visual>
  <asset>
    <texture name="table" type="2d" file="table.png"/>
    <texture name="floor" type="2d" file="floor.png"/>
    <material name="table" texture="table" texuniform="true" texrepeat="{twice} {twice}" specular=".15" shininess=".3"/>
    <material name="floor" texture="floor" texuniform="true" texrepeat="{repeat:.5g} {repeat:.5g}" specular="0"/>
    <material name="matte" specular="0"/>
  </asset>
  <default>
    <geom condim="4"/>{FURNITURE_DEFAULTS}
    {ARM_DEFAULTS}{OBJECT_DEFAULTS}
  </default>
  <worldbody>
    {lamps}
    <camera name="{CAMERA}" pos="{numbers(camera.position)}" fovy="{camera.fovy:.7g}"
      xyaxes="{" ".join(f"{v:.9g}" for v in (*axes[:, 0], *axes[:, 1]))}"/>
    {furniture_xml(furniture)}{_distractor(config)}
    {arm}
    {objects}
  </worldbody>
  <contact>{exclude}</contact>
  <actuator>{actuators}</actuator>
</mujoco>"""
    return xml, dict(zip(TEXTURES, (png_bytes(table), png_bytes(floor)), strict=True))
