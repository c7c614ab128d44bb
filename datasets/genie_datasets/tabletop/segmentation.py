"""Exact masks of the parts that the head camera shows, for evaluation and never for training."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int

from genie_datasets.tabletop.arm import JOINTS
from genie_datasets.tabletop.mjcf import CAMERA
from genie_datasets.tabletop.raycast import FAR

if TYPE_CHECKING:
    from genie_datasets.tabletop.simulator import Simulator

OTHER, ROBOT = -1, -2  # furniture and background; the arm


def visible_parts(simulator: "Simulator", size: tuple[int, int]) -> Int[np.ndarray, "H W"]:
    """The part at the center of each pixel: the number of an object (0, 1, ...), ROBOT, or OTHER."""
    import mujoco

    model, data = simulator.model, simulator.data
    mujoco.mj_kinematics(model, data)  # mj_step leaves the positions of bodies one substep behind the joints
    mujoco.mj_camlight(model, data)
    camera = model.camera(CAMERA).id
    half = np.tan(np.radians(model.cam_fovy[camera]) / 2)
    height, width = size
    x = ((np.arange(width) + 0.5) / width * 2 - 1) * half * width / height
    y = (1 - (np.arange(height) + 0.5) / height * 2) * half
    rays = np.stack([*np.meshgrid(x, y), np.full(size, -1.0)], axis=-1).reshape(-1, 3)
    rays = rays / np.linalg.norm(rays, axis=1, keepdims=True) @ data.cam_xmat[camera].reshape(3, 3).T
    geom, distance = np.full(len(rays), -1, np.int32), np.zeros(len(rays))
    eye = data.cam_xpos[camera].copy()
    mujoco.mj_multiRay(model, data, eye, rays.reshape(-1), None, 1, -1, geom, distance, None, len(rays), FAR)
    return part_of_geoms(simulator)[geom].reshape(size)


def part_of_geoms(simulator: "Simulator") -> Int[np.ndarray, " G+1"]:
    """The part of each geom; the last entry is for a ray that meets nothing."""
    model = simulator.model
    root = model.body_rootid[model.geom_bodyid]
    part = np.full(model.ngeom + 1, OTHER)
    part[:-1][root == model.body_rootid[model.jnt_bodyid[model.joint(JOINTS[0]).id]]] = ROBOT
    for index in range(len(simulator.scene.objects)):
        part[:-1][root == model.body(f"object{index}").id] = index
    return part
