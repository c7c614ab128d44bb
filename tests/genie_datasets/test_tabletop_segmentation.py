"""Masks of the parts of a scene."""

import numpy as np
import pytest

from genie_datasets.tabletop import Simulator, sample_scene
from genie_datasets.tabletop.segmentation import OTHER, ROBOT, visible_parts


@pytest.fixture
def simulator():
    sim = Simulator(sample_scene("easy", seed=3), (64, 64))
    yield sim
    sim.close()


def test_objects_are_where_their_poses_project(simulator):
    parts = visible_parts(simulator, (64, 64))
    found = 0
    for number, pose in enumerate(simulator.object_poses()[: len(simulator.scene.objects)]):
        x, y = (simulator.scene.camera.project(pose[:3], 1.0) * 64).astype(int)
        if 0 <= x < 64 and 0 <= y < 64 and parts[y, x] != ROBOT:  # not behind the arm
            assert parts[y, x] == number
            found += 1
    assert found >= 2
    assert 0.02 < (parts == ROBOT).mean() < 0.5
    assert (parts == OTHER).mean() > 0.4


def test_what_changes_when_the_arm_moves_was_or_is_the_arm(simulator):
    """Up to shadows, which move with it and change pixels less."""
    before, first = visible_parts(simulator, (64, 64)), simulator.observe().frame.astype(int)
    for _ in range(3):
        simulator.step(np.array([0, 0.04, 0.02, 0, 0, 0, 0]))
    after, last = visible_parts(simulator, (64, 64)), simulator.observe().frame.astype(int)
    assert (before != after).any()
    changed = np.abs(last - first).max(axis=-1) > 100
    import cv2

    arm = cv2.dilate(((before == ROBOT) | (after == ROBOT)).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    assert changed.sum() > 5
    assert (changed & arm).sum() >= 0.9 * changed.sum()


def test_any_size_shows_the_same_scene(simulator):
    small, large = visible_parts(simulator, (32, 32)), visible_parts(simulator, (96, 96))
    for part in (OTHER, ROBOT):
        assert (small == part).mean() == pytest.approx((large == part).mean(), abs=0.03)
