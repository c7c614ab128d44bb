"""What the losses and gradients of a stage tell, while it trains and afterwards from metrics.jsonl."""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from genie_datasets.base.errors import UserError
from genie_robotics.models.config import GenieConfig

LOSS = {"tokenizer": "loss", "latent_action": "error_share", "dynamics": "loss", "joint": "token_loss"}
"""The logged value of each stage that is judged: that with a known value for knowing nothing."""

WINDOW = 20
"""Steps whose median stands for now."""


def knowing_nothing(stage: str, config: GenieConfig) -> float:
    """The judged loss without any knowledge: repeating the last frame, all tokens alike, or grey.

    0.25 is the largest variance of pixels in 0 .. 1.
    """
    return {"tokenizer": 0.25, "latent_action": 1.0}.get(stage, math.log(config.dynamics.num_tokens))


def loss_figures(recent: Sequence[float], lowest: float, chance: float) -> dict[str, float]:
    """`loss_share` and `loss_rise` of the last losses (the median counts), `lowest` being the lowest median before.

    A loss that has come down to a twentieth of `chance` may well double: that much is never called a rise.
    """
    if len(recent) < 3:
        return {}
    now = median(recent)
    return {"loss_share": now / chance, "loss_rise": now / max(lowest, 0.05 * chance) if lowest < math.inf else 1.0}


def gradient_figures(recent: Sequence[float], before: Sequence[float]) -> dict[str, float]:
    """`gradient_rise`: the median of the last gradients over that of the medians before."""
    if len(recent) < 3 or len(before) < 3:
        return {}
    return {"gradient_rise": median(recent) / max(median(before), 1e-12)}


def median(values: Sequence[float]) -> float:
    """Of the finite ones; infinite when there is none."""
    finite = [value for value in values if math.isfinite(value)]
    return statistics.median(finite) if finite else math.inf


def read_metrics(run: Path) -> dict[str, list[dict[str, float]]]:
    """{stage: lines in the order of their steps} of RUN/metrics.jsonl; empty when there is none.

    A last line that was torn by a kill is left out, and of a step that was trained twice the later line is taken.

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
        raise UserError(f"cannot read {path}: {error.strerror}; check its rights") from None
    for line in lines:
        try:
            entry = json.loads(line)
            stage, step = entry.pop("stage"), int(entry["step"])
        except (json.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError):
            continue
        numbers = {name: number(value) for name, value in entry.items() if value is None or is_number(value)}
        stages.setdefault(stage, {})[step] = numbers
    return {stage: [steps[step] for step in sorted(steps)] for stage, steps in stages.items()}


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def number(value: float | None) -> float:
    """JSON has no nan: null stands for it."""
    return math.nan if value is None else float(value)


def history_figures(lines: Sequence[Mapping[str, float]], stage: str, config: GenieConfig) -> dict[str, float]:
    """What a finished or running stage's lines of metrics.jsonl tell: its loss, its gradient, and its last figures."""
    judged = [line for line in lines if LOSS[stage] in line]
    if not judged:
        return {}
    bad = sum(not math.isfinite(line[name]) for line in judged for name in (LOSS[stage], "grad_norm") if name in line)
    figures = {"not_finite": float(bad)}
    # Each line is one step of many: a few neighbours are a window. Quantisation starts the loss anew.
    parts = split_at_quantisation(judged) if stage == "latent_action" else [judged]
    losses = [line[LOSS[stage]] for line in parts[-1]]
    width = min(5, len(losses))
    lowest = min((median(losses[i : i + width]) for i in range(len(losses) - 2 * width + 1)), default=math.inf)
    figures |= loss_figures(losses[-width:], lowest, knowing_nothing(stage, config))
    if stage in ("latent_action", "joint"):
        shares = [line["error_share"] for line in judged if "error_share" in line]
        figures["error_share"] = median(shares[-5:]) if shares else math.nan
    return figures


def split_at_quantisation(lines: Sequence[Mapping[str, float]]) -> list[list[Mapping[str, float]]]:
    """The lines before codes are given out and those from then on; perplexity is logged from then on."""
    first = next((i for i, line in enumerate(lines) if "perplexity" in line), len(lines))
    return [part for part in (list(lines[:first]), list(lines[first:])) if part]
