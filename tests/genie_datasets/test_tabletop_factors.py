"""Each factor of variation has its own switch and changes only its own part of the scene."""

import json
from dataclasses import fields, replace

import numpy as np
import pytest

from genie_datasets.tabletop.episode import rollout
from genie_datasets.tabletop.factors import FAMILY_FACTORS, SWITCHES, Factors, redraw, sample_scene
from genie_datasets.tabletop.mjcf import DISTRACTOR
from genie_datasets.tabletop.simulator import Simulator

ALL_OFF = Factors(**dict.fromkeys(SWITCHES, False))
PARTS = {  # factor -> the fields of the scene that it may change
    "layout": {"furniture.layout", "furniture.x", "furniture.y", "work", "limits"},
    "textures": {f"furniture.{n}" for n in ("table_pattern", "table_contrast", "floor_pattern", "floor_contrast")}
    | {"furniture.texture_seed"},
    "colours": {f"furniture.{n}_color" for n in ("table", "front", "wall", "floor")} | {"arm", "objects"},
    "lighting": {"light"},
    "camera": {"camera"},
    "clutter": {"furniture.clutter", "furniture.table_clutter", "furniture.clutter_seed"},
    "distractor": {"distractor"},
    "style": {"style"},
}


def changed(a, b) -> set[str]:
    """Names of the fields in which two scenes differ, with the fields of the furniture one by one."""
    names = {f.name for f in fields(a) if getattr(a, f.name) != getattr(b, f.name)} - {"furniture", "seed"}
    inside = {f.name for f in fields(a.furniture) if getattr(a.furniture, f.name) != getattr(b.furniture, f.name)}
    return names | {f"furniture.{name}" for name in inside}


@pytest.mark.parametrize("factor", SWITCHES)
def test_a_switch_changes_only_its_own_part(factor):
    on = replace(ALL_OFF, **{factor: True})
    seen = [changed(sample_scene("rt1", s, on), sample_scene("rt1", s, ALL_OFF)) for s in range(12)]
    assert set().union(*seen) <= PARTS[factor]
    assert set().union(*seen) >= PARTS[factor] - {"work"}  # all layouts have the same work area
    assert len({sample_scene("rt1", s, on) for s in range(12)}) == 12


@pytest.mark.parametrize("factor", SWITCHES)
def test_switching_one_off_leaves_the_others(factor):
    """Factors have their own random streams: the others draw the same with and without this one."""
    for seed in range(6):
        every = replace(Factors(), style=True)
        full, without = sample_scene("rt1", seed, every), sample_scene("rt1", seed, replace(every, **{factor: False}))
        assert changed(full, without) <= PARTS[factor]


def test_with_all_switches_off_scenes_differ_in_their_objects_only():
    scenes = [sample_scene("rt1", s, ALL_OFF) for s in range(8)]
    assert len({replace(s, objects=(), seed=0) for s in scenes}) == 1
    assert len({s.objects for s in scenes}) > 4


def test_without_the_colors_switch_a_kind_has_one_color():
    objects = {item for s in range(20) for item in sample_scene("rt1", s, ALL_OFF).objects}
    assert len({item.kind for item in objects}) == len(objects) == 7


@pytest.mark.parametrize("factor", [f for f in SWITCHES if f != "layout"])
def test_a_state_can_be_restored_in_a_redrawn_scene(factor):
    """The frame differs, and the physics stays the same."""
    sim = Simulator(sample_scene("rt1", 1), (48, 64))
    redrawn = {"distractor": toggled, "style": styled}
    other = redrawn[factor](sim.scene) if factor in redrawn else redraw(sim.scene, factor, 77)
    twin = Simulator(other, (48, 64))
    sim.step(np.array([0.02, 0.03, -0.02, 0, 0, 0, 0.0]))
    twin.restore(sim.snapshot())
    if factor == "distractor":
        twin.step(np.zeros(7))  # the distractor moves at the next step
        sim.step(np.zeros(7))
    assert np.abs(sim.observe().frame.astype(int) - twin.observe().frame).mean() > 0.2
    for _ in range(3):
        action = np.array([0.01, -0.03, 0.02, 0, 0, 0.1, 1.0])
        sim.step(action)
        twin.step(action)
    np.testing.assert_array_equal(sim.data.qpos, twin.data.qpos)


def toggled(scene):
    """The scene with a distractor if it has none, and without it otherwise."""
    if scene.distractor is not None:
        return replace(scene, distractor=None)
    return next(s for s in (redraw(scene, "distractor", k) for k in range(20)) if s.distractor is not None)


def styled(scene):
    """The scene in a style: half of the draws have none."""
    return next(s for s in (redraw(scene, "style", k) for k in range(20)) if s.style.name != "none")


def test_the_distractor_moves_and_touches_nothing():
    on = next(s for s in (sample_scene("rt1", k) for k in range(20)) if s.distractor is not None)
    sim, empty = Simulator(on, None), Simulator(replace(on, distractor=None), None)
    positions = []
    for _ in range(6):
        for one in (sim, empty):
            one.step(np.array([0.0, 0.03, 0.01, 0, 0, 0, 0]))
        positions.append(sim.data.body(DISTRACTOR).xpos[1])
    assert np.ptp(positions) > 0.1
    assert empty.data.body(DISTRACTOR).xpos[2] < -1
    np.testing.assert_array_equal(sim.data.qpos, empty.data.qpos)


@pytest.mark.parametrize("family", FAMILY_FACTORS)
def test_behaviors(family):
    sim = Simulator(sample_scene(family, 4), None)
    play = rollout(sim, 3, "play")
    assert play.skill == "play"
    assert set(play.instructions) == {"move around"}
    assert np.count_nonzero(np.abs(play.actions[:, :3]) > 0.02, axis=1).max() == 1  # one axis at a time
    expert = rollout(sim, 3, "expert")
    assert "move around" not in expert.instructions
    assert len(set(expert.instructions)) > 1  # one skill after another
    mixed = {rollout(sim, seed, "mixed", frames=3).skill for seed in range(40)}
    assert {"play", "pick", "reach"} <= mixed


def test_factors_are_recorded(tabletop_rlds):
    import tensorflow_datasets as tfds

    episode = next(iter(tfds.as_numpy(tfds.builder_from_directory(str(tabletop_rlds)).as_dataset(split="train"))))
    metadata = episode["episode_metadata"]
    assert Factors(**json.loads(metadata["factors"])) == FAMILY_FACTORS["easy"]
    assert json.loads(metadata["scene_config"])["seed"] == metadata["scene"]
    assert metadata["mjcf"].startswith(b"\n<mujoco")
    assert metadata["texture_table"].shape == (128, 128, 3)
