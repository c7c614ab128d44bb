"""The family `wild`: every scene has another look, its style lasts, and its arm is as accurate as the others."""

import json
from dataclasses import replace

import numpy as np
import pytest

from genie_datasets.tabletop.episode import rollout
from genie_datasets.tabletop.factors import FAMILY_FACTORS, redraw, sample_scene
from genie_datasets.tabletop.scene import SceneConfig
from genie_datasets.tabletop.simulator import Simulator
from genie_datasets.tabletop.styles import STYLES, StyleConfig

SIZE = (64, 64)
SEEDS = range(300, 332)


@pytest.fixture(scope="module")
def episodes():
    """One episode without frames per scene: [(scene, episode)]."""
    scenes = [sample_scene("wild", seed) for seed in SEEDS]
    return [(scene, rollout(Simulator(scene, None), scene.seed)) for scene in scenes]


def with_style(name: str, strength: float = 0.8) -> Simulator:
    style = StyleConfig(name, strength, seed=5, gain=(1.1, 1.0, 0.8))
    return Simulator(replace(sample_scene("wild", 4), style=style), SIZE)


def test_frames_are_reproducible():
    one, two = (rollout(Simulator(sample_scene("wild", 7), SIZE), 3, frames=6).frames for _ in range(2))
    np.testing.assert_array_equal(one, two)


def test_scenes_look_different():
    """The mean color of the picture and the arm's side, colors and shape differ from scene to scene."""
    scenes = [sample_scene("wild", seed) for seed in range(24)]
    frames = [Simulator(scene, (24, 24)).observe().frame.astype(float) for scene in scenes]
    distances = [np.abs(a - b).mean() for i, a in enumerate(frames) for b in frames[:i]]
    assert np.mean(np.array(distances) > 15) > 0.97
    assert len({scene.arm for scene in scenes}) == 24
    assert {scene.arm.is_left for scene in scenes} == {True, False}
    assert len({scene.furniture.table_pattern for scene in scenes}) > 6
    assert len({scene.style.name for scene in (sample_scene("wild", seed) for seed in range(300))}) == len(STYLES)


def test_control_is_accurate(episodes):
    """Thick, thin and mirrored arms follow their actions: the bound is that of `easy`."""
    errors = [np.diff(e.position, axis=0) - e.actions[:-1, :3] for _, e in episodes]
    assert max(np.sqrt(np.mean(error**2)) for error in errors) < 0.006
    assert {scene.arm.is_left for scene, _ in episodes} == {True, False}
    assert np.ptp([scene.arm.slimness for scene, _ in episodes]) > 0.8


def test_the_tool_is_in_most_frames_and_leaves_some(episodes):
    seen = np.array([((e.image_position > 0) & (e.image_position < 1)).all(axis=1).mean() for _, e in episodes])
    assert seen.mean() > 0.85
    assert 0.05 < np.mean(seen < 1) < 0.5


@pytest.mark.parametrize("style", STYLES)
def test_a_still_scene_has_still_frames(style):
    """Grain of paper and edges stay in place; only the noise of a sensor differs between frames."""
    sim = with_style(style)
    for _ in range(3):
        sim.step(np.zeros(7))
    first = sim.observe().frame
    np.testing.assert_array_equal(first, sim.observe().frame)
    sim.data.time += 0.335
    assert np.any(first != sim.observe().frame) == (style == "noisy")


@pytest.mark.parametrize("style", [name for name in STYLES if name != "none"])
def test_each_style_differs_from_none(style):
    styled, plain = with_style(style).observe().frame, with_style("none").observe().frame
    assert styled.shape == plain.shape
    assert styled.dtype == np.uint8
    assert np.abs(styled.astype(float) - plain).mean() > 1


def test_another_style_leaves_the_physics():
    scene = sample_scene("wild", 4)
    other = next(s for s in (redraw(scene, "style", k) for k in range(9)) if s.style.name != scene.style.name)
    assert replace(other, style=scene.style) == scene
    sim, twin = Simulator(scene, None), Simulator(other, None)
    sim.step(np.array([0.02, 0.03, -0.02, 0, 0, 0, 0.0]))
    twin.restore(sim.snapshot())
    for one in (sim, twin):
        one.step(np.array([0.01, -0.03, 0.02, 0, 0, 0.1, 1.0]))
    np.testing.assert_array_equal(sim.data.qpos, twin.data.qpos)


@pytest.mark.parametrize("family", ["easy", "rt1"])
def test_other_families_have_no_style(family):
    """Their records have the keys that they had before there were styles."""
    scene = sample_scene(family, 5)
    stored = json.loads(scene.to_json())
    assert scene.style == StyleConfig()
    assert "style" not in stored
    assert "ring_colour" not in stored["arm"]
    assert "style" not in json.loads(FAMILY_FACTORS[family].to_json())
    assert SceneConfig.from_json(scene.to_json()) == scene


@pytest.mark.parametrize("factor", ["textures", "colours", "lighting", "camera", "clutter"])
def test_a_redrawn_look_keeps_the_states(factor):
    sim = Simulator(sample_scene("wild", 6), None)
    twin = Simulator(redraw(sim.scene, factor, 31), None)
    twin.restore(sim.snapshot())
    for one in (sim, twin):
        one.step(np.array([0.02, 0.0, -0.02, 0, 0, 0, 1.0]))
    np.testing.assert_array_equal(sim.data.qpos, twin.data.qpos)
