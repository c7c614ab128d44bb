"""What is left of a dream after 500 steps: docs/images/long_dream.png. python tools/long_dream.py RUN SRC OUT.png

From starts of unseen scenes, random actions, and actions that come back: three of one code, then three of its opposite.
By windows of 50 steps: the bits of a command that an independent judge reads back from the dream, and how far the
pictures' still parts have moved from where they were in the start.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from genie_datasets import fit_frames, open_source
from genie_robotics import Genie
from genie_robotics.labeling.code_meanings import code_meanings
from genie_robotics.pretrained import judge_of, locate

NUM_STARTS, NUM_STEPS, WINDOW = 12, 500, 50
SHOWN = (0, 10, 25, 50, 100, 200, 300, 400, 500)
STILL = 2.0  # SD over an episode, of 255: a pixel that nothing passes


def main(run: str, data: str, out: str) -> None:
    genie = Genie.from_pretrained(run)
    judge_run = judge_of(run)
    judge = genie if judge_run is None else Genie.from_pretrained(judge_run)
    split = open_source(data).split("test")
    episodes = np.linspace(0, split.num_episodes - 1, NUM_STARTS).astype(int)
    clips = [fit_frames(split.frames(e), genie.config.image_size, genie.config.fit) for e in episodes]
    starts = np.stack([clip[0] for clip in clips])
    still = np.stack([clip.astype(float).std(0).max(-1) < STILL for clip in clips])
    real = bits(*(np.concatenate(side) for side in zip(*(own_and_judge(genie, judge, c) for c in clips), strict=True)))
    print(f"bits of the model's own codes that the judge reads in the recorded episodes: {real:.2f}")
    films, told, away = [], [], []
    for name, codes in commands(genie, run).items():
        dreams = genie.generate(starts[:, None], codes, seed=0).numpy()
        films.append(np.concatenate([starts[:, None], dreams], 1))
        pairs = np.stack([films[-1][:, :-1], films[-1][:, 1:]], 2).reshape(-1, 2, *starts.shape[1:])
        read = np.concatenate([judge.infer_actions(part).numpy().ravel() for part in np.array_split(pairs, 50)])
        read = read.reshape(codes.shape)
        told.append([bits(codes[:, w].ravel(), read[:, w].ravel()) for w in windows()])
        away.append([change(dreams[:, w], starts, still) for w in windows()])
        for window, number, far in zip(windows(), told[-1], away[-1], strict=True):
            print(f"{name}, steps {window.start:>3} to {window.stop:>3}: {number:.2f} bits, {far:.1f} of 255 away")
    draw(films, told, away, real, out)


def windows() -> list[slice]:
    return [slice(first, first + WINDOW) for first in range(0, NUM_STEPS, WINDOW)]


def change(dreams: np.ndarray, starts: np.ndarray, still: np.ndarray) -> float:
    difference = np.abs(dreams.astype(float) - starts[:, None]).mean(-1)
    return float(np.mean([difference[i][:, still[i]].mean() for i in range(len(starts))]))


def commands(genie: Genie, run: str) -> dict[str, np.ndarray]:
    """{name: (NUM_STARTS, NUM_STEPS) codes}."""
    rng = np.random.default_rng(0)
    number = genie.config.num_actions
    motions = np.stack([np.asarray(m.motion) for m in code_meanings(locate(run), number)])
    motions /= np.linalg.norm(motions, axis=1, keepdims=True)
    opposite = (motions @ motions.T).argmin(1)
    first = rng.integers(number, size=(NUM_STARTS, -(-NUM_STEPS // 6)))
    back = np.stack([first] * 3 + [opposite[first]] * 3, 2).reshape(NUM_STARTS, -1)[:, :NUM_STEPS]
    return {"random": rng.integers(number, size=(NUM_STARTS, NUM_STEPS)), "there and back": back}


def own_and_judge(genie: Genie, judge: Genie, clip: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return tuple(model.infer_actions(clip[None]).numpy().ravel() for model in (genie, judge))


def bits(sent: np.ndarray, read: np.ndarray) -> float:
    """Mutual information, less the Miller-Madow bias."""
    table = np.zeros((sent.max() + 1, read.max() + 1))
    np.add.at(table, (sent, read), 1)
    total = table.sum()
    p = table / total
    with np.errstate(divide="ignore", invalid="ignore"):
        information = np.nansum(p * np.log2(p / (p.sum(1, keepdims=True) * p.sum(0, keepdims=True))))
    return float(information - (table.shape[0] - 1) * (table.shape[1] - 1) / (2 * total * np.log(2)))


def draw(films: list, told: list, away: list, real: float, out: str) -> None:
    figure = plt.figure(figsize=(10, 6.2), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=[4, 2.2])
    axes = above.subplots(4, len(SHOWN))
    for row in range(4):
        film, start = films[row // 2], (row % 2) * (NUM_STARTS // 2)
        for column, step in enumerate(SHOWN):
            axes[row, column].imshow(film[start, step])
            axes[row, column].set(xticks=[], yticks=[])
            if not row:
                axes[row, column].set_title(f"step {step}" if step else "start", fontsize=9)
        axes[row, 0].set_ylabel(("random", "there and back")[row // 2], fontsize=8)
    left, right = below.subplots(1, 2)
    ends = [window.stop for window in windows()]
    for name, bits_told, far in zip(("random", "there and back"), told, away, strict=True):
        left.plot(ends, bits_told, "o-", label=name)
        right.plot(ends, far, "o-", label=name)
    left.axhline(real, color="k", linestyle=":", label="real video")
    left.set(ylim=(0, 3), xlabel="step", ylabel="bits", title="of a command, read back by an independent judge")
    left.legend()
    right.set(ylim=(0, None), xlabel="step", ylabel="of 255", title="still parts: away from the start")
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=80)


if __name__ == "__main__":
    main(*sys.argv[1:4])
