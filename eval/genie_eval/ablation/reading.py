"""A metric of one cell as it was read: the value, and what bootstrap draws of the trajectories made of it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from genie_eval.metrics import Metric


@dataclass(frozen=True)
class Reading:
    """A value, its 95 % interval, and its bootstrap draws; None where it could not be measured, and why."""

    value: float | None
    ci95: Any = None
    draws: Float[np.ndarray, " R"] | None = None
    units: int = 0
    """Trajectories (or starts) that were drawn from."""
    reason: str = ""

    @classmethod
    def of(cls, metric: Metric, draws: Float[np.ndarray, " R"] | None = None) -> "Reading":
        return cls(metric.value, metric.ci95, draws, metric.n_trajectories or 0, metric.reason)


Readings = dict[str, Reading]
