"""A scene as MJCF, MuJoCo's XML."""

import numpy as np

from genie_datasets.tabletop.arm import ARM_DEFAULTS, arm_xml
from genie_datasets.tabletop.furniture import FURNITURE_DEFAULTS, drawer_names, furniture_xml, numbers, paint
from genie_datasets.tabletop.objects import OBJECT_DEFAULTS, object_xml
from genie_datasets.tabletop.scene import TABLE_TOP, TIMESTEP, LightConfig, SceneConfig
from genie_datasets.tabletop.textures import png_bytes, surface

CAMERA = "head"
TEXTURES = ("table.png", "floor.png")
DISTRACTOR = "passer_by"
HIDDEN = (0.0, 0.0, -4.0)  # m: below the floor


def _lamp(name: str, position, colour, shadow: bool) -> str:
    aim = np.array([0.62, 0.0, TABLE_TOP]) - position
    return f"""<light name="{name}" type="spot" pos="{numbers(position)}" dir="{numbers(aim)}"
      castshadow="{str(shadow).lower()}" diffuse="{numbers(colour)}"
      specular=".15 .15 .15" cutoff="75" exponent="0"/>"""


def _lamps(light: LightConfig) -> str:
    lamps = _lamp("lamp", light.position, light.colour, True)
    return lamps + (_lamp("second", light.second, light.second_colour, light.soft) if any(light.second_colour) else "")


def _passer_by(config: SceneConfig) -> str:
    """There in every scene, below the floor if nobody passes, so that states of all scenes have the same size."""
    look = paint(config.distractor.colour if config.distractor else (0.3, 0.3, 0.3))
    free = 'contype="0" conaffinity="0" group="0" castshadow="false" material="matte"'
    return f"""
    <body name="{DISTRACTOR}" mocap="true" pos="{numbers(HIDDEN)}">
      <geom type="ellipsoid" size=".13 .21 .36" pos="0 0 .98" {look} {free}/>
      <geom type="capsule" size=".075" fromto="0 .10 .10 0 .09 .75" rgba=".12 .12 .15 1" {free}/>
      <geom type="capsule" size=".075" fromto="0 -.10 .10 0 -.09 .75" rgba=".12 .12 .15 1" {free}/>
    </body>"""


def scene_xml(config: SceneConfig) -> tuple[str, dict[str, bytes]]:
    """The scene as (MJCF text, files it refers to)."""
    arm, actuators = arm_xml(config.arm)
    camera, axes, furniture = config.camera, config.camera.axes(), config.furniture
    ambient = numbers([config.light.ambient] * 3)
    look, shadow = furniture.texture_seed, 512 if config.light.soft else 1024
    assets = {
        "table.png": png_bytes(
            surface(furniture.table_pattern, furniture.table_colour, furniture.table_contrast, look)
        ),
        "floor.png": png_bytes(
            surface(furniture.floor_pattern, furniture.floor_colour, furniture.floor_contrast, look + 1)
        ),
    }
    things = "".join(object_xml(i, thing) for i, thing in enumerate(config.objects))
    exclude = "".join(f'<exclude body1="world" body2="{name}"/>' for name in drawer_names(furniture))
    # extent=1 makes znear metres: the extent of the floor would put the near plane behind the arm.
    # Few slices and one quad a side, since a software renderer's time goes into vertices; two small shadow maps cost no
    # more than a large one, and blur the edges.
    xml = f"""
<mujoco model="tabletop">
  <compiler angle="degree" autolimits="true"/>
  <option timestep="{TIMESTEP}" integrator="implicitfast" cone="elliptic" impratio="10"/>
  <statistic extent="1" center=".6 0 .8"/>
  <visual>
    <map znear=".02" zfar="6" shadowclip="1.2" shadowscale=".45"/>
    <quality shadowsize="{shadow}" offsamples="0" numslices="16" numstacks="10" numquads="1"/>
    <headlight ambient="{ambient}" diffuse=".14 .14 .14" specular="0 0 0"/>
  </visual>
  <asset>
    <texture name="table" type="2d" file="table.png"/>
    <texture name="floor" type="2d" file="floor.png"/>
    <material name="table" texture="table" texuniform="true" texrepeat="2 2" specular=".15" shininess=".3"/>
    <material name="floor" texture="floor" texuniform="true" texrepeat="1 1" specular="0"/>
    <material name="matte" specular="0"/>
  </asset>
  <default>
    <geom condim="4"/>{FURNITURE_DEFAULTS}
    {ARM_DEFAULTS}{OBJECT_DEFAULTS}
  </default>
  <worldbody>
    {_lamps(config.light)}
    <camera name="{CAMERA}" pos="{numbers(camera.position)}" fovy="{camera.fovy:.7g}"
      xyaxes="{" ".join(f"{v:.9g}" for v in (*axes[:, 0], *axes[:, 1]))}"/>
    {furniture_xml(furniture)}{_passer_by(config)}
    {arm}
    {things}
  </worldbody>
  <contact>{exclude}</contact>
  <actuator>{actuators}</actuator>
</mujoco>"""
    return xml, assets
