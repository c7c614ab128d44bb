"""The simulated tabletop, rendered in styles that no training data has."""

from collections.abc import Callable

import cv2
import numpy as np
from jaxtyping import UInt8

from genie_eval.start_pictures.picture import StartPicture

SIDE = 192
FIRST_SEED = 731_500  # far from the seeds of all data sets in this repository
MARGIN = 0.05  # of the side, around what the arm covers and its work area
Frame = UInt8[np.ndarray, "H W 3"]


def posterized(frame: Frame, rng: np.random.Generator) -> Frame:
    """Few levels of saturated color."""
    hsv = cv2.cvtColor(cv2.bilateralFilter(frame, 7, 40, 5), cv2.COLOR_RGB2HSV)
    hsv[..., 1] = np.minimum(255, hsv[..., 1].astype(int) * 2)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) // 64 * 64 + 32


def outlined(frame: Frame, rng: np.random.Generator) -> Frame:
    """Ink lines on white, with washed-out colors."""
    gray = cv2.GaussianBlur(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), (3, 3), 0)
    lines = cv2.dilate(cv2.Canny(gray, 30, 80), np.ones((2, 2), np.uint8))
    washed = 255 - (255 - cv2.GaussianBlur(frame, (7, 7), 0).astype(int)) // 3
    return np.where(lines[..., None] > 0, 30, washed).astype(np.uint8)


def negative(frame: Frame, rng: np.random.Generator) -> Frame:
    """Inverted, as a film negative."""
    return 255 - frame


def printed(frame: Frame, rng: np.random.Generator) -> Frame:
    """Print dots in two inks: blue on yellow paper."""
    gray = cv2.GaussianBlur(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), (3, 3), 0) / 255
    y, x = np.mgrid[:SIDE, :SIDE]
    screen = 0.5 + 0.25 * (np.sin((x + y) * 1.1) + np.sin((x - y) * 1.1))
    ink = np.clip((screen - gray) * 6 + 0.5, 0, 1)[..., None]
    return np.rint(ink * (30, 50, 140) + (1 - ink) * (250, 232, 150)).astype(np.uint8)


STYLES: tuple[tuple[str, Callable[[Frame, np.random.Generator], Frame]], ...] = (
    ("posterized render", posterized), ("outlined render", outlined), ("negative render", negative),
    ("printed render", printed),
)  # fmt: skip


def odd_render(number: int) -> StartPicture:
    """A scene of the family `easy` in one of the STYLES. The ray caster renders it, so that it is equal everywhere."""
    from genie_datasets.tabletop import Simulator, sample_scene
    from genie_datasets.tabletop.raycast import RayCaster
    from genie_datasets.tabletop.segmentation import ROBOT, visible_parts

    name, style = STYLES[number]
    seed = FIRST_SEED + number
    scene = sample_scene("easy", seed=seed)
    simulator = Simulator(scene, None)
    frame = RayCaster(simulator.model, (SIDE, SIDE))(simulator.data)
    corners = np.array(np.meshgrid(*zip(scene.work.low, scene.work.high, strict=True))).reshape(3, -1).T
    work = scene.camera.project(corners, 1.0) * SIDE
    arm = np.argwhere(visible_parts(simulator, (SIDE, SIDE)) == ROBOT)[:, ::-1]
    simulator.close()
    reach = np.zeros((SIDE, SIDE), np.uint8)
    hull = cv2.convexHull(np.concatenate([work, arm]).astype(np.float32))
    cv2.fillConvexPoly(reach, np.rint(hull).astype(np.int32), 1)
    wider = cv2.dilate(reach, np.ones((2 * round(MARGIN * SIDE) + 1,) * 2, np.uint8))
    return StartPicture(name, "render", style(frame, np.random.default_rng(seed)), True, wider > 0)
