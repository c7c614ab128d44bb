"""Figures of the losses and gradients of a stage, while it trains and afterwards from metrics.jsonl."""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from genie_datasets.base.errors import UserError
from genie_robotics.models.config import GenieConfig
from genie_robotics.training.stages import STAGES

WINDOW = 20
"""Number of recent steps whose median is the current value."""


def loss_figures(recent: Sequence[float], lowest: float, chance: float) -> dict[str, float]:
    """`loss_share` and `loss_rise`: the median of recent losses, divided by `chance` and by the lowest earlier median.

    A loss below a twentieth of `chance` may double without being a rise.
    """
    if len(recent) < 3:
        return {}
    now = median(recent)
    return {"loss_share": now / chance, "loss_rise": now / max(lowest, 0.05 * chance) if lowest < math.inf else 1.0}


def gradient_figures(recent: Sequence[float], before: Sequence[float]) -> dict[str, float]:
    """`gradient_rise`: the median of recent gradient norms, divided by that of earlier medians."""
    if len(recent) < 3 or len(before) < 3:
        return {}
    return {"gradient_rise": median(recent) / max(median(before), 1e-12)}


def median(values: Sequence[float]) -> float:
    """Median of the finite values; infinite if there are none."""
    finite = [value for value in values if math.isfinite(value)]
    return statistics.median(finite) if finite else math.inf


def read_metrics(run: Path) -> dict[str, list[dict[str, float]]]:
    """The lines of RUN/metrics.jsonl per stage, in the order of their steps; empty if the file does not exist.

    Skips a last line cut off by a kill. Of a step that was trained twice, the later line counts.

    Raises:
        UserError: the file cannot be read.
    """
    path = run / "metrics.jsonl"
    stages: dict[str, dict[int, dict[str, float]]] = {}
    try:
        lines = path.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; check its permissions") from None
    for line in lines:
        try:
            entry = json.loads(line)
            stage, step = entry.pop("stage"), int(entry["step"])
        except (json.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError):
            continue
        values = {name: math.nan if value is None else value for name, value in entry.items()}  # JSON has no nan
        numbers = {name: float(value) for name, value in values.items() if type(value) in (int, float)}
        stages.setdefault(stage, {})[step] = numbers
    return {stage: [steps[step] for step in sorted(steps)] for stage, steps in stages.items()}


def history_figures(lines: Sequence[Mapping[str, float]], stage: str, config: GenieConfig) -> dict[str, float]:
    """Figures of a stage's loss and gradient, from its lines of metrics.jsonl."""
    kind = STAGES[stage]
    judged = [line for line in lines if kind.judged_loss in line]
    if not judged:
        return {}
    names = (kind.judged_loss, "grad_norm")
    bad = sum(not math.isfinite(line[name]) for line in judged for name in names if name in line)
    figures = {"not_finite": float(bad)}
    losses = [line[kind.judged_loss] for line in judged]
    if stage == "latent_action":  # the loss starts again when quantization starts; perplexity is logged since
        losses = losses[next((i for i, line in enumerate(judged) if "perplexity" in line), 0) :]
    # Each line is one step of many, so a few neighboring lines are a window.
    width = min(5, len(losses))
    lowest = min((median(losses[i : i + width]) for i in range(len(losses) - 2 * width + 1)), default=math.inf)
    figures |= loss_figures(losses[-width:], lowest, kind.loss_without_knowledge(config))
    if "latent_action" in kind.trains:
        shares = [line["error_share"] for line in judged if "error_share" in line]
        figures["error_share"] = median(shares[-5:]) if shares else math.nan
    return figures
