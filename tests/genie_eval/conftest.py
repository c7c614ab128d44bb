"""A scripted world in which everything is known: a bright square that every action moves by one step.

`make_genie` makes the world model, which infers the action perfectly; when it generates, it obeys the codes or ignores
them. `make_video` makes trajectories of the square with their truth.
"""

from dataclasses import dataclass

import numpy as np
import pytest

from genie_datasets.sources.split import Source, Split
from genie_datasets.sources.truth import Truth

SIDE, SQUARE, STEP = 32, 6, 2
MOVES = np.array([(0, 0), (0, STEP), (0, -STEP), (STEP, 0), (-STEP, 0)])  # (row, column): still, right, left, down, up
BACKGROUND = 40


def draw(corner: np.ndarray) -> np.ndarray:
    frame = np.full((SIDE, SIDE, 3), BACKGROUND, np.uint8)
    row, column = corner
    frame[row : row + SQUARE, column : column + SQUARE] = (230, 180, 60)
    return frame


def corner_of(frame: np.ndarray) -> np.ndarray:
    return np.argwhere(frame[..., 0] > 128).min(axis=0)


@dataclass(frozen=True)
class Config:
    num_actions: int = len(MOVES)
    image_size: tuple[int, int] = (SIDE, SIDE)
    clip_length: int = 16
    gap: float | None = None
    fit: str = "crop"
    preset: str = "scripted"
    obeys: bool = True


class ScriptedWorld:
    """A minimal `genie_eval.interfaces.WorldModel`; its tokens are the pixels, reduced to 16 levels."""

    def __init__(self, config: Config):
        self.config = config

    def infer_actions(self, frames: np.ndarray) -> np.ndarray:
        corners = np.array([[corner_of(frame) for frame in clip] for clip in frames])
        shift = np.diff(corners, axis=1)
        return (shift[:, :, None] == MOVES).all(axis=-1).argmax(axis=-1)

    def embed_actions(self, frames: np.ndarray) -> np.ndarray:
        """A random projection of the change of the frame, as from an untrained model."""
        change = np.diff(frames.astype(np.float32), axis=1).mean(axis=-1).reshape(*frames.shape[:1], -1, SIDE * SIDE)
        return change @ np.random.default_rng(0).normal(size=(SIDE * SIDE, 4)).astype(np.float32)

    def generate(self, frames: np.ndarray, codes: np.ndarray, seed: int = 0) -> np.ndarray:
        codes = np.asarray(codes) if self.config.obeys else np.zeros_like(codes)
        dreams = []
        for clip, sequence in zip(frames, codes, strict=True):
            corner, dream = corner_of(clip[-1]), []
            for code in sequence:
                corner = np.clip(corner + MOVES[code], 0, SIDE - SQUARE)
                dream.append(draw(corner) // 16 * 16)
            dreams.append(dream)
        return np.array(dreams)

    def reconstruct(self, frames: np.ndarray) -> np.ndarray:
        return frames // 16 * 16


class ScriptedSplit(Split):
    """Random walks of the square. Truth: 1 cm per pixel; columns are -y, rows are -z, x drifts at random."""

    def __init__(self, name: str, episodes: int, length: int, seed: int, known: bool):
        rng = np.random.default_rng(seed)
        self.name, self.fingerprint, self.known = name, f"scripted-{name}-{seed}", known
        self.num_frames, self.hz = np.full(episodes, length), np.full(episodes, 3.0)
        self.corners = np.empty((episodes, length, 2), int)
        self.corners[:, 0] = rng.integers(8, SIDE - SQUARE - 8, size=(episodes, 2))
        for t in range(1, length):
            moved = self.corners[:, t - 1] + MOVES[rng.integers(len(MOVES), size=episodes)]
            inside = ((moved >= 0) & (moved <= SIDE - SQUARE)).all(axis=1, keepdims=True)
            self.corners[:, t] = np.where(inside, moved, self.corners[:, t - 1])
        self.idle = rng.normal(scale=1e-3, size=(episodes, length)).cumsum(axis=1)

    def frames(self, episode, ids=None, size=None, mode="crop"):
        corners = self.corners[episode] if ids is None else self.corners[episode][ids]
        return np.stack([draw(corner) for corner in corners])

    def instruction(self, episode):
        return ""

    def episode_name(self, episode):
        return f"{self.name}{episode}"

    def truth(self, episode):
        if not self.known:
            return None
        rows, columns = self.corners[episode].T
        position = np.stack([self.idle[episode], -0.01 * columns, -0.01 * rows], axis=1)
        image = np.stack([columns, rows], axis=1) / SIDE
        return Truth(position, image_position=image, scene=episode % 3, gripper=np.zeros(len(rows)))


def video(
    episodes: int = 24, length: int = 20, known: bool = True, names: tuple[str, ...] = ("train", "test")
) -> Source:
    splits: dict[str, Split] = {
        name: ScriptedSplit(name, episodes, length, seed, known) for seed, name in enumerate(names)
    }
    return Source("squares", "/nowhere/squares", "rlds", splits, "scripted")


@pytest.fixture(scope="session")
def make_video():
    return video


@pytest.fixture(scope="session")
def make_genie():
    return lambda **config: ScriptedWorld(Config(**config))
