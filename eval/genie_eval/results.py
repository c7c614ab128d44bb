"""Configuration and results of an evaluation: what the report is made from."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from genie_eval.collect import Evidence
from genie_eval.dreams.any_start import AnyStart, AnyStartConfig
from genie_eval.dreams.control import Control, ControlConfig
from genie_eval.dreams.generation import DreamSet
from genie_eval.dreams.horizon import HorizonConfig
from genie_eval.dreams.readout import ReadoutConfig
from genie_eval.inference.level import InferenceConfig
from genie_eval.metrics import Metric
from genie_eval.resampling import DRAWS, SWAPS

Size = Literal["quick", "default", "full"]


@dataclass(frozen=True)
class EvaluationConfig:
    """Amount of evaluation. The defaults are those of the protocol (eval/README.md)."""

    trajectories: int | None = 200
    """Episodes to evaluate; None: the whole split."""
    clips: int = 200
    """Clips to dream from."""
    figure_rows: int = 6
    """Rows of the same-action figure."""
    size: Size = "default"
    """quick: the headline metrics, as in `demo`. full: more starts, sequences and clips."""
    draws: int = DRAWS
    """Bootstrap draws."""
    swaps: int = SWAPS
    """Whole-trajectory swaps of the permutation tests."""
    train_trajectories: int = 100
    """Training episodes on which the baselines are fitted."""
    batch: int = 32
    """Clips generated together."""
    control: ControlConfig | None = None
    """Commanded dreams; None: chosen by `size`."""
    horizon: HorizonConfig | None = None
    """Long dreams; None: chosen by `size`."""
    inference: InferenceConfig | None = None
    """Altered input; None: chosen by `size`."""
    any_start: AnyStartConfig | None = None
    """Pictures of other kinds, and long dreams; None: chosen by `size`."""
    starts: Path | None = None
    """Folder of further pictures to start from."""
    i3d: Path | None = None
    """TorchScript I3D weights, for FVD."""
    seed: int = 0
    """Random seed."""
    progress: bool = True
    """Show progress bars."""

    def resolved(self) -> "EvaluationConfig":
        """The configuration with control, horizon, inference and any_start filled in."""
        control, horizon, inference, any_start = SIZES[self.size]
        return replace(
            self,
            control=self.control or control,
            horizon=self.horizon or horizon,
            inference=self.inference or inference,
            any_start=self.any_start or any_start,
        )


SIZES: dict[str, tuple[ControlConfig, HorizonConfig, InferenceConfig, AnyStartConfig]] = {
    "quick": (
        ControlConfig(
            pairs=0, triples=0, sampled_starts=12, readout=ReadoutConfig(episodes=200, rebuilt_episodes=100, steps=200)
        ),
        HorizonConfig(clips=0),
        InferenceConfig.quick(),
        AnyStartConfig(steps=(16, 64), tables=8, table_steps=(50, 180)),
    ),
    "default": (
        ControlConfig(), HorizonConfig(clips=32), InferenceConfig(rendered_trajectories=6), AnyStartConfig(),
    ),
    "full": (
        ControlConfig(
            starts=128, pairs=56, triples=100, longer=100, sampled_starts=64,
            readout=ReadoutConfig(episodes=600, rebuilt_episodes=600, members=4, steps=600),
        ),
        HorizonConfig(clips=200),
        InferenceConfig(trajectories=200, checks=200, cuts=128, round_trips=100, rendered_trajectories=48),
        AnyStartConfig(tables=32),
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
    details: dict[str, Any]
    seconds: dict[str, float]
    shown: int = 6  # rows of the same-action figure
    any_start: AnyStart | None = None

    @property
    def grid_starts(self) -> np.ndarray:
        """(S, H, W, 3) start frames of the same-action figure."""
        return self.control.starts.frames[: self.shown]

    @property
    def grid(self) -> np.ndarray:
        """(S, K, n, H, W, 3) dreams of every code, repeated, from those starts."""
        return self.control.constant.dreams[: self.shown]
