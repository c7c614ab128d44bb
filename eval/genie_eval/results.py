"""Results of the suite and its settings: what the report is made from."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from genie_eval.collect import Evidence
from genie_eval.dreams.control import Control, ControlConfig
from genie_eval.dreams.generation import DreamSet
from genie_eval.dreams.horizon import HorizonConfig, LongDreams
from genie_eval.dreams.readout import ReadoutConfig
from genie_eval.inference.level import InferenceConfig
from genie_eval.metrics import Metric
from genie_eval.resampling import DRAWS, SWAPS

Size = Literal["quick", "default", "full"]


@dataclass(frozen=True)
class EvaluationConfig:
    """How much is evaluated. The defaults are those of the protocol (eval/README.md)."""

    trajectories: int | None = 200
    """Episodes to evaluate; none: all of the split."""
    clips: int = 200
    """Clips to dream from."""
    starts: int = 6
    """Rows of the same-action figure."""
    size: Size = "default"
    """quick: the headline metrics, for `demo`. full: the whole specification."""
    draws: int = DRAWS
    """Bootstrap draws."""
    swaps: int = SWAPS
    """Whole-trajectory swaps of the permutation tests."""
    train_trajectories: int = 100
    """Training episodes on which the baselines are fitted."""
    batch: int = 32
    """Clips that are dreamt together."""
    control: ControlConfig | None = None
    """Commanded dreams; none: as `size` says."""
    horizon: HorizonConfig | None = None
    """Long dreams under several laws of random actions; none: as `size` says."""
    inference: InferenceConfig | None = None
    """Altered input; none: as `size` says."""
    i3d: Path | None = None
    """TorchScript I3D weights, for FVD proper."""
    seed: int = 0
    progress: bool = True

    def resolved(self) -> "EvaluationConfig":
        """With every part's own settings filled in."""
        control, horizon, inference = SIZES[self.size]
        return replace(
            self,
            control=self.control or control,
            horizon=self.horizon or horizon,
            inference=self.inference or inference,
        )


SIZES: dict[str, tuple[ControlConfig, HorizonConfig, InferenceConfig]] = {
    "quick": (
        ControlConfig(
            pairs=0, triples=0, sampled_starts=12, readout=ReadoutConfig(episodes=200, rebuilt_episodes=100, steps=200)
        ),
        HorizonConfig(clips=0),
        InferenceConfig.quick(),
    ),
    "default": (ControlConfig(), HorizonConfig(clips=32), InferenceConfig(rendered_trajectories=6)),
    "full": (
        ControlConfig(
            starts=128, pairs=56, triples=100, longer=100, sampled_starts=64,
            readout=ReadoutConfig(episodes=600, rebuilt_episodes=600, members=4, steps=600),
        ),
        HorizonConfig(clips=200),
        InferenceConfig(trajectories=200, checks=200, cuts=128, round_trips=100, rendered_trajectories=48),
    ),
}  # fmt: skip


@dataclass
class Results:
    """Everything the report is made from."""

    metrics: dict[str, Metric]
    ladder: list[dict[str, Any]]
    codes: list[dict[str, Any]]
    evidence: Evidence
    dreams: DreamSet
    control: Control
    long: LongDreams | None
    details: dict[str, Any]
    seconds: dict[str, float]
    shown: int = 6  # rows of the same-action figure

    @property
    def grid_starts(self) -> np.ndarray:
        """(S, H, W, 3) start frames of the same-action figure."""
        return self.control.starts.frames[: self.shown]

    @property
    def grid(self) -> np.ndarray:
        """(S, K, n, H, W, 3): every code, repeated, from those starts."""
        return self.control.constant.dreams[: self.shown]
