"""The trajectories that all cells of a study are measured on, and all of them that no model changes."""

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
from genie_eval.codes.motion_statistics import MotionAssay
from genie_eval.codes.quantize import COMPONENTS, quantise
from genie_eval.codes.transitions import Transitions
from genie_eval.collect import Evidence, Trajectory, collect, to_numpy
from genie_eval.evaluation import choose_splits
from genie_robotics.genie import Genie
from genie_robotics.models.config import GenieConfig

if TYPE_CHECKING:
    from genie_datasets import Split

BASELINES = ("oracle", "flow_kmeans", "pca_kmeans")
VERSION = 1  # of the file in which they are kept


@dataclass(frozen=True)
class Sampling:
    """How much is measured. Cells of one table are measured alike."""

    trajectories: int = 150
    """Held-out episodes, chosen at random."""
    draws: int = 1000
    """Bootstrap draws."""
    clips: int = 64
    """Clips to dream from."""
    starts: int = 16
    """Frames from which every code is commanded."""
    altered: int = 16
    """Trajectories that are seen again under every nuisance."""
    seed: int = 0


@dataclass
class HeldOut:
    """`frames` is a split whose frames are decoded and fitted already; trajectories number its episodes."""

    frames: "Split"
    evidence: Evidence
    sampling: Sampling
    fingerprint: str
    fitted_on_it: bool
    """It is what was trained on: the source has but one split."""
    motion: str = "base"
    """What codes are measured against: the true motion of the robot, or, where the source has none, optical flow."""
    assays: dict[int, MotionAssay] = field(default_factory=dict)
    labels: dict[tuple[str, int], Any] = field(default_factory=dict)

    @property
    def table(self) -> Transitions:
        return self.evidence.table

    @property
    def trajectories(self) -> list[Trajectory]:
        return self.evidence.trajectories

    def assay(self, num_codes: int) -> MotionAssay:
        """Of that motion; made once for each number of codes."""
        if num_codes not in self.assays:
            of, seed = self.sampling, self.sampling.seed
            self.assays[num_codes] = MotionAssay(self.table, self.motion, num_codes, of.draws, seed)
        return self.assays[num_codes]

    def codes_of(self, baseline: str, num_codes: int) -> Int[np.ndarray, " M"]:
        """k-means of the motion itself (oracle), of optical flow or of frame differences, cross-fitted."""
        if (baseline, num_codes) not in self.labels:
            features = self.evidence.features
            values, components = {
                "oracle": (self.table.motions.get(self.motion), None),
                "flow_kmeans": (features.flow, None),
                "pca_kmeans": (features.difference, COMPONENTS),
            }[baseline]
            assert values is not None
            self.labels[baseline, num_codes] = quantise(
                values, self.table.trajectory, num_codes, components=components, seed=self.sampling.seed
            )
        return self.labels[baseline, num_codes]


def held_out(
    source: Source, name: str | None, config: GenieConfig, sampling: Sampling, train: str | None, progress: bool = True
) -> HeldOut:
    """The sample of a source: of split `name`, or `test` if there is one, else all.

    train: the split of the same source that is trained on, None where it is another source. What no model changes
    (truth, optical flow, frame differences) is kept in the user's cache.

    Without true motion codes are measured against optical flow, which also sees what is not the arm.

    Raises:
        UserError: no such split, no episode of three frames, or nothing that moves.
    """
    split = choose_splits(source, name)[0]
    height, width = config.image_size
    size = f"{height}x{width}-{config.fit}"
    place = cache_dir() / "frames" / f"{source.name}-{source.fingerprint}-{split.name}-{size}"
    frames = build_frame_cache(split, place, config.image_size, config.fit, progress)
    mark = f"{config.gap}-{sampling.trajectories}-{sampling.seed}-v{VERSION}"
    kept = cache_dir() / "ablation" / f"{source.name}-{source.fingerprint}-{split.stamp}-{split.name}-{size}-{mark}.npz"
    evidence = _load(kept)
    if evidence is None:
        describe = _NoModel(config)
        seen = _Seen(frames, split.truth)
        evidence = collect(describe, seen, config.gap, sampling.trajectories, sampling.seed, describe, progress)  # type: ignore[arg-type]
        _save(kept, evidence)
    motion = "flow" if evidence.table.why_unusable("base") else "base"
    problem = evidence.table.why_unusable(motion)
    if problem:
        raise UserError(f"{source.path}, split '{split.name}': {problem}; give --held-out something that moves")
    return HeldOut(
        frames,
        evidence,
        sampling,
        f"{split.fingerprint}/{mark}",
        train is not None and split.name in (train, "+".join(source.splits)),
        motion,
    )


class _Seen:
    """Decoded frames with the truth of the split they are from."""

    def __init__(self, frames: "Split", truth: Callable[[int], Any]):
        self.split, self.truth = frames, truth

    def __getattr__(self, name: str) -> Any:
        return getattr(self.split, name)


class _NoModel:
    """In a model's place where only what no model changes is collected."""

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
    """None where there is none, or a damaged one."""
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
    """The sample as this model sees it: codes and embeddings of every trajectory, in one pass of the encoder."""
    nearest = genie.latent_action.codebook.quantiser.nearest
    codes, embeddings = [], []
    for trajectory in sample.trajectories:
        embedding = genie.embed_actions(sample.frames.frames(trajectory.episode, trajectory.ids)[None])[0]
        codes.append(to_numpy(nearest(embedding)))
        embeddings.append(to_numpy(embedding))
    flat = np.concatenate(codes).astype(np.int64)
    return replace(sample.evidence, codes=flat, embedding=np.concatenate(embeddings))
