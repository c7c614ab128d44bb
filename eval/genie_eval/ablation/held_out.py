"""The held-out trajectories that all trials of a study are measured on, with all that does not depend on a model."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from genie_datasets import Source, build_frame_cache
from genie_datasets.base.cache_dir import cache_dir
from genie_datasets.base.errors import UserError
from genie_datasets.base.files import atomic_file
from genie_eval.codes.baselines import Features
from genie_eval.codes.motion_statistics import MotionStatistics
from genie_eval.codes.quantize import COMPONENTS, quantize
from genie_eval.codes.transitions import Transitions
from genie_eval.collect import Evidence, Trajectory, collect, to_numpy
from genie_eval.evaluation import choose_splits
from genie_robotics.genie import Genie
from genie_robotics.models.config import GenieConfig
from genie_robotics.models.windows import read_transitions

if TYPE_CHECKING:
    from genie_datasets import Split

BASELINES = ("oracle", "flow_kmeans", "pca_kmeans")
VERSION = 1  # of the cached file


@dataclass(frozen=True)
class Sampling:
    """Size of the measurement, equal for all trials of a table."""

    trajectories: int = 150
    """Held-out episodes, drawn at random."""
    draws: int = 1000
    """Bootstrap draws."""
    clips: int = 64
    """Clips that are dreamt."""
    starts: int = 16
    """Start frames from which every code is commanded."""
    altered: int = 16
    """Trajectories that are read again under every nuisance."""
    seed: int = 0


@dataclass
class HeldOut:
    frames: "Split"
    """The split with frames decoded and fitted to the model; trajectories refer to its episodes."""
    evidence: Evidence
    sampling: Sampling
    fingerprint: str
    fitted_on_it: bool
    """True if the trials train on these trajectories, because the source has a single split."""
    motion: str = "base"
    """Motion that codes are measured against: base (the robot's true motion), or flow (optical flow) without it."""
    _statistics: dict[int, MotionStatistics] = field(default_factory=dict)
    _baseline_codes: dict[tuple[str, int], Any] = field(default_factory=dict)

    @property
    def table(self) -> Transitions:
        return self.evidence.table

    @property
    def trajectories(self) -> list[Trajectory]:
        return self.evidence.trajectories

    def statistics(self, num_codes: int) -> MotionStatistics:
        """Statistics of the motion, computed once per number of codes."""
        if num_codes not in self._statistics:
            draws, seed = self.sampling.draws, self.sampling.seed
            self._statistics[num_codes] = MotionStatistics(self.table, self.motion, num_codes, draws, seed)
        return self._statistics[num_codes]

    def baseline_codes(self, baseline: str, num_codes: int) -> Int[np.ndarray, " M"]:
        """k-means codes of the motion itself (oracle), of optical flow or of frame differences, cross-fitted."""
        if (baseline, num_codes) not in self._baseline_codes:
            features = self.evidence.features
            values, components = {
                "oracle": (self.table.motions.get(self.motion), None),
                "flow_kmeans": (features.flow, None),
                "pca_kmeans": (features.difference, COMPONENTS),
            }[baseline]
            assert values is not None
            self._baseline_codes[baseline, num_codes] = quantize(
                values, self.table.trajectory, num_codes, components=components, seed=self.sampling.seed
            )
        return self._baseline_codes[baseline, num_codes]


def held_out(
    source: Source, name: str | None, config: GenieConfig, sampling: Sampling, train: str | None, progress: bool = True
) -> HeldOut:
    """Reads trajectories of split `name` (default: `test` if there is one, else all).

    Truth, optical flow and frame differences are kept in the user's cache. Without true motion, codes are measured
    against optical flow, which also contains the motion of other things than the arm.

    train: the split of `source` that the trials train on; None if they train on another source.

    Raises:
        UserError: there is no such split, no episode of three frames, or no motion.
    """
    split = choose_splits(source, name)[0]
    height, width = config.image_size
    size = f"{height}x{width}-{config.fit}"
    place = cache_dir() / "frames" / f"{source.name}-{source.fingerprint}-{split.name}-{size}"
    frames = build_frame_cache(split, place, config.image_size, config.fit, progress)
    key = f"{config.gap}-{sampling.trajectories}-{sampling.seed}-v{VERSION}"
    file_name = f"{source.name}-{source.fingerprint}-{split.stamp}-{split.name}-{size}-{key}.npz"
    cached = cache_dir() / "ablation" / file_name
    evidence = _load(cached)
    if evidence is None:
        model = _NoModel(config)
        with_truth = _FramesWithTruth(frames, split.truth)
        evidence = collect(model, with_truth, config.gap, sampling.trajectories, sampling.seed, model, progress)  # type: ignore[arg-type]
        _save(cached, evidence)
    motion = "flow" if evidence.table.why_unusable("base") else "base"
    problem = evidence.table.why_unusable(motion)
    if problem:
        raise UserError(f"{source.path}, split '{split.name}': {problem}; pass a --held-out source with motion")
    return HeldOut(
        frames,
        evidence,
        sampling,
        f"{split.fingerprint}/{key}",
        train is not None and split.name in (train, "+".join(source.splits)),
        motion,
    )


class _FramesWithTruth:
    """Decoded frames of a split, with the truth of the original split."""

    def __init__(self, frames: "Split", truth: Callable[[int], Any]):
        self.split, self.truth = frames, truth

    def __getattr__(self, name: str) -> Any:
        return getattr(self.split, name)


class _NoModel:
    """Stands for a model when only data is collected: all of its codes are 0."""

    def __init__(self, config: GenieConfig):
        self.config = config

    def infer_actions(self, frames: UInt8[np.ndarray, "B T H W 3"]) -> Int[np.ndarray, "B T-1"]:
        return np.zeros((len(frames), frames.shape[1] - 1), np.int64)

    def embed_actions(self, frames: UInt8[np.ndarray, "B T H W 3"]) -> Float[np.ndarray, "B T-1 1"]:
        return np.zeros((len(frames), frames.shape[1] - 1, 1))


def _save(path: Path, evidence: Evidence) -> None:
    table, features = evidence.table, evidence.features
    columns: dict[str, Any] = {f"motion_{name}": values for name, values in table.motions.items()}
    columns |= {f"table_{name}": getattr(table, name) for name in ("trajectory", "step", "position", "scene", "state")}
    columns |= {f"feature_{name}": getattr(features, name) for name in ("flow", "difference")}
    columns["episode"] = np.array([t.episode for t in evidence.trajectories])
    columns["ids"] = np.concatenate([t.ids for t in evidence.trajectories])
    columns["ends"] = np.cumsum([len(t.ids) for t in evidence.trajectories])
    columns["skipped"] = np.array(evidence.skipped)
    with atomic_file(path) as stream:
        np.savez(stream, **{name: values for name, values in columns.items() if values is not None})


def _load(path: Path) -> Evidence | None:
    """None if the file is missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            columns = dict(stored)
    except (OSError, ValueError, EOFError):
        return None
    ids = np.split(columns["ids"], columns["ends"][:-1])
    trajectories = [Trajectory(int(e), i) for e, i in zip(columns["episode"], ids, strict=True)]
    motions = {name.removeprefix("motion_"): v for name, v in columns.items() if name.startswith("motion_")}
    table = Transitions(
        columns["table_trajectory"], columns["table_step"], motions, columns.get("table_position"),
        columns.get("table_scene"), columns.get("table_state"),
    )  # fmt: skip
    features = Features(columns.get("feature_flow"), columns.get("feature_difference"), motions=motions)
    codes = np.zeros(len(table.trajectory), np.int64)
    return Evidence(trajectories, table, codes, features, int(columns["skipped"]))


def read_codes(genie: Genie, sample: HeldOut) -> Evidence:
    """The sample with this model's codes and embeddings, in one pass of its encoder."""

    def read(clips: UInt8[np.ndarray, "B T H W 3"]) -> tuple[np.ndarray, np.ndarray]:
        embedding = genie.embed_actions(clips)
        codes = genie.latent_action.quantizer.nearest_code(embedding.flatten(0, 1))
        return to_numpy(codes.reshape(embedding.shape[:-1])), to_numpy(embedding)

    videos = (sample.frames.frames(t.episode, t.ids) for t in sample.trajectories)
    codes, embedding = zip(*read_transitions(genie.config, videos, read), strict=True)
    return replace(sample.evidence, codes=np.concatenate(codes).astype(np.int64), embedding=np.concatenate(embedding))
