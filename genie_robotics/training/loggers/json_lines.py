"""RUN/metrics.jsonl: one JSON object a log step."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from genie_datasets.base.errors import UserError
from genie_robotics.training.metrics_file import truncate_metrics


class JsonLines:
    """Appends lines {"stage", "step", NAME: number or null, ...}; null is a number that is not finite.

    What is wrong with the training stands in the line of its step as "findings": [{"name", "severity", "message",
    "remedy"}, ...].

    Args:
        step: the first step that will be logged. Later lines of `stage`, and a torn last one, are of a process that was
            cut, and are dropped.

    Raises:
        UserError: the file cannot be written. This one logger stops the training: a run without its metrics is not
            whole, and a disk that is full will not take the next checkpoint either.
    """

    def __init__(self, path: Path, stage: str, step: int):
        self.path = path
        truncate_metrics(path, stage, step - 1)

    def log(self, step: int, stage: str, values: Mapping[str, float], findings: Sequence[Any] = ()) -> None:
        line: dict[str, Any] = {"stage": stage, "step": step}
        line |= {name: value if math.isfinite(value) else None for name, value in values.items()}
        if findings:
            line["findings"] = [
                {"name": f.name, "severity": f.severity, "message": f.message, "remedy": f.remedy} for f in findings
            ]
        try:
            with open(self.path, "a") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise UserError(
                f"cannot write {self.path}: {error.strerror}; make room and run the same command again to go on"
            ) from None

    def close(self) -> None:
        pass
