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
# # The dream against the simulator
#
# A learned world can look right and be wrong. Where the data were simulated, what *would* have happened can be rendered: MuJoCo starts
# from the very picture that the dream starts from, and carries out what each latent action was measured to do. This notebook plays both side by
# side, asks which of eight true futures each dream is, and how far the two drift apart.
#
# Two minutes on two cores. The same, live: `genie-robotics play nano-tabletop`, start *simulated table 1*.

# %%
import matplotlib.pyplot as plt
import numpy as np

from genie_datasets.tabletop import Simulator, sample_scene
from genie_datasets.tabletop.starts import begin
from genie_eval.plotting import code_color
from genie_robotics import Genie
from genie_robotics.labeling.code_meanings import code_meanings
from genie_robotics.player.beside import Beside, decoded, read_motion
from genie_robotics.pretrained import locate

EPISODES = 12  # scenes, none of which anything was trained on
plt.rcParams["figure.dpi"] = 72
genie = Genie.from_pretrained("nano-tabletop")
num, size = genie.config.num_actions, genie.config.image_size
meanings = code_meanings(locate("nano-tabletop"), num)
names = [f"{code + 1} {meaning.name}" for code, meaning in enumerate(meanings)]


def table(seed):
    simulator = Simulator(sample_scene("easy", seed=seed), size)
    begin(simulator, np.random.default_rng(seed), "play")
    return simulator


scenes = [table(870_000 + n) for n in range(EPISODES)]
starts = np.stack([scene.observe().frame for scene in scenes])

# %% [markdown]
# ## Side by side
#
# Above the dream, below the simulator, under the same typed actions. The simulator is never told what the dream shows, nor the dream what the
# simulator does: they only share the first picture and the codes.

# %%
typed = [2, 2, 0, 0, 1, 1, 5, 5]
beside, world = Beside(table(870_000), meanings), genie.start(starts[0], seed=0)
dreamt, simulated = [world.frame.numpy()], [beside.frame]
for code in typed:
    dreamt.append(world.step(code).numpy())
    beside.act(code)
    simulated.append(beside.frame)
figure, axes = plt.subplots(2, len(dreamt), figsize=(1.35 * len(dreamt), 3), layout="constrained")
for column, pictures in enumerate(zip(dreamt, simulated, strict=True)):
    for axis, picture in zip(axes[:, column], pictures, strict=True):
        axis.imshow(picture)
        axis.set(xticks=[], yticks=[])
    axes[0, column].set_title("start" if not column else names[typed[column - 1]], fontsize=8)
axes[0, 0].set_ylabel("dream")
axes[1, 0].set_ylabel("MuJoCo")
plt.show()

# %% [markdown]
# ## Which of eight futures is it?
#
# From each start, the dream of each code (two steps) is compared with the eight true futures. A dream that listens is nearest to its own: the
# diagonal. Chance is one in eight. Pixels that differ between no two futures do not count.

# %%
confusion = np.zeros((num, num))
for scene, start in zip(scenes, starts, strict=True):
    dreams = genie.generate(start[None, None].repeat(num, 0), np.arange(num)[:, None].repeat(2, 1), seed=0)[
        :, -1
    ].numpy()
    state, closed = scene.snapshot(), scene.observe().gripper > 0.5
    truth = []
    for meaning in meanings:
        scene.restore(state)
        for _ in range(2):
            scene.step(decoded(meaning, closed))
        truth.append(scene.observe().frame)
    scene.restore(state)
    truth = np.stack(truth).astype(float)
    moving = truth.std(0).max(-1) > 8  # where futures differ at all
    distance = ((dreams[:, None].astype(float) - truth[None]) ** 2).mean(-1)[:, :, moving].mean(-1)  # (dream, truth)
    confusion[np.arange(num), distance.argmin(1)] += 1 / len(scenes)
figure, axis = plt.subplots(figsize=(5, 4.2), layout="constrained")
image = axis.imshow(confusion, cmap="Blues", vmin=0, vmax=1)
axis.set(xticks=range(num), yticks=range(num), yticklabels=names, xlabel="nearest true future", ylabel="dream of")
axis.set_xticklabels(names, rotation=45, ha="right")
figure.colorbar(image)
plt.show()
print(f"identified: {np.trace(confusion) / num:.0%} (chance {1 / num:.0%}), {EPISODES} scenes")

# %% [markdown]
# ## How far do they drift apart?
#
# Where the dream's arm has gone is read from its frames by the latent action model (the mean motion of the code that it infers between
# two frames), and held against the simulator's measured place. For comparison: a simulator that gets *another* random sequence, and one
# that stands still. Over many steps the dream's errors add up.

# %%
steps, rng = 12, np.random.default_rng(0)
errors = {"the same actions": [], "other actions": [], "standing still": []}
for scene, start in zip(scenes, starts, strict=True):
    state = scene.snapshot()
    sequence, other = (np.repeat(rng.integers(0, num, steps // 2), 2) for _ in range(2))
    world, read, place = genie.start(start, seed=0), np.zeros(3), []
    for code in sequence:
        before = world.frame.numpy()
        read = read + read_motion(genie, [before, world.step(int(code)).numpy()], meanings)
        place.append(read)
    for name, played in (("the same actions", sequence), ("other actions", other), ("standing still", None)):
        scene.restore(state)
        beside = Beside(scene, meanings)
        moved = []
        for t in range(steps):
            if played is not None:
                beside.act(int(played[t]))
            moved.append(beside.moved())
        errors[name].append(100 * np.linalg.norm(np.array(moved) - np.array(place), axis=1))
    scene.restore(state)
figure, axis = plt.subplots(figsize=(6, 3.2), layout="constrained")
for (name, curves), colour in zip(errors.items(), ("#2b6cb0", "#c05621", "#718096"), strict=True):
    curves = np.array(curves)
    axis.plot(range(1, steps + 1), np.median(curves, 0), "o-", color=colour, label=name)
    axis.fill_between(range(1, steps + 1), *np.percentile(curves, [25, 75], 0), color=colour, alpha=0.15)
axis.set(xlabel="step", ylabel="apart (cm)", ylim=(0, None), title=f"median and quartiles of {EPISODES} scenes")
axis.legend(frameon=False)
plt.show()
print({name: f"{np.median(np.array(curves)[:, -1]):.1f} cm after {steps} steps" for name, curves in errors.items()})

# %% [markdown]
# Two things are in this error, and the picture cannot part them: the dream may go elsewhere, and the latent action model may misread it. Where the
# arm leaves the picture, or meets the edge of its reach (the simulator stops there, the dream need not), both happen.

# %%
figure, axes = plt.subplots(1, num, figsize=(1.4 * num, 1.9), layout="constrained")
for code, axis in enumerate(axes):
    frame = genie.generate(starts[:1, None], [[code, code]], seed=0)[0, -1].numpy()
    axis.imshow(frame)
    axis.set_title(names[code], fontsize=8, color=code_color(code))
    axis.axis("off")
figure.suptitle("what each action does from the first start: two steps of the dream", fontsize=9)
plt.show()
