"""One pass over the evaluated trajectories: the model's codes, the true motion, and features for the baselines."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int, UInt8
from tqdm import tqdm

from genie_datasets import frame_step
from genie_datasets.base.errors import UserError
from genie_eval.codes.baselines import Features
from genie_eval.codes.transitions import Transitions
from genie_eval.features import difference_features, flow_features
from genie_eval.interfaces import Array, Judge, WorldModel
from genie_robotics.models.windows import read_transitions

if TYPE_CHECKING:
    from genie_datasets import Split

MIN_FRAMES = 3  # two transitions: one says nothing about consistency inside a trajectory
MAX_FRAMES = 512  # of one trajectory; more frames of the same episode add cost and little evidence


@dataclass(frozen=True)
class Trajectory:
    """An episode as the model sees it: its frames `ids`, the model's `gap` apart."""

    episode: int
    ids: Int[np.ndarray, " T"]


@dataclass(frozen=True)
class Evidence:
    """Everything measured on real frames. Row m of `table` belongs to trajectories[table.trajectory[m]]."""

    trajectories: list[Trajectory]
    table: Transitions
    codes: Int[np.ndarray, " M"]
    features: Features
    skipped: int  # number of episodes that are too short
    embedding: Float[np.ndarray, "M E"] | None = None  # latent actions before quantization


def choose_trajectories(
    split: "Split", gap: float | None, limit: int | None, seed: int
) -> tuple[list[Trajectory], int]:
    """At most `limit` random episodes of a split, in their order, and the number of episodes that are too short.

    Raises:
        UserError: no episode has three frames at this gap.
    """
    steps = [frame_step(gap, float(hz)) for hz in split.hz]
    lengths = [int(-(-n // step)) for n, step in zip(split.num_frames, steps, strict=True)]
    usable = np.array([e for e, n in enumerate(lengths) if n >= MIN_FRAMES], dtype=np.int64)
    if len(usable) == 0:
        raise UserError(
            f"split '{split.name}' has no episode of {MIN_FRAMES} or more frames at a gap of {gap} s; "
            "evaluate longer episodes"
        )
    if limit is not None and len(usable) > limit:
        usable = np.sort(np.random.default_rng(seed).choice(usable, limit, replace=False))
    chosen = [Trajectory(int(e), np.arange(min(lengths[e], MAX_FRAMES)) * steps[e]) for e in usable]
    return chosen, split.num_episodes - sum(n >= MIN_FRAMES for n in lengths)


def read_frames(
    model: Judge, split: "Split", episode: int, ids: np.ndarray | None = None
) -> UInt8[np.ndarray, "T H W 3"]:
    """Frames of an episode (default: all), fitted to the model's size."""
    return split.frames(episode, ids, size=tuple(model.config.image_size), mode=model.config.fit)


def exhaust(items: Iterable[Any]) -> None:
    """Takes all items and keeps none."""
    for _ in items:
        pass


def collect(
    world: WorldModel, split: "Split", gap: float | None, limit: int | None, seed: int, untrained: WorldModel,
    progress: bool,
) -> Evidence:  # fmt: skip
    """Reads the evaluated split once. untrained: a model of the same shape with random weights."""
    trajectories, skipped = choose_trajectories(split, gap, limit, seed)
    inferred: list[tuple[np.ndarray, ...]] = []

    def infer(videos: Iterator[UInt8[np.ndarray, "T H W 3"]]) -> None:
        readers = world.infer_actions, world.embed_actions, untrained.embed_actions
        found = read_transitions(world.config, videos, lambda clips: [to_numpy(read(clips)) for read in readers])
        inferred.extend(found)

    features, truths = _describe(world, split, trajectories, "codes and motion", progress, infer)
    lengths = [len(codes) for codes, *_ in inferred]
    codes, embedding, of_untrained = (np.concatenate(part) for part in zip(*inferred, strict=True))
    table = Transitions(
        trajectory=np.repeat(np.arange(len(lengths)), lengths),
        step=np.concatenate([np.arange(n) for n in lengths]),
        motions=features.motions or {},
        position=_before(trajectories, truths, "position"),
        scene=scenes_of(truths, lengths),
        state=_before(trajectories, truths, "state"),
    )
    features = dataclasses.replace(features, untrained=of_untrained)
    return Evidence(trajectories, table, codes.astype(np.int64), features, skipped, embedding)


def collect_training(
    world: WorldModel, split: "Split", gap: float | None, limit: int, seed: int, progress: bool
) -> Features:
    """Features of some training episodes, on which the baselines are fitted."""
    trajectories, _ = choose_trajectories(split, gap, limit, seed)
    return _describe(world, split, trajectories, "baselines (train)", progress)[0]


def _describe(
    world: WorldModel,
    split: "Split",
    trajectories: list[Trajectory],
    label: str,
    progress: bool,
    visit: Callable[[Iterator[np.ndarray]], object] = exhaust,
) -> tuple[Features, list[Any]]:
    """Features and truths of every trajectory. `visit` gets the frames too, so that they are decoded only once."""
    described, truths = [], []

    def videos() -> Iterator[UInt8[np.ndarray, "T H W 3"]]:
        for trajectory in tqdm(trajectories, desc=label, unit="episode", disable=not progress):
            frames = read_frames(world, split, trajectory.episode, trajectory.ids)
            described.append((*flow_features(frames), difference_features(frames)))
            truths.append(split.truth(trajectory.episode))
            yield frames

    visit(videos())
    flow, by_cell, changes = (np.concatenate(part) for part in zip(*described, strict=True))
    return Features(by_cell, changes, motions={**true_motions(trajectories, truths), "flow": flow}), truths


def true_motions(trajectories: list[Trajectory], truths: list[Any]) -> dict[str, np.ndarray]:
    """name -> (M, D) of the motions that are known in every trajectory."""
    if any(truth is None for truth in truths):
        return {}
    motions = [truth.motion(t.ids) for t, truth in zip(trajectories, truths, strict=True)]
    names = [name for name in motions[0] if all(name in motion for motion in motions)]
    return {name: np.concatenate([motion[name] for motion in motions]) for name in names}


def _before(trajectories: list[Trajectory], truths: list[Any], name: str) -> np.ndarray | None:
    """A column of the truth at the first frame of every transition; None if it is not known everywhere."""
    if any(truth is None or getattr(truth, name) is None for truth in truths):
        return None
    return np.concatenate([getattr(truth, name)[t.ids[:-1]] for t, truth in zip(trajectories, truths, strict=True)])


def scenes_of(truths: list[Any], lengths: list[int]) -> np.ndarray | None:
    """Number of the scene of every transition; None if it is not known everywhere."""
    if any(truth is None or truth.scene is None for truth in truths):
        return None
    labels = np.unique([truth.scene for truth in truths], return_inverse=True)[1]  # scene seeds -> 0, 1, 2 ...
    return np.repeat(labels, lengths)


def to_numpy(value: Array) -> np.ndarray:
    """A NumPy array of an array or of a tensor on any device."""
    return value if isinstance(value, np.ndarray) else value.detach().cpu().numpy()
