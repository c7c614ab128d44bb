# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # From a folder of videos to a world that can be played
#
# You have videos of a robot and no record of its actions. This notebook trains a world on a folder of mp4: it inspects the
# videos, trains the three models, checks for problems, shows the meaning of each action, and plays. Set `VIDEOS` to your
# folder (or an RLDS directory, a LeRobotDataset, numpy files); without one, it films a simulated robot.
#
# It takes two to five minutes on two cores. That is enough to see every step, but not for a good world, which needs some
# hundreds of videos and thousands of `STEPS`. `make notebooks` installs what notebooks need; open this one with
# `.venv/bin/jupyter lab` or your editor.

# %%
import json
from pathlib import Path
from tempfile import mkdtemp

import av
import matplotlib.pyplot as plt
import numpy as np

from genie_datasets import fit_frames, open_source
from genie_datasets.tabletop.generate import generate
from genie_eval.plotting import code_color
from genie_robotics import Genie
from genie_robotics.cli import main

VIDEOS = None  # a folder; None: videos of a simulated robot
HZ = 3  # control rate of the robot, frames per second; video files rarely state it
EPISODES = 40
STEPS = 100
HELD_OUT = "*held_out*"  # names of videos that are held out from training, best a whole scene
WORK = None  # folder for the run; None: a temporary one
plt.rcParams["figure.dpi"] = 72
work = Path(WORK or mkdtemp())


def genie_robotics(*words):
    """Runs `genie-robotics WORDS`, as in a terminal."""
    try:
        status = main([str(word) for word in words])
    except SystemExit as stop:
        status = stop.code
    print("" if not status else f"(status {status})")


# %%
def film(folder, name, frames, hz):
    folder.mkdir(exist_ok=True)
    with av.open(str(folder / f"{name}.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=hz, options={"crf": "18"})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
        container.mux(stream.encode())


if VIDEOS is None:
    VIDEOS = work / "videos"
    made = open_source(generate(work / "made", episodes=EPISODES, seed=77, splits={"train": 1.0}, scenes=EPISODES))
    for episode in range(EPISODES):
        name = f"{'held_out' if episode % 4 == 0 else 'clip'}_{episode:03d}"
        film(VIDEOS, name, made.split("train").frames(episode), HZ)
open_source(VIDEOS, hz=HZ, include=HELD_OUT)  # fails before the training if no name matches
print(f"{len(list(Path(VIDEOS).iterdir()))} files in the folder; the run will be in {work / 'run'}")

# %% [markdown]
# ## 1. Inspect the videos
#
# How many frames are there, how much of the video is static, and which gap between frames shows motion? Usual problems are
# a large static share and a wrong rate.

# %%
genie_robotics("data", "inspect", VIDEOS, "--hz", HZ, "--out", work / "look")
for picture in sorted((work / "look").rglob("*.png"))[:2]:
    plt.figure(figsize=(9, 5))
    plt.imshow(plt.imread(picture))
    plt.axis("off")
    plt.show()

# %% [markdown]
# ## 2. Train
#
# Three models are trained in turn: the tokenizer (frames to integers and back), the latent action model (which of eight
# codes explains this step?) and the dynamics (given a code, what comes next?). `--init nano-tabletop` starts from the
# weights of the world that comes with the package, which also helps on real video. After an interruption the same command
# resumes.

# %%
run = work / "run"
genie_robotics(
    "train", run, "--data", VIDEOS, "--hz", HZ, "--exclude", HELD_OUT, "--init", "nano-tabletop", "--steps", STEPS,
    "--log-every", 10,
)  # fmt: skip
lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
figure, axes = plt.subplots(1, 3, figsize=(9, 2.4), layout="constrained")
for axis, stage in zip(axes, ("tokenizer", "latent_action", "dynamics"), strict=True):
    of_stage = [line for line in lines if line.get("stage") == stage and "loss" in line]
    axis.plot([line["step"] for line in of_stage], [line["loss"] for line in of_stage])
    axis.set(title=f"{stage}: loss", xlabel="step")
plt.show()

# %% [markdown]
# ## 3. Is anything wrong?
#
# `doctor` checks for common problems: collapsed codes, a world that ignores its actions, a tokenizer that loses what moves.
# After so few steps it may well find one; it also prints the remedy.

# %%
genie_robotics("doctor", run)

# %% [markdown]
# ## 4. What do the actions mean?
#
# Each column starts with a frame of a held-out video; each row plays one latent action four times. In a good world every
# row shows one motion. Below: the shares of the codes that the model reads in those videos.

# %%
genie = Genie.from_pretrained(run)
held_out = open_source(VIDEOS, hz=HZ, include=HELD_OUT)
split = next(iter(held_out.splits.values()))
starts = np.stack(
    [
        fit_frames(split.frames(e, np.array([0])), genie.config.image_size, genie.config.fit)[0]
        for e in range(min(4, split.num_episodes))
    ]
)
num = genie.config.num_actions
codes = np.tile(np.arange(num), len(starts))[:, None].repeat(4, 1)
dreams = genie.generate(starts[:, None].repeat(num, 0), codes, seed=0).numpy()[:, -1]
dreams = dreams.reshape(len(starts), num, *starts.shape[1:])
size = (1.25 * len(starts) + 0.8, 1.25 * (num + 1))
figure, axes = plt.subplots(num + 1, len(starts), figsize=size, squeeze=False, layout="constrained")
for column, start in enumerate(starts):
    for row, picture in enumerate([start, *dreams[column]]):
        axes[row, column].imshow(picture)
        axes[row, column].set(xticks=[], yticks=[])
for row in range(num + 1):
    axes[row, 0].set_ylabel(
        f"{row - 1}" if row else "start", rotation=0, ha="right", va="center", color=code_color(row - 1) if row else "k"
    )
plt.show()

used = np.zeros(num, int)
for episode in range(split.num_episodes):
    frames = fit_frames(split.frames(episode), genie.config.image_size, genie.config.fit)
    used += np.bincount(genie.infer_actions(frames[None]).numpy().ravel(), minlength=num)
plt.figure(figsize=(5, 2))
plt.bar(range(num), used / used.sum(), color=[code_color(code) for code in range(num)])
plt.xlabel("code")
plt.ylabel("share")
plt.show()

# %% [markdown]
# ## 5. Play it
#
# In a terminal, `genie-robotics play RUN --data VIDEOS` opens the page. The same loop in Python: a start, then one action
# at a time.

# %%
world = genie.start(starts[0], seed=0)
film_strip = [starts[0], *(world.step(code).numpy() for code in (0, 0, 1, 1, 2, 2, 3))]
figure, axes = plt.subplots(1, len(film_strip), figsize=(9, 1.6), layout="constrained")
for axis, frame, name in zip(axes, film_strip, ["start", 0, 0, 1, 1, 2, 2, 3], strict=True):
    axis.imshow(frame)
    axis.set(xticks=[], yticks=[], title=name)
plt.show()

# %% [markdown]
# ## How consistent is it?
#
# `genie-robotics evaluate RUN --data VIDEOS --include '*held_out*' --out REPORT` measures whether a code means the same
# motion in every video. Without recorded true motion it uses optical flow, and the report says so. The next notebook
# explains the report.
