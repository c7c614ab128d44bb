"""A 7-joint arm with a two-finger gripper, made of MJCF primitives.

Joint axes alternate z y z y z y z, as on most collaborative arms. The shoulder is to the right of the camera and the
elbow is high on the right, so that the arm enters the image as in RT-1's videos.
Tool frame: z is the approach direction, y the axis along which the fingers open, the origin between the fingertips.
"""

from dataclasses import dataclass, field

import numpy as np

from genie_datasets.tabletop.xml_text import Rgb, rgba

JOINTS = tuple(f"arm{i}" for i in range(1, 8))
FINGERS = ("finger_left", "finger_right")
TOOL_SITE = "tool"
FINGER_TRAVEL = 0.042  # m; position of an open finger, closed is 0
UPPER_ARM, FOREARM, HAND = 0.42, 0.42, 0.215  # m: shoulder to elbow, elbow to wrist, wrist to tool


# Marks a field that old data sets lack: `SceneConfig.to_json` leaves it out while it has its default.
LATER = {"later": True}


@dataclass(frozen=True)
class ArmConfig:
    """Position and appearance of the arm. Lengths in meters."""

    shoulder: tuple[float, float, float] = (0.28, -0.60, 1.08)
    link_color: Rgb = (0.86, 0.85, 0.83)
    joint_color: Rgb = (0.62, 0.61, 0.60)
    hand_color: Rgb = (0.16, 0.16, 0.18)
    finger_color: Rgb = (0.93, 0.68, 0.22)
    pedestal: bool = True  # a column under the shoulder
    slimness: float = 1.0  # thickness of the links, relative to the default
    rest: tuple[float, ...] = field(default=(0.9, 0.35, -0.5, 1.9, 0.4, 0.9, 0.0))  # rad; joints the solver prefers
    finger_size: float = field(default=1.0, metadata=LATER)  # width of the fingers, relative to the default
    hand_size: float = field(default=1.0, metadata=LATER)  # of the palm, relative to the default
    ring_color: Rgb | None = field(
        default=None, metadata=LATER
    )  # of the elbow and the wrist; None: the color of the other joints

    @property
    def is_left(self) -> bool:
        """True if the shoulder is to the left of the table; the arm is then mirrored."""
        return self.shoulder[1] > 0


def tool_rotation(approach: np.ndarray, opening: np.ndarray) -> np.ndarray:
    """Rotation (3,3) of a tool that approaches along `approach` (3,) and opens as close to `opening` (3,) as it can."""
    z = np.asarray(approach, float) / np.linalg.norm(approach)
    y = np.asarray(opening, float) - z * np.dot(opening, z)
    y /= np.linalg.norm(y)
    return np.stack([np.cross(y, z), y, z], axis=1)


def arm_xml(config: ArmConfig) -> tuple[str, str]:
    """The arm as MJCF: (elements of <worldbody>, elements of <actuator>)."""
    link, joint, hand, tip = map(rgba, (config.link_color, config.joint_color, config.hand_color, config.finger_color))
    ring = joint if config.ring_color is None else rgba(config.ring_color)
    x, y, z = config.shoulder
    upper, fore = UPPER_ARM, FOREARM

    # A thick link is as heavy as one of default thickness: the gains of the actuators are made for those.
    light = f'density="{900 / config.slimness**2:.1f}" ' if config.slimness > 1 else ""

    def thick(radius: float) -> str:
        return f"{radius * config.slimness:.4f}"

    def half(size: float, scale: float) -> str:
        return f"{size * scale:.3f}".removeprefix("0")

    palm = " ".join(half(size, config.hand_size) for size in (0.026, 0.056, 0.020))

    wide, pad = half(0.013, config.finger_size), half(0.016, config.finger_size)

    def finger(name: str, side: int) -> str:
        return f"""
        <body name="{name}" pos="0 0 {HAND - 0.075:.4f}" gravcomp="1">
          <joint name="{name}" class="finger" axis="0 {side} 0"/>
          <geom type="box" size="{wide} .007 .030" pos="0 {side * 0.007:.4f} .012" rgba="{hand}" class="link"/>
          <geom type="box" size="{pad} .008 .034" pos="0 {side * 0.0085:.4f} .055" rgba="{tip}" class="pad"/>
        </body>"""

    column = f'''<geom type="cylinder" size=".085 {z / 2:.4f}" pos="{x} {y} {z / 2 - 0.10:.4f}" rgba="{joint}"
      class="static" contype="0" conaffinity="0"/>'''
    link_color, link, ring = f'rgba="{link}"', f'rgba="{link}" class="link"', f'rgba="{ring}" class="link"'
    body = f"""
    {column if config.pedestal else ""}
    <body name="shoulder" pos="{x} {y} {z}" gravcomp="1">
      <joint name="arm1" class="arm" axis="0 0 1"/>
      <geom type="cylinder" size=".075 .06" pos="0 0 -.06" rgba="{joint}" class="link"/>
      <body gravcomp="1">
        <joint name="arm2" class="arm" axis="0 1 0"/>
        <geom {light}type="capsule" size="{thick(0.062)}" fromto="0 0 0 0 0 {upper * 0.5:.4f}" {link}/>
        <body gravcomp="1">
          <joint name="arm3" class="arm" axis="0 0 1"/>
          <geom {light}type="capsule" size="{thick(0.055)}" fromto="0 0 {upper / 2:.3f} 0 0 {upper}" {link_color}
                class="link"/>
          <body pos="0 0 {upper}" gravcomp="1">
            <joint name="arm4" class="arm" axis="0 1 0"/>
            <geom {light}type="cylinder" size="{thick(0.058)} {thick(0.060)}" euler="90 0 0" {ring}/>
            <geom {light}type="capsule" size="{thick(0.050)}" fromto="0 0 0 0 0 {fore * 0.5:.4f}" {link}/>
            <body gravcomp="1">
              <joint name="arm5" class="arm" axis="0 0 1"/>
              <geom {light}type="capsule" size="{thick(0.044)}" fromto="0 0 {fore / 2:.3f} 0 0 {fore}" {link_color}
                class="link"/>
              <body pos="0 0 {fore}" gravcomp="1">
                <joint name="arm6" class="arm" axis="0 1 0"/>
                <geom {light}type="cylinder" size="{thick(0.045)} {thick(0.046)}" euler="90 0 0" {ring}/>
                <geom {light}type="capsule" size="{thick(0.038)}" fromto="0 0 0 0 0 .075" {link}/>
                <body name="hand" gravcomp="1">
                  <joint name="arm7" class="arm" axis="0 0 1"/>
                  <geom type="cylinder" size=".034 .016" pos="0 0 .092" rgba="{joint}" class="link"/>
                  <geom type="box" size="{palm}" pos="0 0 .122" rgba="{hand}" class="link"/>
                  <site name="{TOOL_SITE}" pos="0 0 {HAND}" size=".004" rgba="0 0 0 0"/>
                  {finger("finger_left", 1)}
                  {finger("finger_right", -1)}
                </body>
              </body>
            </body>
          </body>
        </body>
      </body>
    </body>"""
    gains = (2000, 2000, 1200, 1200, 400, 400, 120)
    actuators = "".join(
        f'<position name="{name}" joint="{name}" kp="{kp}" dampratio="1"/>'
        for name, kp in zip(JOINTS, gains, strict=True)
    )
    actuators += "".join(
        f'<position name="{name}" joint="{name}" kp="700" dampratio="1" forcerange="-28 28"/>' for name in FINGERS
    )
    return body, actuators


ARM_DEFAULTS = f"""
    <default class="arm"><joint type="hinge" armature=".06" damping="1"/></default>
    <default class="finger">
      <joint type="slide" range="0 {FINGER_TRAVEL}" limited="true" armature=".4" damping="4"/>
    </default>
    <default class="link"><geom density="900" friction="1 .02 .001" contype="2" conaffinity="1" group="1"/></default>
    <default class="pad"><geom density="900" friction="2 .05 .002" contype="2" conaffinity="1" group="1"/></default>
"""
