"""One result in the form that every metric of `report.json` has."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

NOT_RUN = "not run"


@dataclass
class Metric:
    """A value beside what meaningless codes read (null) and the best that K codes allow (oracle).

    verdict is one of pass, warn, fail, not run; `reason` says why in words. `more` holds fields of this metric only.
    """

    value: float | None = None
    null: float | None = None
    oracle: float | None = None
    ci95: Sequence[float] | np.ndarray | None = None
    p: float | None = None
    n_trajectories: int | None = None
    n_seeds: int | None = 1
    verdict: str = NOT_RUN
    reason: str = ""
    lower_is_better: bool = False
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def skill(self) -> float | None:
        return skill(self.value, self.null, self.oracle, self.lower_is_better)

    def as_json(self) -> dict[str, Any]:
        return plain(
            {
                "value": self.value, "null": self.null, "oracle": self.oracle, "skill": self.skill,
                "ci95": self.ci95, "p": self.p, "n_trajectories": self.n_trajectories,
                "n_seeds": None if self.verdict == NOT_RUN else self.n_seeds,
                "verdict": self.verdict, "reason": self.reason, **self.more,
            }
        )  # fmt: skip


def not_run(reason: str) -> Metric:
    return Metric(reason=reason)


def skill(value: float | None, null: float | None, oracle: float | None, lower_is_better: bool = False) -> float | None:
    """(value - null) / (oracle - null); None where one is missing or the oracle is no better than the null.

    Metrics of which less is better have their oracle below their null: `lower_is_better`.
    """
    if value is None or null is None or oracle is None:
        return None
    if not (null - oracle if lower_is_better else oracle - null) > 1e-9:
        return None
    return (value - null) / (oracle - null)


def plain(value: Any) -> Any:
    """numpy to JSON types; what is not finite becomes null, since JSON has no NaN."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain(dataclasses.asdict(value))
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return value
