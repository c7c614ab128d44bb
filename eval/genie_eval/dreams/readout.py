"""The physical read-out: where the robot is in a picture, so that a dream can be judged by how it MOVES.

A small convolutional net learns end-effector position (and gripper) from true frames and from what the world model's
own tokenizer makes of them; displacement is the difference of two readings, so whatever a scene adds to both cancels.
Several nets are trained; where they disagree more than on real reconstructions, the read-out abstains. Its error is
measured on the reconstructions of held-out trajectories (specification, "Motion read-out rule").

A net that has only seen pictures with a gripper finds one everywhere, also where a dream has dissolved it. So, where
the truth says where in the picture the gripper is, the nets also learn to tell pictures from which it was cut out, and
the read-out abstains from dreams that look like those.
"""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
from tqdm import tqdm

from genie_eval.collect import Evidence, Trajectory, choose_trajectories, read_frames, to_numpy

if TYPE_CHECKING:
    import torch

    from genie_datasets import Split

PARTS = ("base", "image", "gripper")  # what is read, as far as the truth knows it


@dataclass(frozen=True)
class ReadoutConfig:
    episodes: int = 300
    """Training episodes."""
    rebuilt_episodes: int = 150
    """Of those, how many are shown as the tokenizer's reconstructions too."""
    members: int = 2
    """Nets, each trained on its own draws."""
    steps: int = 240
    """Optimizer steps of each."""
    batch: int = 128
    width: int = 32
    """Channels of the first layer."""
    learning_rate: float = 2e-3
    side: int = 64
    """Larger frames are reduced to side x side."""
    abstain_beyond: float = 0.99
    """Quantile of the members' disagreement on held-out reconstructions above which the read-out abstains."""
    cut_out: float = 0.125
    """Share of every batch from which the gripper is cut out."""


FEWEST_EPISODES = 20  # of training; with fewer the net learns them by heart


class TooFew(Exception):
    """Not enough training episodes."""


@dataclass
class Readout:
    """Trained nets. `columns`: part -> its columns in a reading (D)."""

    members: list[Any]
    mean: Float[np.ndarray, " D"]
    spread: Float[np.ndarray, " D"]
    columns: dict[str, slice]
    side: int
    limit: dict[int, float] = field(default_factory=dict)  # gap -> disagreement (z) above which it abstains
    least_presence: float = -np.inf  # logit below which no gripper is seen
    batch: int = 512

    def positions(self, frames: UInt8[np.ndarray, "n H W 3"]) -> Float[np.ndarray, "m n D"]:
        """What each member sees, in the truth's own units."""
        return self.look(frames)[0]

    def look(self, frames: UInt8[np.ndarray, "n H W 3"]) -> tuple[Float[np.ndarray, "m n D"], Float[np.ndarray, " n"]]:
        """What each member sees, and the mean logit of there being a gripper at all."""
        import torch

        pixels = shrink(frames, self.side)
        with torch.no_grad():
            rows = [
                np.concatenate(
                    [
                        net(as_input(pixels[first : first + self.batch])).numpy()
                        for first in range(0, len(pixels), self.batch)
                    ]
                )
                for net in self.members
            ]
        seen = np.stack(rows).astype(np.float64)
        return seen[..., :-1] * self.spread + self.mean, seen[..., -1].mean(axis=0)

    def displacement(
        self, before: UInt8[np.ndarray, "n H W 3"], after: UInt8[np.ndarray, "n H W 3"]
    ) -> tuple[Float[np.ndarray, "n D"], Float[np.ndarray, " n"]]:
        """How far it moved between two pictures, and how much the members disagree on it (largest z over base)."""
        moved = self.positions(after) - self.positions(before)
        return moved.mean(axis=0), self.disagreement(moved)

    def disagreement(self, moved: Float[np.ndarray, "m n D"]) -> Float[np.ndarray, " n"]:
        base = self.columns["base"]
        return (moved[..., base].std(axis=0) / self.spread[base]).max(axis=-1)

    def unsure(self, disagreement: Float[np.ndarray, " n"], gap: int) -> Bool[np.ndarray, " n"]:
        """Where it abstains. `gap`: steps between the two pictures; the nearest calibrated one counts."""
        if not self.limit:
            return np.zeros(len(disagreement), bool)
        return disagreement > self.limit[min(self.limit, key=lambda known: abs(known - gap))]


def train_readout(
    genie: Any, split: "Split", trajectories: list[Trajectory], config: ReadoutConfig, seed: int, progress: bool
) -> Readout:
    """Trains on trajectories that are not evaluated. Raises TooFew."""
    import torch

    frames, rebuilt, targets, columns, trajectory = _examples(genie, split, trajectories, config, progress)
    at = targets[:, columns["image"]] if "image" in columns else None
    cutter = None if at is None else GripperCutter(at, trajectory, frames.shape[1:3])
    mean, spread = targets.mean(axis=0), np.maximum(targets.std(axis=0), 1e-9)
    scaled = ((targets - mean) / spread).astype(np.float32)
    members = []
    with torch.random.fork_rng():
        for member in range(config.members):
            torch.manual_seed(seed * 100 + member)
            rng = np.random.default_rng((seed, member))
            members.append(_train(frames, rebuilt, scaled, cutter, config, rng, f"read-out {member + 1}", progress))
    return Readout(members, mean, spread, columns, config.side)


def readout_or_why(
    genie: Any, evaluated: "Split", train: "Split | None", evidence: Evidence, config: ReadoutConfig, seed: int,
    progress: bool,
) -> Readout | str:  # fmt: skip
    """Trained on `train`, or on what of the evaluated split is not evaluated; or why there is none, in words."""
    problem = evidence.table.why_unusable("base")
    if problem:
        return problem
    split, limit = (evaluated, None) if train is None else (train, config.episodes)
    chosen, _ = choose_trajectories(split, genie.config.gap, limit, seed)
    if train is None:
        taken = {t.episode for t in evidence.trajectories}
        chosen = [t for t in chosen if t.episode not in taken]
    try:
        return train_readout(genie, split, chosen, config, seed, progress)
    except TooFew as error:
        return f"{error}; give a source with a train split, or evaluate fewer --trajectories"


def inverse_dynamics(readout: Readout, genie: Any, evaluated: "Split", evidence: Evidence) -> Float[np.ndarray, "M 3"]:
    """Displacement of every real transition, read from its two true frames: what supervision gets from these pixels."""
    rows = []
    for trajectory in evidence.trajectories:
        seen = readout.positions(read_frames(evaluated, trajectory, genie))
        rows.append(np.diff(seen.mean(axis=0), axis=0)[:, readout.columns["base"]])
    return np.concatenate(rows)


def _examples(
    genie: Any, split: "Split", trajectories: list[Trajectory], config: ReadoutConfig, progress: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, slice], np.ndarray]:
    """(n, h, w, 3) true frames, the first of them rebuilt, (n, D) what is true of them, (n,) of which trajectory."""
    frames, rebuilt, targets = [], [], []
    columns: dict[str, slice] = {}
    known = [t for t in trajectories if split.truth(t.episode) is not None][: config.episodes]
    if len(known) < FEWEST_EPISODES:
        raise TooFew(f"a read-out needs {FEWEST_EPISODES} training episodes with true motion and has {len(known)}")
    for number, trajectory in enumerate(tqdm(known, desc="read-out: frames", unit="episode", disable=not progress)):
        truth = split.truth(trajectory.episode)
        parts = {"base": truth.position, "image": truth.image_position, "gripper": truth.gripper}
        values = {name: v.reshape(len(v), -1)[trajectory.ids] for name, v in parts.items() if v is not None}
        if not columns:
            edges = np.cumsum([0, *(v.shape[1] for v in values.values())])
            columns = {name: slice(a, b) for name, a, b in zip(values, edges[:-1], edges[1:], strict=True)}
        targets.append(np.concatenate([values[name] for name in columns], axis=1))
        clip = read_frames(split, trajectory, genie)
        frames.append(shrink(clip, config.side))
        if number < config.rebuilt_episodes:
            rebuilt.append(shrink(to_numpy(genie.detokenize(genie.tokenize(clip[None])))[0], config.side))
    owner = np.repeat(np.arange(len(frames)), [len(clip) for clip in frames])
    return np.concatenate(frames), np.concatenate(rebuilt), np.concatenate(targets), columns, owner


def _train(
    frames: np.ndarray, rebuilt: np.ndarray, targets: np.ndarray, cutter: "GripperCutter | None", config: ReadoutConfig,
    rng: np.random.Generator, name: str, progress: bool,
) -> "torch.nn.Module":  # fmt: skip
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits, smooth_l1_loss

    net = _net(config.width, frames.shape[1:3], targets.shape[1] + 1)
    absent = 0 if cutter is None else max(1, int(config.cut_out * config.batch))
    optimizer = torch.optim.AdamW(net.parameters(), config.learning_rate, weight_decay=0.05)
    warm = max(1, min(50, config.steps // 4))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1, (step + 1) / warm) * (1 - step / config.steps)
    )
    for step in tqdm(range(config.steps), desc=name, unit="step", disable=not progress):
        # dreams are made of the tokenizer's pixels: three batches in four show those
        source = rebuilt if step % 4 else frames
        rows = rng.integers(len(source), size=config.batch)
        shown, there = source[rows], np.ones(len(rows), np.float32)
        if cutter is not None:
            there[:absent] = 0
            shown = cutter(source, rows, there, rng)
        pixels = as_input(shown)
        light = torch.from_numpy(rng.normal((1, 0), (0.2, 0.1), size=(len(rows), 2)).astype(np.float32))
        pixels = pixels * light[:, 0, None, None, None] + light[:, 1, None, None, None]
        seen = net(pixels)
        loss = smooth_l1_loss(seen[absent:, :-1], torch.from_numpy(targets[rows[absent:]]), beta=0.5)
        if cutter is not None:
            loss = loss + 0.1 * binary_cross_entropy_with_logits(seen[:, -1], torch.from_numpy(there))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return net.eval()


def _net(width: int, size: tuple[int, int], outputs: int) -> "torch.nn.Module":
    """Five convolutions down to an eighth of the size, then two layers that know every place of it."""
    from torch import nn

    def block(channels_in: int, channels: int, kernel: int, stride: int) -> list[nn.Module]:
        convolution = nn.Conv2d(channels_in, channels, kernel, stride, kernel // 2, bias=False)
        return [convolution, nn.BatchNorm2d(channels), nn.ReLU()]

    places = -(-size[0] // 8) * -(-size[1] // 8)
    net = nn.Sequential(
        *block(3, width, 5, 2),
        *block(width, 2 * width, 3, 2),
        *block(2 * width, 2 * width, 3, 1),
        *block(2 * width, 4 * width, 3, 2),
        *block(4 * width, 4 * width, 3, 1),
        nn.Flatten(),
        nn.Linear(4 * width * places, 256),
        nn.ReLU(),
        nn.Linear(256, outputs),
    )
    import torch

    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


WINDOW = 0.2  # of the picture's sides, to each side of the gripper


class GripperCutter:
    """Cuts the gripper out of pictures, and pastes what is behind it from another moment of the same trajectory.

    Of pictures that keep their gripper every second gets a piece pasted elsewhere: a seam must not tell.
    """

    def __init__(self, at: Float[np.ndarray, "n 2"], trajectory: np.ndarray, size: tuple[int, int]):
        self.at, self.size = np.nan_to_num(at), size
        self.half = max(2, round(WINDOW * min(size)))
        first = np.searchsorted(trajectory, np.arange(trajectory[-1] + 2))
        self.donor, self.far = np.empty(len(at), np.int64), np.empty(len(at))
        for begin, end in pairwise(first):  # the moment with the gripper furthest away
            distance = np.abs(self.at[begin:end, None] - self.at[None, begin:end]).max(axis=-1)
            self.donor[begin:end] = begin + distance.argmax(axis=1)
            self.far[begin:end] = distance.max(axis=1)

    def __call__(
        self, source: UInt8[np.ndarray, "n h w 3"], rows: np.ndarray, there: np.ndarray, rng: np.random.Generator
    ) -> UInt8[np.ndarray, "b h w 3"]:
        """The pictures `rows`; where `there` is 0 without gripper. Sets `there` to 1 where none can be cut out."""
        frames = source[rows].copy()
        for i, row in enumerate(rows):
            if not there[i]:
                if self.far[row] > 1.5 * WINDOW:
                    self._paste(frames[i], source[self.donor[row]], self.at[row])
                else:
                    there[i] = 1
            elif rng.random() < 0.5:
                place = rng.random(2)
                apart = np.abs(place - self.at[[row, self.donor[row]]]).max(axis=1)
                if apart.min() > 1.5 * WINDOW:
                    self._paste(frames[i], source[self.donor[row]], place)
        return frames

    def _paste(self, frame: np.ndarray, other: np.ndarray, place: np.ndarray) -> None:
        column, line = (place * np.array(self.size[::-1])).astype(int)
        window = (slice(max(0, line - self.half), max(0, line + self.half)),
                  slice(max(0, column - self.half), max(0, column + self.half)))  # fmt: skip
        frame[window] = other[window]


def shrink(frames: UInt8[np.ndarray, "n H W 3"], side: int) -> UInt8[np.ndarray, "n h w 3"]:
    """At most side x side; the aspect does not matter to the net, only that it is always the same."""
    if max(frames.shape[1:3]) <= side:
        return frames
    import cv2

    return np.stack([cv2.resize(frame, (side, side), interpolation=cv2.INTER_AREA) for frame in frames])


def as_input(frames: UInt8[np.ndarray, "n h w 3"]) -> "torch.Tensor":
    import torch

    pixels = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return pixels.contiguous(memory_format=torch.channels_last)
