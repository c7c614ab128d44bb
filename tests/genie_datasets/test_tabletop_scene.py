"""The scene: camera, kinematics and ray caster, without OpenGL."""

from dataclasses import replace

import mujoco
import numpy as np
import pytest

from genie_datasets.tabletop.camera import CameraConfig
from genie_datasets.tabletop.control import Controller, matrix_to_rotvec, rotvec_to_matrix
from genie_datasets.tabletop.episode import rollout
from genie_datasets.tabletop.factors import FAMILY_FACTORS, NUM_OBJECTS, sample_scene
from genie_datasets.tabletop.mjcf import CAMERA, scene_xml
from genie_datasets.tabletop.raycast import RayCaster
from genie_datasets.tabletop.scene import SceneConfig
from genie_datasets.tabletop.simulator import Simulator
from genie_datasets.tabletop.textures import PATTERNS, surface

MIDDLE = np.array([0.57, 0.0, 0.88])


def arm(scene):
    model = mujoco.MjModel.from_xml_string(*scene_xml(scene))
    data = mujoco.MjData(model)
    control = Controller(model, data, scene.arm.rest, scene.limits)
    control.reset(MIDDLE)
    return model, data, control


@pytest.fixture(scope="module")
def empty_scene():
    """A scene without objects, with a blue-gray table that has no color of the arm."""
    scene = sample_scene("easy", 3)
    table = replace(scene.furniture, table_color=(0.60, 0.68, 0.78), table_pattern="plain")
    return replace(scene, objects=(), furniture=table)


@pytest.mark.parametrize("family", FAMILY_FACTORS)
def test_scenes_are_reproducible_and_differ(family):
    assert sample_scene(family, 7) == sample_scene(family, 7)
    assert len({sample_scene(family, seed) for seed in range(12)}) == 12
    fewest, most = NUM_OBJECTS[family]
    assert all(fewest <= len(sample_scene(family, seed).objects) <= most for seed in range(12))


def test_easy_keeps_camera_and_light():
    scenes = [sample_scene("easy", seed) for seed in range(8)]
    assert len({(s.camera, s.light) for s in scenes}) == 1
    assert len({s.camera for s in (sample_scene("rt1", seed) for seed in range(8))}) == 8


@pytest.mark.parametrize("family", FAMILY_FACTORS)
def test_scenes_are_restored_from_json(family):
    for seed in range(8):
        scene = sample_scene(family, seed)
        assert SceneConfig.from_json(scene.to_json()) == scene


def test_small_images_are_zoomed(empty_scene):
    """Without zoom, one step of the gripper in RT-1's wide view would be a pixel at 64x64."""
    camera = sample_scene("rt1", 1).camera
    small, large = camera.for_size((64, 64)), camera.for_size((256, 320))
    assert large.fovy == camera.fovy
    step = MIDDLE + np.array([0.0, 0.05, 0.0])
    pixels = [64 * np.linalg.norm(c.project(step, 1.0) - c.project(MIDDLE, 1.0)) for c in (small, camera)]
    assert pixels[0] > 3.0
    assert pixels[0] > 1.1 * pixels[1]
    assert small.for_size((64, 64)) == small


@pytest.mark.parametrize("pattern", PATTERNS)
def test_textures_have_their_color(pattern):
    image = surface(pattern, (0.6, 0.5, 0.4), 0.05, seed=1)
    assert image.shape == (128, 128, 3)
    np.testing.assert_allclose(image.mean((0, 1)) / 255, (0.6, 0.5, 0.4), atol=0.03)


def test_projection_agrees_with_mujoco(empty_scene):
    """A point on MuJoCo's ray through the center of pixel (row, column) projects to that pixel."""
    camera = replace(CameraConfig(), yaw=7.0, roll=4.0, pitch=38.0)
    model, data, _ = arm(replace(empty_scene, camera=camera))
    height, width = 48, 64
    half = np.tan(np.radians(model.cam_fovy[0]) / 2)
    axes = data.cam_xmat[model.camera(CAMERA).id].reshape(3, 3)
    for row, column in [(5, 9), (24, 32), (40, 60)]:
        x = ((column + 0.5) / width * 2 - 1) * half * width / height
        y = (1 - (row + 0.5) / height * 2) * half
        point = data.cam_xpos[0] + 0.8 * axes @ np.array([x, y, -1.0])
        expected = [(column + 0.5) / width, (row + 0.5) / height]
        np.testing.assert_allclose(camera.project(point, width / height), expected, atol=1e-4)


def test_rotation_conversions_are_inverse():
    for rotvec in ([0.3, -0.2, 0.9], [0, 0, 0], [2.0, 1.0, -1.5]):
        np.testing.assert_allclose(matrix_to_rotvec(rotvec_to_matrix(np.array(rotvec, float))), rotvec, atol=1e-9)


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("sign", [1, -1])
def test_actions_move_the_tool(empty_scene, axis, sign):
    """A translation of 4 cm is executed within 4 mm in one step, and the tool does not turn."""
    *_, control = arm(empty_scene)
    before, turned = control.tool_pose()
    action = np.zeros(7)
    action[axis] = 0.04 * sign
    control.step(action)
    after, rotation = control.tool_pose()
    np.testing.assert_allclose(after - before, action[:3], atol=0.004)
    assert np.linalg.norm(matrix_to_rotvec(rotation @ turned.T)) < 0.03


def test_gripper_and_turn(empty_scene):
    *_, control = arm(empty_scene)
    assert control.gripper_closure() < 0.05
    control.step(np.array([0, 0, 0, 0, 0, 0, 1.0]))
    assert control.gripper_closure() > 0.9
    control.step(np.zeros(7))
    assert control.gripper_closure() > 0.9
    _, before = control.tool_pose()
    control.step(np.array([0, 0, 0, 0, 0, 0.25, -1.0]))
    _, after = control.tool_pose()
    np.testing.assert_allclose(matrix_to_rotvec(after @ before.T), [0, 0, 0.25], atol=0.03)
    assert control.gripper_closure() < 0.1


def test_tool_stays_in_its_limits(empty_scene):
    *_, control = arm(empty_scene)
    for _ in range(8):
        control.step(np.array([0.05, 0.05, 0.05, 0, 0, 0, 0]))
    np.testing.assert_allclose(control.tool_pose()[0], control.limits.high, atol=0.006)


def fingers(image: np.ndarray) -> np.ndarray:
    """Center of the yellow fingertips, in fractions of width and height."""
    red, green, blue = (image[..., i].astype(int) for i in range(3))
    rows, columns = np.nonzero((red > 1.5 * blue) & (green > 1.1 * blue) & (red > 60))
    assert len(rows) > 10
    return np.array([(columns.mean() + 0.5) / image.shape[1], (rows.mean() + 0.5) / image.shape[0]])


@pytest.mark.parametrize("move", [(0.05, 0, 0), (0, 0.05, 0), (0, 0, 0.05)])
def test_truth_agrees_with_the_pixels(empty_scene, move):
    """The fingertips in the image are at the projected true position and move with it."""
    model, data, control = arm(empty_scene)
    renderer = RayCaster(model, (96, 96))
    seen, projected = [], []
    for _ in range(3):
        seen.append(fingers(renderer(data)))
        projected.append(empty_scene.camera.project(control.tool_pose()[0], 1.0))
        control.step(np.array([*move, 0, 0, 0, 0]))
    np.testing.assert_allclose(seen, projected, atol=0.05)
    moved, expected = seen[2] - seen[0], projected[2] - projected[0]
    assert np.linalg.norm(expected) > 0.08
    np.testing.assert_allclose(moved, expected, atol=0.35 * np.linalg.norm(expected))


def test_multi_ray_hits_agree_with_single_rays():
    """mj_multiRay can miss large geoms below the eye."""
    scene = sample_scene("rt1", 2)
    sim = Simulator(scene, size=None)
    sim.place_objects(np.random.default_rng(0))
    model, data = sim.model, sim.data
    mujoco.mj_forward(model, data)
    renderer = RayCaster(model, (32, 32))
    surface = renderer._look(data)
    rays = renderer._local @ data.cam_xmat[0].reshape(3, 3).T
    found = np.zeros(1, np.int32)
    for i in range(0, len(rays), 17):
        distance = mujoco.mj_ray(model, data, data.cam_xpos[0], rays[i], None, 1, -1, found)
        assert (found[0], distance) == (surface.geom[i], pytest.approx(surface.distance[i], abs=1e-6))


@pytest.mark.parametrize("family", ["easy", "rt1"])
def test_a_frame_does_not_depend_on_the_frames_before(family):
    """A new ray caster casts and lights every ray; one that has been used only those that may have changed."""
    sim = Simulator(sample_scene(family, 5), size=None)
    used = RayCaster(sim.model, (32, 32))
    changed, before = [], None
    for seed in (0, 1):
        for state in rollout(sim, seed, skill="push", frames=12).states[::3]:
            sim.restore(state)
            if seed:
                sim.data.qpos[sim._objects[0] + 2] -= 0.1  # below the table's top
            sim.observe()  # brings the positions of bodies up to date
            frame = used(sim.data)
            np.testing.assert_array_equal(frame, RayCaster(sim.model, (32, 32))(sim.data))
            changed.append(before is None or np.any(frame != before))
            before = frame
    assert all(changed)
