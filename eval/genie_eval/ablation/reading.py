"""Readings: the measured metrics of a trial, each with its bootstrap draws, and the files that they are stored in.

DIR/cells/VARIANT/seedN/cell.json  values, intervals, costs and how they were measured
DIR/cells/VARIANT/seedN/draws.npz  bootstrap draws of each metric
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from genie_datasets.base.files import atomic_file, write_atomically
from genie_eval.ablation.study import Study
from genie_eval.metrics import Metric, plain
from genie_eval.report.provenance import commit
from genie_robotics.models.config import read_json

MEASURED = "cell.json"


@dataclass(frozen=True)
class Reading:
    """A metric's value, 95 % interval and bootstrap draws; all None, with a reason, if it could not be measured."""

    value: float | None
    ci95: Any = None
    draws: Float[np.ndarray, " R"] | None = None
    units: int = 0
    """Number of trajectories (or starts) that are resampled."""
    reason: str = ""

    @classmethod
    def of(cls, metric: Metric, draws: Float[np.ndarray, " R"] | None = None) -> "Reading":
        return cls(metric.value, metric.ci95, draws, metric.n_trajectories or 0, metric.reason)

    @property
    def ends(self) -> tuple[float, float] | None:
        """Both ends of the interval; None if one is unknown."""
        return None if self.ci95 is None or None in list(self.ci95) else (self.ci95[0], self.ci95[1])


Readings = dict[str, Reading]
MISSING = Reading(None)


@dataclass(frozen=True)
class TrialResult:
    """A measured trial as stored; content: its cell.json."""

    variant: str
    seed: int
    readings: Readings
    content: dict[str, Any]


def save_trial(
    folder: Path,
    variant: str,
    seed: int,
    readings: Readings,
    details: dict[str, Any],
    costs: dict[str, Any],
    measured: dict[str, Any],
) -> None:
    """measured: how the trial was measured; results measured in different ways never share a table."""
    with atomic_file(folder / "draws.npz") as stream:
        np.savez(stream, **{name: r.draws for name, r in readings.items() if r.draws is not None})  # type: ignore[arg-type]
    content = {
        "variant": variant, "seed": seed, "git": commit(), "measured": measured, "cost": costs,
        "metrics": {
            name: {"value": r.value, "ci95": r.ci95, "units": r.units, "reason": r.reason}
            for name, r in readings.items()
        },
        "details": details,
    }  # fmt: skip
    write_atomically(folder / MEASURED, json.dumps(plain(content), indent=1, allow_nan=False).encode())


def read_trials(study: Study, out: Path) -> list[TrialResult]:
    """All measured trials of the study's variants, except those measured in another way than the newest one."""
    found: dict[Path, TrialResult] = {}
    for variant in study.variants:
        for path in sorted((out / "cells" / variant.name).glob(f"seed*/{MEASURED}")):
            content = read_json(path)
            try:
                with np.load(path.parent / "draws.npz", allow_pickle=False) as stored:
                    draws = dict(stored)
            except (OSError, ValueError, EOFError):
                continue  # incomplete: the next run of the command measures this trial again
            readings = {
                name: Reading(m["value"], m["ci95"], draws.get(name), m["units"], m["reason"])
                for name, m in content["metrics"].items()
            }
            found[path] = TrialResult(variant.name, int(content["seed"]), readings, content)
    if not found:
        return []
    newest = max(found, key=lambda path: path.stat().st_mtime)
    return [trial for trial in found.values() if trial.content["measured"] == found[newest].content["measured"]]
