"""RUN/metrics.jsonl: one JSON object per logged step."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from genie_datasets.base.errors import UserError
from genie_datasets.base.files import write_atomically
from genie_robotics.health.findings import Finding


class JsonLines:
    """Appends lines {"stage", "step", NAME: number, ...}; null stands for a number that is not finite.

    Findings of the health checks are in the line of their step, as "findings": [{"name", "severity", "message",
    "remedy"}, ...].

    Args:
        step: the first step that will be logged. What an interrupted process wrote after it is dropped (see
            `truncate_metrics`).

    Raises:
        UserError: the file cannot be written. Unlike other loggers, this one stops training: the metrics are part of a
            run, and a full disk would not take the next checkpoint either.
    """

    def __init__(self, path: Path, stage: str, step: int):
        self.path = path
        truncate_metrics(path, stage, step - 1)

    def log(self, step: int, stage: str, values: Mapping[str, float], findings: Sequence[Finding] = ()) -> None:
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
                f"cannot write {self.path}: {error.strerror}; free disk space and rerun the command to continue"
            ) from None

    def close(self) -> None:
        pass


def truncate_metrics(path: Path, stage: str, step: int) -> int:
    """Drops the lines of `stage` after `step`, which will be logged again, and an incomplete last line.

    All other lines stay byte for byte. The file is written atomically, and only if something changes.

    Returns:
        The number of lines dropped.

    Raises:
        UserError: the file cannot be read or written.
    """
    try:
        before = path.read_bytes()
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; make it readable or move it away") from None
    lines = before.splitlines(keepends=True)
    kept = [line for line in lines if not is_later(line, stage, step)]
    if kept and not kept[-1].endswith(b"\n"):
        if parse_line(kept[-1]) is None:
            kept.pop()
        else:
            kept[-1] += b"\n"  # complete except for its line end
    after = b"".join(kept)
    if after != before:
        write_atomically(path, after)
    return len(lines) - len(kept)


def is_later(line: bytes, stage: str, step: int) -> bool:
    found = parse_line(line)
    return found is not None and found.get("stage") == stage and isinstance(at := found.get("step"), int) and at > step


def parse_line(line: bytes) -> dict | None:
    try:
        found = json.loads(line)
    except ValueError:  # includes errors of decoding
        return None
    return found if isinstance(found, dict) else None
