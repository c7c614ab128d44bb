"""Motion read-out: small networks that read the robot's position from a frame, to measure how a dream moves.

A convolutional network learns the end effector's position (and the gripper's opening) from true frames and from their
reconstructions by the world model's tokenizer. A displacement is the difference of two readings, so a constant offset
of a scene cancels. Several networks are trained; where they disagree more than on reconstructions of real video, the
read-out abstains. Its error is measured on reconstructions of held-out trajectories (`readout_error`).

A network that has only seen frames with a gripper finds one in every frame, even where a dream has dissolved it. Where
the truth holds the gripper's place in the image, the networks therefore also learn to recognize frames from which it
was cut out, and the read-out abstains from dreams that look like those.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
from tqdm import tqdm

from genie_datasets.base.cores import num_cores
from genie_eval.collect import Evidence, Trajectory, choose_trajectories, exhaust, read_frames, to_numpy
from genie_eval.interfaces import WorldModel

if TYPE_CHECKING:
    import torch

    from genie_datasets import Split

MIN_EPISODES = 20  # of training; the network memorizes fewer
CUT_HALF_SIDE = 0.2  # of the frame's shorter side: the cut-out square reaches so far to each side of the gripper


@dataclass(frozen=True)
class ReadoutConfig:
    """Size and training of the motion read-out."""

    episodes: int = 300
    """Training episodes."""
    rebuilt_episodes: int = 150
    """Training episodes that are also shown as reconstructions."""
    members: int = 2
    """Networks, each trained with its own random draws."""
    steps: int = 240
    """Optimizer steps per network."""
    batch: int = 128
    """Frames per optimizer step."""
    width: int = 32
    """Channels of the first layer."""
    learning_rate: float = 2e-3
    """Peak learning rate."""
    side: int = 64
    """Larger frames are reduced to side x side pixels."""
    abstain_beyond: float = 0.99
    """Quantile of the disagreement on held-out reconstructions above which the read-out abstains."""
    cut_out: float = 0.125
    """Share of a batch from which the gripper is cut out."""


@dataclass
class Readout:
    """Trained networks. `columns`: part of the motion -> its columns among the D numbers that a network reads."""

    members: list[Any]
    mean: Float[np.ndarray, " D"]
    spread: Float[np.ndarray, " D"]
    columns: dict[str, slice]
    side: int
    limit: dict[int, float] = field(default_factory=dict)  # steps -> disagreement (z) above which it abstains
    min_presence: float = -np.inf  # logit below which no gripper is seen
    abstain_beyond: float = 0.99  # quantile of the disagreement from which `limit` is set
    batch: int = 512

    def read(self, frames: UInt8[np.ndarray, "n H W 3"]) -> tuple[Float[np.ndarray, "m n D"], Float[np.ndarray, " n"]]:
        """Readings of each of m networks, in the units of the truth, and the mean logit that a gripper is present."""
        import torch

        pixels = shrink(frames, self.side)
        batches = [pixels[first : first + self.batch] for first in range(0, len(pixels), self.batch)]
        with torch.no_grad():
            rows = [np.concatenate([net(to_input(batch)).numpy() for batch in batches]) for net in self.members]
        readings = np.stack(rows).astype(np.float64)
        return readings[..., :-1] * self.spread + self.mean, readings[..., -1].mean(axis=0)

    def positions(self, frames: UInt8[np.ndarray, "n H W 3"]) -> Float[np.ndarray, "m n D"]:
        """Readings of each of m networks, in the units of the truth."""
        return self.read(frames)[0]

    def disagreement(self, moved: Float[np.ndarray, "m *n D"]) -> Float[np.ndarray, "*n"]:
        """Standard deviation of the networks' displacements in the base frame, in SDs of position; the largest axis."""
        base = self.columns["base"]
        return (moved[..., base].std(axis=0) / self.spread[base]).max(axis=-1)

    def abstains(self, disagreement: Float[np.ndarray, "*n"], steps: int) -> Bool[np.ndarray, "*n"]:
        """True where the networks disagree too much on a displacement over `steps` (or the nearest calibrated gap)."""
        if not self.limit:
            return np.zeros(disagreement.shape, bool)
        return disagreement > self.limit[min(self.limit, key=lambda known: abs(known - steps))]


def train_readout(
    world: WorldModel, split: "Split", trajectories: list[Trajectory], config: ReadoutConfig, seed: int, progress: bool
) -> Readout:
    """Trains on trajectories with true motion that are not evaluated."""
    import torch

    frames, reconstructed, targets, columns, trajectory = _examples(world, split, trajectories, config, progress)
    gripper = targets[:, columns["image"]] if "image" in columns else None
    cutter = None if gripper is None else GripperCutter(gripper, trajectory, frames.shape[1:3])
    mean, spread = targets.mean(axis=0), np.maximum(targets.std(axis=0), 1e-9)
    scaled = ((targets - mean) / spread).astype(np.float32)
    members = []
    with torch.random.fork_rng():
        for member in range(config.members):
            torch.manual_seed(seed * 100 + member)
            members.append(_network(config.width, frames.shape[1:3], scaled.shape[1] + 1))
    bar = tqdm(total=config.members * config.steps, desc="read-out", unit="step", disable=not progress)

    def train(member: int) -> None:
        rng = np.random.default_rng((seed, member))
        _train(members[member], frames, reconstructed, scaled, cutter, config, rng, bar)

    # Networks side by side use the cores better than one network on all of them, and give the same numbers.
    with bar, ThreadPoolExecutor(max(1, num_cores() // torch.get_num_threads())) as pool:
        exhaust(pool.map(train, range(config.members)))
    return Readout(members, mean, spread, columns, config.side, abstain_beyond=config.abstain_beyond)


def readout_or_reason(
    world: WorldModel, evaluated: "Split", train: "Split | None", evidence: Evidence, config: ReadoutConfig, seed: int,
    progress: bool,
) -> Readout | str:  # fmt: skip
    """A read-out trained on `train` or, without it, on the episodes that are not evaluated; or why there is none."""
    problem = evidence.table.why_unusable("base")
    if problem:
        return problem
    split, limit = (evaluated, None) if train is None else (train, config.episodes)
    chosen, _ = choose_trajectories(split, world.config.gap, limit, seed)
    if train is None:
        taken = {t.episode for t in evidence.trajectories}
        chosen = [t for t in chosen if t.episode not in taken]
    known = [t for t in chosen if split.truth(t.episode) is not None][: config.episodes]
    if len(known) < MIN_EPISODES:
        return (
            f"a read-out needs {MIN_EPISODES} training episodes with true motion and has {len(known)}; use a source "
            "with a train split, or evaluate fewer --trajectories"
        )
    return train_readout(world, split, known, config, seed, progress)


def inverse_dynamics(
    readout: Readout, world: WorldModel, evaluated: "Split", evidence: Evidence
) -> Float[np.ndarray, "M 3"]:
    """Displacement of every real transition, read from its two true frames: the supervised baseline."""
    rows = []
    for trajectory in evidence.trajectories:
        positions = readout.positions(read_frames(world, evaluated, trajectory.episode, trajectory.ids))
        rows.append(np.diff(positions.mean(axis=0), axis=0)[:, readout.columns["base"]])
    return np.concatenate(rows)


def _examples(
    world: WorldModel, split: "Split", trajectories: list[Trajectory], config: ReadoutConfig, progress: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, slice], np.ndarray]:
    """Training examples.

    Returns (n, h, w, 3) true frames; reconstructions of the first of them; (n, D) targets; their columns by part; and
    (n,) the number of each frame's trajectory.
    """
    frames, reconstructed, targets = [], [], []
    columns: dict[str, slice] = {}
    bar = tqdm(trajectories, desc="read-out: frames", unit="episode", disable=not progress)
    for number, trajectory in enumerate(bar):
        truth = split.truth(trajectory.episode)
        parts = {"base": truth.position, "image": truth.image_position, "gripper": truth.gripper}
        values = {name: v.reshape(len(v), -1)[trajectory.ids] for name, v in parts.items() if v is not None}
        if not columns:
            edges = np.cumsum([0, *(v.shape[1] for v in values.values())])
            columns = {name: slice(a, b) for name, a, b in zip(values, edges[:-1], edges[1:], strict=True)}
        targets.append(np.concatenate([values[name] for name in columns], axis=1))
        clip = read_frames(world, split, trajectory.episode, trajectory.ids)
        frames.append(shrink(clip, config.side))
        if number < config.rebuilt_episodes:
            reconstructed.append(shrink(to_numpy(world.reconstruct(clip[None]))[0], config.side))
    trajectory_of = np.repeat(np.arange(len(frames)), [len(clip) for clip in frames])
    return np.concatenate(frames), np.concatenate(reconstructed), np.concatenate(targets), columns, trajectory_of


def _train(
    net: "torch.nn.Module", frames: np.ndarray, reconstructed: np.ndarray, targets: np.ndarray,
    cutter: "GripperCutter | None", config: ReadoutConfig, rng: np.random.Generator, bar: tqdm,
) -> None:  # fmt: skip
    """One network: regression of the position, and classification of frames without a gripper (weight 0.1)."""
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits, smooth_l1_loss

    num_cut = 0 if cutter is None else max(1, int(config.cut_out * config.batch))
    optimizer = torch.optim.AdamW(net.parameters(), config.learning_rate, weight_decay=0.05)
    warmup = max(1, min(50, config.steps // 4))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1, (step + 1) / warmup) * (1 - step / config.steps)
    )
    for step in range(config.steps):
        # three batches in four are reconstructions, because dreams consist of the tokenizer's pixels
        source = reconstructed if step % 4 else frames
        rows = rng.integers(len(source), size=config.batch)
        shown, present = source[rows], np.ones(len(rows), np.float32)
        if cutter is not None:
            present[:num_cut] = 0
            shown = cutter(source, rows, present, rng)
        pixels = to_input(shown)
        light = torch.from_numpy(rng.normal((1, 0), (0.2, 0.1), size=(len(rows), 2)).astype(np.float32))
        pixels = pixels * light[:, 0, None, None, None] + light[:, 1, None, None, None]
        output = net(pixels)
        loss = smooth_l1_loss(output[num_cut:, :-1], torch.from_numpy(targets[rows[num_cut:]]), beta=0.5)
        if cutter is not None:
            loss = loss + 0.1 * binary_cross_entropy_with_logits(output[:, -1], torch.from_numpy(present))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        bar.update()
    net.eval()


def _network(width: int, size: tuple[int, int], outputs: int) -> "torch.nn.Module":
    """Five convolutions down to an eighth of the size, then two fully connected layers."""
    import torch
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
    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class GripperCutter:
    """Replaces the gripper in frames by what is behind it, taken from another moment of the same trajectory.

    Half of the frames that keep their gripper get a patch elsewhere, so that the network cannot go by the seam.

    Args:
        gripper: (n, 2) place of the gripper in each frame, as fractions of width and height.
        trajectory: (n,) number of each frame's trajectory, ascending.
        size: (h, w) of the frames.
    """

    def __init__(self, gripper: Float[np.ndarray, "n 2"], trajectory: np.ndarray, size: tuple[int, int]):
        self.gripper, self.size = np.nan_to_num(gripper), size
        self.half = max(2, round(CUT_HALF_SIDE * min(size)))
        first = np.searchsorted(trajectory, np.arange(trajectory[-1] + 2))
        self.donor, self.donor_distance = np.empty(len(gripper), np.int64), np.empty(len(gripper))
        for begin, end in pairwise(first):  # donor: the moment with the gripper furthest away
            distance = np.abs(self.gripper[begin:end, None] - self.gripper[None, begin:end]).max(axis=-1)
            self.donor[begin:end] = begin + distance.argmax(axis=1)
            self.donor_distance[begin:end] = distance.max(axis=1)

    def __call__(
        self, source: UInt8[np.ndarray, "n h w 3"], rows: np.ndarray, present: np.ndarray, rng: np.random.Generator
    ) -> UInt8[np.ndarray, "b h w 3"]:
        """Frames `rows`, without gripper where `present` is 0. Sets `present` to 1 where it cannot be cut out."""
        frames = source[rows].copy()
        for i, row in enumerate(rows):
            if not present[i]:
                if self.donor_distance[row] > 1.5 * CUT_HALF_SIDE:
                    self._paste(frames[i], source[self.donor[row]], self.gripper[row])
                else:
                    present[i] = 1
            elif rng.random() < 0.5:
                place = rng.random(2)
                distance = np.abs(place - self.gripper[[row, self.donor[row]]]).max(axis=1)
                if distance.min() > 1.5 * CUT_HALF_SIDE:
                    self._paste(frames[i], source[self.donor[row]], place)
        return frames

    def _paste(self, frame: np.ndarray, other: np.ndarray, place: np.ndarray) -> None:
        column, row = (place * np.array(self.size[::-1])).astype(int)
        window = (slice(max(0, row - self.half), max(0, row + self.half)),
                  slice(max(0, column - self.half), max(0, column + self.half)))  # fmt: skip
        frame[window] = other[window]


def shrink(frames: UInt8[np.ndarray, "n H W 3"], side: int) -> UInt8[np.ndarray, "n h w 3"]:
    """Reduces frames larger than side x side to that size. The aspect ratio is not kept."""
    if max(frames.shape[1:3]) <= side:
        return frames
    import cv2

    return np.stack([cv2.resize(frame, (side, side), interpolation=cv2.INTER_AREA) for frame in frames])


def to_input(frames: UInt8[np.ndarray, "n h w 3"]) -> "torch.Tensor":
    """(n, 3, h, w) float, -1 to 1, channels last in memory."""
    import torch

    pixels = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return pixels.contiguous(memory_format=torch.channels_last)
