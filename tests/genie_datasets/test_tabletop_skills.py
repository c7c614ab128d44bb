"""Scripted skills achieve their goals, in scenes that they were not tuned on."""

import functools
import itertools

import numpy as np
import pytest

from genie_datasets.tabletop.episode import Episode, rollout
from genie_datasets.tabletop.factors import sample_scene
from genie_datasets.tabletop.objects import KINDS
from genie_datasets.tabletop.scene import TABLE_TOP
from genie_datasets.tabletop.simulator import Simulator
from genie_datasets.tabletop.skills import SKILLS
from tools.skill_trials import FIRST_SCENE, trials

first_trials = functools.cache(functools.partial(trials, "rt1", count=5))  # by skill


def check(episodes: list[Episode]) -> None:
    assert np.mean([e.success for e in episodes]) >= 0.7
    assert len({e.instructions[0] for e in episodes}) > 1
    assert all(np.isfinite(e.position).all() for e in episodes)


@pytest.mark.parametrize("skill", [name for name in SKILLS if name != "play"])
def test_skills_of_rt1_achieve_their_goal(skill):
    check(first_trials(skill))


@pytest.mark.slow  # the test above does it with 5
@pytest.mark.parametrize("skill", [name for name in SKILLS if name != "play"])
def test_skills_of_rt1_achieve_their_goal_in_20_scenes(skill):
    check(trials("rt1", skill, 20))


WAYS = {"forward": (0, 1), "back": (0, -1), "left": (1, 1), "right": (1, -1)}  # axis and sign of the motion


def check_push(episode: Episode) -> str:
    """The direction of a push that succeeds: there, the object must have moved."""
    name = episode.skill.removeprefix("push ")
    axis, sign = WAYS[name]
    moved = sign * (episode.object_poses[:, :, axis] - episode.object_poses[0, :, axis])
    assert moved.max() > 0.05 or not episode.success
    return name if episode.success else ""


def test_pushes_go_in_all_four_directions():
    """An object that is pushed "to the left" moves to the left."""
    backward = FIRST_SCENE + 17  # the others are in the first five scenes
    episodes = first_trials("push"), [rollout(Simulator(sample_scene("rt1", backward), None), backward, skill="push")]
    assert {check_push(episode) for episode in itertools.chain(*episodes)} == set(WAYS)


@pytest.mark.slow  # the test above does it with 6
def test_pushes_go_in_all_four_directions_in_40_scenes():
    assert {check_push(episode) for episode in trials("rt1", "push", 40)} - {""} == set(WAYS)


def test_only_the_hand_opens_a_drawer():
    episode = first_trials("open drawer")[0]
    opening = episode.drawer_openings.max(axis=1)
    assert opening[0] < 0.01
    assert opening[-1] > 0.1
    moving = np.flatnonzero(np.diff(opening) > 0.005)
    speed = np.diff(episode.position[:, 0])[moving]
    assert (speed < -0.01).all()  # the drawer moves only while the hand moves toward the camera
    assert episode.gripper[moving].min() > 0.3


def test_quaternions_show_objects_placed_upright_and_knocked_over():
    def upness(episode: Episode) -> np.ndarray:
        """The z component (L,6) of every object's z axis."""
        w, x, y, z = np.moveaxis(episode.object_poses[:, :, 3:], -1, 0)
        return np.where(episode.object_poses[:, :, 2] > 0, 1 - 2 * (x**2 + y**2), np.nan)

    (raised,) = [e for e in first_trials("place upright") if e.success][:1]
    up = upness(raised)
    risen = np.flatnonzero((up[0] < 0.3) & (up[-1] > 0.95))
    assert len(risen) >= 1
    (fallen,) = [e for e in first_trials("knock over") if e.success][:1]
    up = upness(fallen)
    assert ((up[0] > 0.95) & (up.min(axis=0) < 0.5)).any()


@pytest.mark.slow
@pytest.mark.parametrize("family", ["easy", "rt1"])
def test_nine_of_ten_picks_lift_the_object(family):
    """90 % of 200 picks, one per scene, lift the object by 5 cm, and every kind of object is picked."""
    episodes = trials(family, "pick", 200)
    heights = [e.object_poses[:, :, 2] for e in episodes]
    lifted = [(z.max(axis=0) - z[0]).max() > 0.05 for z in heights]
    assert np.mean(lifted) >= 0.9
    assert {e.instructions[0].split(" ", 2)[2] for e in episodes} == set(KINDS)


@pytest.mark.parametrize("family", ["easy", "rt1"])
def test_objects_and_hands_stay_above_the_table(family):
    for seed in range(6):
        episode = rollout(Simulator(sample_scene(family, FIRST_SCENE + seed), None), seed, "play")
        present = episode.object_poses[0, :, 2] > 0
        assert np.mean(episode.object_poses[-1, present, 2] > TABLE_TOP - 0.02) > 0.5
        assert (episode.position[:, 2] > TABLE_TOP).all()
