"""Meanings of the codes, as an evaluation of the run measured them: a name such as "right", and the mean motion."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genie_datasets.base.errors import UserError
from genie_datasets.base.files import write_atomically

PLACES = ("codes.json", "report.json", "report/report.json", "../report/report.json")


@dataclass(frozen=True)
class Meaning:
    """Name and mean motion of one code."""

    name: str = ""
    """Empty if unknown."""
    motion: np.ndarray | None = None
    """(3,) mean displacement of the end effector in the base frame, meters; None if unknown."""


def code_meanings(run: Path, num_codes: int, report: Path | None = None) -> list[Meaning]:
    """The meaning of each code.

    report: report.json to read; None: the first of PLACES next to the run that fits. Meanings are empty without one.

    Raises:
        UserError: `report` is not a report of a world with `num_codes` codes.
    """
    if report is not None:
        found = read_meanings(report, num_codes)
        if found is None:
            raise UserError(
                f"{report} is not a report of a world with {num_codes} latent actions; pass the report.json that "
                "genie-robotics evaluate wrote for this run"
            )
        return found
    for place in PLACES:
        found = read_meanings(run / place, num_codes)
        if found is not None:
            return found
    return [Meaning()] * num_codes


def read_meanings(path: Path, num_codes: int) -> list[Meaning] | None:
    """The meanings in a report or codes.json; None if the file does not exist or does not fit."""
    try:
        found = json.loads(path.read_text())
        entries = {int(entry["code"]): entry for entry in (found["codes"] if isinstance(found, dict) else found)}
        if not entries or not all(0 <= code < num_codes for code in entries):
            return None
        return [_meaning(entries.get(code, {})) for code in range(num_codes)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def write_meanings(report: dict[str, Any], path: Path) -> None:
    """Writes the part of a report that describes the codes, to be kept with a world without its report."""
    kept = [{name: entry[name] for name in ("code", "name", "share", "mean_motion")} for entry in report["codes"]]
    write_atomically(path, (json.dumps(kept, indent=1) + "\n").encode())


def _meaning(entry: dict) -> Meaning:
    motion = entry.get("mean_motion")
    known = motion is not None and len(motion) == 3
    return Meaning(str(entry.get("name") or ""), np.array(motion, float) if known else None)
