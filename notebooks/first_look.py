# %% [markdown]
# # A first look at learned actions
# Open as a notebook with jupytext, VS Code or PyCharm, or run it: `python notebooks/first_look.py`.
# It reads what `make demo` left in `runs/demo`; set RUN and DATA for your own.

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from genie_datasets import fit_frames, open_source
from genie_robotics import Genie

RUN = Path(os.environ.get("RUN", "runs/demo/run"))
DATA = os.environ.get("DATA", "runs/demo/data")
OUT = Path(os.environ.get("OUT", "runs/demo/first_look"))
OUT.mkdir(parents=True, exist_ok=True)

genie = Genie.from_pretrained(RUN)
source = open_source(DATA)
split = source.split("test" if "test" in source.splits else next(iter(source.splits)))
frames = fit_frames(split.frames(0), genie.config.image_size)[None]  # (1, T, H, W, 3) uint8
frames = frames[:, : genie.config.clip_length]

# %% [markdown]
# ## Which latent action was each step?
# The model infers it without labels; entry t is what happened from frame t to frame t+1.

# %%
codes = genie.infer_actions(frames)
figure, axes = plt.subplots(1, 8, figsize=(14, 2.2))
for t, axis in enumerate(axes[: codes.shape[1]]):
    axis.imshow(frames[0, t])
    axis.set_title(f"then code {int(codes[0, t])}", fontsize=9)
for axis in axes:
    axis.axis("off")
figure.savefig(OUT / "codes.png", dpi=120)

# %% [markdown]
# ## What does each action do from here?
# Five steps of the same latent action from the first frame (Genie's figure 13, one start).

# %%
num = genie.config.num_actions
start = frames[:, :1].repeat(num, 0)
dreams = genie.generate(start, np.repeat(np.arange(num)[:, None], 5, 1), seed=0).numpy()  # (K, 5, H, W, 3)
figure, axes = plt.subplots(1, num + 1, figsize=(14, 2.2))
axes[0].imshow(frames[0, 0])
axes[0].set_title("start", fontsize=9)
for code in range(num):
    axes[code + 1].imshow(dreams[code, -1])
    axes[code + 1].set_title(f"5 x code {code}", fontsize=9)
for axis in axes:
    axis.axis("off")
figure.savefig(OUT / "actions.png", dpi=120)

# %% [markdown]
# ## Play it
# A world is a loop: step, look, undo, try something else.

# %%
world = genie.start(frames[0, 0], seed=0)
for code in (0, 0, 1):
    frame = world.step(code)
other = world.fork()  # the same past, another future
world.undo()
print(f"played 3 steps, took one back; a frame is {tuple(frame.shape)} {frame.dtype}; pictures are in {OUT}")
