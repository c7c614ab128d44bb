"""README's picture: one latent action, played from three starts. python tools/dream_gif.py RUN SRC OUT.gif [CODE ...]

Rows are latent actions, columns are starts from unseen scenes; every frame but the first is dreamt.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from genie_datasets import fit_frames, open_source
from genie_robotics import Genie

SCALE, GAP, NUM_STARTS, NUM_STEPS = 3, 6, 3, 8


def main(run: str, data: str, out: str, codes: list[int]) -> None:
    genie = Genie.from_pretrained(run)
    source = open_source(data)
    split = source.split("test" if "test" in source.splits else next(iter(source.splits)))
    episodes = np.linspace(0, split.num_episodes - 1, NUM_STARTS).astype(int)
    starts = np.stack([fit_frames(split.frames(e, np.array([12])), genie.config.image_size)[0] for e in episodes])
    rows = [play(genie, starts, code) for code in codes]
    video = np.concatenate([np.pad(row, ((0, 0), (0, GAP), (0, 0), (0, 0)), constant_values=255) for row in rows], 1)
    images = [Image.fromarray(frame) for frame in video[:, :-GAP]]
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    images[0].save(out, save_all=True, append_images=images[1:], duration=[700] + [300] * NUM_STEPS, loop=0)


def play(genie: Genie, starts: np.ndarray, code: int) -> np.ndarray:
    """(1 + NUM_STEPS, H, W', 3): the starts side by side, then their dreams."""
    dreams = genie.generate(starts[:, None], np.full((len(starts), NUM_STEPS), code), temperature=0.5).numpy()
    clips = np.concatenate([starts[:, None], dreams], 1).repeat(SCALE, 2).repeat(SCALE, 3)
    return np.concatenate([np.pad(c, ((0, 0), (0, 0), (0, GAP), (0, 0)), constant_values=255) for c in clips], 2)[
        :, :, :-GAP
    ]


if __name__ == "__main__":
    main(*sys.argv[1:4], [int(c) for c in sys.argv[4:]] or [0, 1])
