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
# # Reading a consistency report
#
# *Does the same latent action mean the same motion in every trajectory?* The report answers with numbers. To know what a number
# says, it helps to have seen it on codes whose answer is known. Here six kinds of codes are planted on the same motions, from codes that mean
# one thing everywhere to codes that know everything except what moves; each metric is looked at on all six. Then the same is asked
# of the world that comes with the package.
#
# Three minutes on two cores, nothing is downloaded. Your own codes: `genie-robotics score latents.npz` (docs/score_your_latents.md).

# %%
from pathlib import Path
from tempfile import mkdtemp

import matplotlib.pyplot as plt
import numpy as np

from genie_datasets import fit_frames, open_source
from genie_datasets.tabletop.generate import generate
from genie_eval.codes.planted import autocorrelated_codes, planted_transitions, quantized, with_label_noise
from genie_eval.score.score import score
from genie_robotics import Genie

EPISODES = 24
TRAJECTORIES = 100
plt.rcParams["figure.dpi"] = 72
folder = Path(mkdtemp())

# %% [markdown]
# ## Motions, and six kinds of codes
#
# The motions are smooth, as a robot's are, with a habit that all trajectories share (they begin and end alike) and a style of each. The codes:
#
# | codes | what they are | what should be said of them |
# |---|---|---|
# | oracle | k-means of the motion itself | they tell all that eight codes can, the same everywhere |
# | half noise | the oracle, half of its codes drawn at random | they tell much less, but that is the same everywhere |
# | own language | the oracle, but every trajectory renames the codes for itself | no code means anything beyond its trajectory |
# | chatter | codes that dwell like real ones and know nothing | nothing is told; there is nothing to be consistent about |
# | clock | the time within the trajectory, in eight parts | nothing of the motion, much of where the arm is |
# | place | where the arm is, not how it moves | little of the motion, all of where the arm is |

# %%
table = planted_transitions(trajectories=TRAJECTORIES, length=40, seed=0)
motion, step, trajectory = table.motions["base"], table.step, table.trajectory
oracle = quantized(motion)
rng = np.random.default_rng(1)
rename = np.stack([rng.permutation(8) for _ in range(TRAJECTORIES)])
planted = {
    "oracle": oracle,
    "half noise": with_label_noise(oracle, 0.5, 8, seed=1),
    "own language": rename[trajectory, oracle],
    "chatter": autocorrelated_codes(TRAJECTORIES, 40, seed=1),
    "clock": step * 8 // 40,
    "place": quantized(table.position),
}
figure, axes = plt.subplots(1, 6, figsize=(13, 2.5), layout="constrained", sharex=True, sharey=True)
for axis, (name, codes) in zip(axes, planted.items(), strict=True):
    axis.scatter(motion[:, 0], motion[:, 1], s=2, c=codes, cmap="Set1")
    axis.set(title=name, xticks=[], yticks=[])
axes[0].set(xlabel="motion along x", ylabel="along y")
plt.show()

# %% [markdown]
# Each dot is a transition, coloured by its code. Only where colours form regions does a code mean a motion.
#
# ## What the metrics say
#
# - `ctc`: of what a code means in one trajectory, the share that it means in all others. The headline.
# - `grounding` (skill): of the motion that 8 codes *could* explain, the share that these explain in trajectories they were not fitted on.
# - `state_leak`: how much of *where the arm is* the code tells beyond what the motion itself tells.
#
# Each has a null (0), an oracle (1) and an interval over trajectories: bars without an interval above 0 say nothing.


# %%
def measured(name, codes, motion, trajectory, step, **more):
    path = folder / f"{name.replace(' ', '_')}.npz"
    names = np.array(["x", "y", "z"])
    np.savez(path, codes=codes, motion=motion, trajectory=trajectory, step=step, motion_names=names, **more)
    return score(path, folder / path.stem)


reports = {name: measured(name, codes, motion, trajectory, step, state=table.state) for name, codes in planted.items()}


def bars(reports, metrics, title):
    figure, axes = plt.subplots(1, len(metrics), figsize=(4.2 * len(metrics), 2.6), layout="constrained", sharey=True)
    for axis, (metric, field) in zip(np.atleast_1d(axes), metrics, strict=True):
        for row, report in enumerate(reports.values()):
            entry = report["metrics"][metric]
            if entry[field] is None:
                axis.text(0.02, row, "not known", va="center", fontsize=8)
                continue
            axis.barh(row, entry[field], color="#2b6cb0" if entry["verdict"] == "pass" else "#a0aec0")
            if entry["ci95"] and field == "value":
                axis.plot(entry["ci95"], [row, row], color="k", lw=1.5)
        axis.axvline(0, color="0.4", lw=0.8)
        axis.set_xlim(-0.15, 1.2)
        axis.set(
            title=metric + (" (skill)" if field == "skill" else ""),
            yticks=range(len(reports)),
            yticklabels=list(reports),
        )
    np.atleast_1d(axes)[0].invert_yaxis()
    figure.suptitle(title)
    plt.show()


bars(reports, [("ctc", "value"), ("grounding_r2", "skill"), ("state_leak", "value")], "six kinds of planted codes")

# %% [markdown]
# - **Half noise** shows that these are two questions. Noise halves the codes that are right, and what they tell falls to a quarter (`grounding`, a
#   share of variance); what is left means the same in every trajectory (`ctc` near 1).
# - **Own language** is perfect inside every trajectory and means nothing between them: both read 0. A figure of one trajectory, or a probe
#   fitted on each, would not notice.
# - Where codes mean nothing even inside a trajectory (**chatter**, **clock**, **place**), `ctc` is *not known*, not 0: a share of nothing.
#   `grounding` has said so already.
# - **Place** is what a latent action model learns when it copies the frame instead of the change, and **clock** what it learns from habits:
#   `state_leak` sees both.

# %% [markdown]
# ## What the report says in words

# %%
for name, report in reports.items():
    print(f"{name}: {report['summary']['answer']}")

# %% [markdown]
# ## The same, asked of a model
#
# The world that comes with the package, on simulated episodes of scenes that it never saw. Its codes are inferred from pictures; the
# motions are the simulator's, which no model has seen. Random codes of the same habits stand beside it.

# %%
generate(folder / "data", episodes=EPISODES, seed=4343, splits={"test": 1.0}, family="easy", scenes=EPISODES)
split = open_source(folder / "data").split("test")
genie = Genie.from_pretrained("nano-tabletop")
columns = {"codes": [], "motion": [], "trajectory": [], "step": [], "state": []}
for episode in range(split.num_episodes):
    frames = fit_frames(split.frames(episode), genie.config.image_size, genie.config.fit)
    truth = split.truth(episode)
    num = len(frames) - 1
    columns["codes"].append(genie.infer_actions(frames[None])[0].numpy())
    columns["motion"].append(truth.motion(np.arange(num + 1))["base"])
    columns["trajectory"].append(np.full(num, episode))
    columns["step"].append(np.arange(num))
    columns["state"].append(truth.position[:num])
model = {name: np.concatenate(parts) for name, parts in columns.items()}
shuffled = model | {"codes": np.random.default_rng(0).permutation(model["codes"])}
asked = {
    "nano-tabletop": measured(
        "model", **{k: model[k] for k in ("codes", "motion", "trajectory", "step")}, state=model["state"]
    ),
    "its codes, shuffled": measured(
        "shuffled", **{k: shuffled[k] for k in ("codes", "motion", "trajectory", "step")}, state=model["state"]
    ),
}
bars(asked, [("ctc", "value"), ("grounding_r2", "skill"), ("state_leak", "value")], f"{EPISODES} unseen scenes")

# %% [markdown]
# ## The ladder
#
# A number alone invites belief. The ladder puts the model between codes that cannot be beaten and codes that know nothing; every rung is
# measured on the same transitions in the same way.

# %%
ladder = [rung for rung in asked["nano-tabletop"]["ladder"] if rung.get("grounding_r2") is not None]
ladder.sort(key=lambda rung: rung["grounding_r2"])
figure, axis = plt.subplots(figsize=(7, 0.32 * len(ladder) + 0.8), layout="constrained")
colours = ["#c05621" if rung["name"] == "model" else "#a0aec0" for rung in ladder]
axis.barh([rung["name"] for rung in ladder], [rung["grounding_r2"] for rung in ladder], color=colours)
axis.set(xlabel="grounding_r2: share of the motion's variance that the codes tell, in other trajectories")
axis.axvline(0, color="0.4", lw=0.8)
plt.show()

# %% [markdown]
# With few trajectories every verdict is called exploratory, and intervals are wide: 200 or more settle it. The full suite, with dreams,
# counterfactual futures and altered input, is `genie-robotics evaluate`; what it read for this world is in `eval/reference/nano-tabletop`.
