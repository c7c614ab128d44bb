"""Makes README's animation: the same latent action played from three start frames of unseen scenes.

    python tools/dream_gif.py RUN SRC OUT.gif [CODE ...]

Rows are latent actions (default: 0 and 1), columns are start frames. Every frame but the first is dreamt.
"""

import sys
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from genie_datasets import fit_frames, open_source
from genie_robotics import Genie

SCALE, GAP, NUM_STARTS, NUM_STEPS = 3, 6, 3, 8
START_FRAME = 12  # of each episode


def main(run: str, data: str, out: str, codes: list[int]) -> None:
    genie = Genie.from_pretrained(run)
    source = open_source(data)
    split = source.split("test" if "test" in source.splits else next(iter(source.splits)))
    episodes = np.linspace(0, split.num_episodes - 1, NUM_STARTS).astype(int)
    frames = [split.frames(episode, np.array([START_FRAME])) for episode in episodes]
    starts = np.stack([fit_frames(frame, genie.config.image_size)[0] for frame in frames])
    rows = [side_by_side(play(genie, starts, code), axis=2) for code in codes]
    images = [Image.fromarray(frame) for frame in side_by_side(rows, axis=1)]
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    images[0].save(out, save_all=True, append_images=images[1:], duration=[700] + [300] * NUM_STEPS, loop=0)


def play(genie: Genie, starts: UInt8[np.ndarray, "N H W 3"], code: int) -> UInt8[np.ndarray, "N T H2 W2 3"]:
    """The starts and their dreams with this code, enlarged: T = 1 + NUM_STEPS."""
    dreams = genie.generate(starts[:, None], np.full((len(starts), NUM_STEPS), code), temperature=0.5).numpy()
    return np.concatenate([starts[:, None], dreams], 1).repeat(SCALE, 2).repeat(SCALE, 3)


def side_by_side(videos: list[np.ndarray] | np.ndarray, axis: int) -> UInt8[np.ndarray, "T H W 3"]:
    """Videos (T, H, W, 3) next to each other along an axis, with white gaps between them."""
    margin = [(0, GAP if dimension == axis else 0) for dimension in range(4)]
    joined = np.concatenate([np.pad(video, margin, constant_values=255) for video in videos], axis)
    return joined.take(range(joined.shape[axis] - GAP), axis)


if __name__ == "__main__":
    main(*sys.argv[1:4], [int(code) for code in sys.argv[4:]] or [0, 1])
