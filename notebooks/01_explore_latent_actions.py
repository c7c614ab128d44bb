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
# # What did it learn to do?
#
# A world learned eight *latent actions* from video without action labels. This notebook shows what each action does from
# many starts, how the robot really moved when a code was inferred, where codes lie in the model's latent space, which code
# follows which, and whether a code means the same in every scene.
#
# It takes two or three minutes on two cores and downloads nothing: the world comes with the package, and the video is
# simulated. For your own world, set `WORLD` to a run folder and `DATA` to the source of `genie-robotics train --data`.

# %%
from pathlib import Path
from tempfile import mkdtemp

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.decomposition import PCA

from genie_datasets import fit_frames, open_source
from genie_datasets.tabletop.generate import generate
from genie_eval.plotting import code_color
from genie_robotics import Genie
from genie_robotics.labeling.code_meanings import code_meanings
from genie_robotics.pretrained import locate

WORLD = "nano-tabletop"
DATA = None  # a folder of RLDS, LeRobot or mp4; None simulates episodes
EPISODES = 24
plt.rcParams["figure.dpi"] = 72

# %%
if DATA is None:
    DATA = Path(mkdtemp()) / "data"
    generate(DATA, episodes=EPISODES, seed=4242, splits={"test": 1.0}, family="easy", scenes=EPISODES)
source = open_source(DATA)
split = source.splits.get("test") or next(iter(source.splits.values()))
genie = Genie.from_pretrained(WORLD)
num = genie.config.num_actions
names = [f"{code} {meaning.name}".strip() for code, meaning in enumerate(code_meanings(locate(WORLD), num))]
print(f"{split.num_episodes} episodes of {source.name}; the world's actions: {', '.join(names)}")


def fitted(episode, ids=None):
    return fit_frames(split.frames(episode, ids), genie.config.image_size, genie.config.fit)


# %% [markdown]
# ## The same action from different starts
#
# Each column is a scene that the world never saw, each row one latent action, played three times. If every row shows one
# motion, the actions mean the same everywhere (as in Genie's figure 13).

# %%
starts = np.stack([fitted(e, np.array([0]))[0] for e in range(min(5, split.num_episodes))])
prompt = starts[:, None].repeat(num, 0)  # (starts * codes, 1, H, W, 3)
codes = np.tile(np.arange(num), len(starts))[:, None].repeat(3, 1)
dreams = genie.generate(prompt, codes, seed=0).numpy()[:, -1].reshape(len(starts), num, *starts.shape[1:])
figure, axes = plt.subplots(
    num + 1, len(starts), figsize=(1.25 * len(starts) + 1.3, 1.25 * (num + 1)), layout="constrained"
)
for column, start in enumerate(starts):
    for row, picture in enumerate([start, *dreams[column]]):
        axes[row, column].imshow(picture)
        axes[row, column].set(xticks=[], yticks=[])
for row, name in enumerate(["start", *names]):
    axes[row, 0].set_ylabel(name, rotation=0, ha="right", va="center", color="k" if not row else code_color(row - 1))
plt.show()

# %% [markdown]
# ## Which actions were taken?
#
# `infer_actions` reads one code per pair of frames; `embed_actions` returns the latent before it becomes one of eight codes.

# %%
inferred, latents, moved, episode_of = [], [], [], []
for episode in range(split.num_episodes):
    clip = fitted(episode)[None]
    inferred.append(genie.infer_actions(clip)[0].numpy())
    latents.append(genie.embed_actions(clip)[0].numpy())
    truth = split.truth(episode)
    moved.append(None if truth is None else truth.motion(np.arange(len(truth.position)))["base"])
    episode_of += [episode] * len(inferred[-1])
code, latent, episode_of = np.concatenate(inferred), np.concatenate(latents), np.array(episode_of)
motion = None if any(m is None for m in moved) else np.concatenate(moved)  # (M, 3) meters, only to look at
figure, axis = plt.subplots(figsize=(6.5, 2.2), layout="constrained")
axis.bar(names, np.bincount(code, minlength=num) / len(code), color=[code_color(k) for k in range(num)])
axis.set(ylabel="share", title=f"{len(code):,} transitions")
axis.tick_params(axis="x", rotation=30)
plt.show()

# %% [markdown]
# ## How did the robot really move?
#
# The true motion of the gripper in each transition, which no model has seen, colored by the inferred code. Dots are
# transitions, arrows are means. An action with one meaning is one cloud with one arrow.

# %%
if motion is not None:
    views = (
        (1, 0, "left  ←  y  →  right (cm)", "x: away from the robot (cm)", -1),
        (0, 2, "x: away (cm)", "z: up (cm)", 1),
    )
    figure, axes = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained")
    for axis, (across, along, x_label, y_label, sign) in zip(axes, views, strict=True):
        for k in range(num):
            points = 100 * motion[code == k]
            if not len(points):
                continue
            axis.scatter(sign * points[:, across], points[:, along], s=4, alpha=0.25, color=code_color(k))
            tip = sign * points[:, across].mean(), points[:, along].mean()
            if np.hypot(*tip) < 0.5:  # cm: it moves in another plane, or not at all
                continue
            axis.annotate("", tip, (0, 0), arrowprops={"color": code_color(k), "width": 2, "headwidth": 8})
            frame = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1}
            axis.annotate(
                names[k], tip, (4, 6), textcoords="offset points", color=code_color(k), weight="bold", bbox=frame
            )
        axis.set(xlabel=x_label, ylabel=y_label, aspect="equal")
        axis.axhline(0, lw=0.5, color="0.7")
        axis.axvline(0, lw=0.5, color="0.7")
    plt.show()
    between = sum((code == k).sum() * (motion[code == k].mean(0) - motion.mean(0)) ** 2 for k in np.unique(code))
    explained = between.sum() / ((motion - motion.mean(0)) ** 2).sum()
    print(f"The code alone explains {explained:.0%} of the motion's variance (on these transitions, not held out).")

# %% [markdown]
# ## The latent space
#
# The first two principal components of the latents, in the space in which the quantizer measures distances: colored by
# code (left) and by the robot's true motion (right).

# %%
quantizer = genie.latent_action.quantizer
plane = PCA(2).fit_transform(quantizer.whiten(quantizer.normalize(torch.from_numpy(latent))).numpy())
figure, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
axes[0].scatter(*plane.T, s=5, c=[code_color(k) for k in code])
axes[0].set_title("by code")
if motion is not None:
    direction = np.clip(0.5 + motion / (4 * motion.std(0)), 0, 1)  # red: x, green: y, blue: z
    axes[1].scatter(*plane.T, s=5, c=direction)
    axes[1].set_title("by true motion (red x, green y, blue z)")
for axis in axes:
    axis.set(xticks=[], yticks=[])
plt.show()

# %% [markdown]
# ## Which action follows which?
#
# The robot moves along one axis for a while, so most mass lies on the diagonal. Other entries show the order of motions in
# the data, not a property of the model.

# %%
follows = np.zeros((num, num))
for a, b, same in zip(code[:-1], code[1:], episode_of[:-1] == episode_of[1:], strict=True):
    follows[a, b] += same
follows /= np.maximum(1, follows.sum(1, keepdims=True))
figure, axis = plt.subplots(figsize=(4.8, 4), layout="constrained")
image = axis.imshow(follows, cmap="Blues", vmin=0, vmax=1)
axis.set(xticks=range(num), yticks=range(num), yticklabels=names, xlabel="next", title="P(next | now)")
axis.set_xticklabels(names, rotation=45, ha="right")
figure.colorbar(image)
plt.show()

# %% [markdown]
# ## Does a code mean the same in every scene?
#
# Each cell is the cosine between a code's mean motion in one episode and in all other episodes (1: the same direction). If
# codes meant something else in each scene, this would be a patchwork. `genie-robotics evaluate` turns it into a number
# (`ctc`) with a null, an oracle and an interval: see `03_read_a_consistency_report`.

# %%
if motion is not None:
    agreement = np.full((split.num_episodes, num), np.nan)
    for episode in range(split.num_episodes):
        for k in range(num):
            own, others = (code == k) & (episode_of == episode), (code == k) & (episode_of != episode)
            if own.sum() >= 2 and others.any():
                a, b = motion[own].mean(0), motion[others].mean(0)
                agreement[episode, k] = a @ b / max(1e-9, np.linalg.norm(a) * np.linalg.norm(b))
    figure, axis = plt.subplots(figsize=(6.5, 3), layout="constrained")
    image = axis.imshow(agreement.T, cmap="RdBu", vmin=-1, vmax=1, aspect="auto")
    axis.set(
        yticks=range(num),
        yticklabels=names,
        xlabel="episode (each in another scene)",
        title="cosine with the other episodes (higher is better)",
    )
    figure.colorbar(image)
    plt.show()
    print(f"median {np.nanmedian(agreement):.2f}; codes without motion of the arm have no direction")

# %% [markdown]
# ## Play it yourself
#
# `genie-robotics play nano-tabletop` opens the same world in the browser. In Python, playing is a loop:

# %%
world = genie.start(starts[0], seed=0)
pictures = [world.frame.numpy()] + [world.step(k).numpy() for k in (2, 2, 0, 0)]
world.undo(2)
pictures += [world.step(k).numpy() for k in (5, 5)]
figure, axes = plt.subplots(1, len(pictures), figsize=(9, 1.6), layout="constrained")
titles = ["start", *(f"then {names[k]}" for k in (2, 2, 0, 0)), *(f"undone: {names[k]}" for k in (5, 5))]
for axis, picture, title in zip(axes, pictures, titles, strict=True):
    axis.imshow(picture)
    axis.set_title(title, fontsize=7)
    axis.axis("off")
plt.show()
