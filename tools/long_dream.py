"""Draws what is left of a dream after 500 steps (docs/images/long_dream.png).

    python tools/long_dream.py RUN SRC OUT.png

Dreams start from frames of unseen scenes. Actions are random, or "there and back": three times one code, then three
times its opposite. Two numbers are shown per window of 50 steps: the bits of a command that an independent judge reads
back from the dream, and the difference of the still parts of the picture from the start frame.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Bool, Int, UInt8

from genie_datasets import fit_frames, open_source
from genie_robotics import Genie
from genie_robotics.labeling.code_meanings import code_meanings
from genie_robotics.pretrained import judge_of, locate

NUM_STARTS, NUM_STEPS, WINDOW = 12, 500, 50
WINDOWS = [slice(first, first + WINDOW) for first in range(0, NUM_STEPS, WINDOW)]
SHOWN = (0, 10, 25, 50, 100, 200, 300, 400, 500)
STILL = 2.0  # gray levels: pixels with a smaller SD over the recorded episode are still
Codes = Int[np.ndarray, "N T"]


def main(run: str, data: str, out: str) -> None:
    genie = Genie.from_pretrained(run)
    judge_run = judge_of(run)
    judge = genie if judge_run is None else Genie.from_pretrained(judge_run)
    split = open_source(data).split("test")
    episodes = np.linspace(0, split.num_episodes - 1, NUM_STARTS).astype(int)
    clips = [fit_frames(split.frames(e), genie.config.image_size, genie.config.fit) for e in episodes]
    starts = np.stack([clip[0] for clip in clips])
    still = np.stack([clip.astype(float).std(0).max(-1) < STILL for clip in clips])
    own_and_judge = [
        np.concatenate([model.infer_actions(clip[None]).numpy().ravel() for clip in clips]) for model in (genie, judge)
    ]
    real = bits(*own_and_judge)
    print(f"bits of the model's own codes that the judge reads in the recorded episodes: {real:.2f}")
    videos, read_bits, drift = {}, {}, {}
    for name, codes in commands(genie, run).items():
        dreams = genie.generate(starts[:, None], codes, seed=0).numpy()
        videos[name] = np.concatenate([starts[:, None], dreams], 1)
        pairs = np.stack([videos[name][:, :-1], videos[name][:, 1:]], 2).reshape(-1, 2, *starts.shape[1:])
        read = np.concatenate([judge.infer_actions(part).numpy().ravel() for part in np.array_split(pairs, 50)])
        read = read.reshape(codes.shape)
        read_bits[name] = [bits(codes[:, w].ravel(), read[:, w].ravel()) for w in WINDOWS]
        drift[name] = [change(dreams[:, w], starts, still) for w in WINDOWS]
        for window, found, away in zip(WINDOWS, read_bits[name], drift[name], strict=True):
            print(f"{name}, steps {window.start:>3} to {window.stop:>3}: {found:.2f} bits, {away:.1f} gray levels")
    draw(videos, read_bits, drift, real, out)


def change(
    dreams: UInt8[np.ndarray, "N T H W 3"], starts: UInt8[np.ndarray, "N H W 3"], still: Bool[np.ndarray, "N H W"]
) -> float:
    """Mean difference of the still pixels from the start frames, in gray levels."""
    difference = np.abs(dreams.astype(float) - starts[:, None]).mean(-1)
    return float(np.mean([difference[i][:, still[i]].mean() for i in range(len(starts))]))


def commands(genie: Genie, run: str) -> dict[str, Codes]:
    rng = np.random.default_rng(0)
    number = genie.config.num_actions
    motions = np.stack([np.asarray(m.motion) for m in code_meanings(locate(run), number)])
    motions /= np.linalg.norm(motions, axis=1, keepdims=True)
    opposite = (motions @ motions.T).argmin(1)
    first = rng.integers(number, size=(NUM_STARTS, -(-NUM_STEPS // 6)))
    back = np.stack([first] * 3 + [opposite[first]] * 3, 2).reshape(NUM_STARTS, -1)[:, :NUM_STEPS]
    return {"random": rng.integers(number, size=(NUM_STARTS, NUM_STEPS)), "there and back": back}


def bits(sent: Int[np.ndarray, " n"], read: Int[np.ndarray, " n"]) -> float:
    """Mutual information of two sequences of codes, minus the Miller-Madow bias."""
    table = np.zeros((sent.max() + 1, read.max() + 1))
    np.add.at(table, (sent, read), 1)
    total = table.sum()
    p = table / total
    with np.errstate(divide="ignore", invalid="ignore"):
        information = np.nansum(p * np.log2(p / (p.sum(1, keepdims=True) * p.sum(0, keepdims=True))))
    return float(information - (table.shape[0] - 1) * (table.shape[1] - 1) / (2 * total * np.log(2)))


def draw(
    videos: dict[str, UInt8[np.ndarray, "N T H W 3"]], read_bits: dict[str, list[float]], drift: dict[str, list[float]],
    real: float, out: str,
) -> None:  # fmt: skip
    figure = plt.figure(figsize=(10, 6.2), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=[4, 2.2])
    rows = [(name, start) for name in videos for start in (0, NUM_STARTS // 2)]
    axes = above.subplots(len(rows), len(SHOWN))
    for row, (name, start) in enumerate(rows):
        for column, step in enumerate(SHOWN):
            axes[row, column].imshow(videos[name][start, step])
            axes[row, column].set(xticks=[], yticks=[])
            if not row:
                axes[row, column].set_title(f"step {step}" if step else "start", fontsize=9)
        axes[row, 0].set_ylabel(name, fontsize=8)
    left, right = below.subplots(1, 2)
    ends = [window.stop for window in WINDOWS]
    for name in videos:
        left.plot(ends, read_bits[name], "o-", label=name)
        right.plot(ends, drift[name], "o-", label=name)
    left.axhline(real, color="k", linestyle=":", label="real video")
    left.set(ylim=(0, 3), xlabel="step", ylabel="bits", title="commands read back by an independent judge")
    left.legend()
    right.set(ylim=(0, None), xlabel="step", ylabel="gray levels", title="still parts: difference from the start")
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=80)


if __name__ == "__main__":
    main(*sys.argv[1:4])
