"""What each code does, as the run's report measured it: 'right, gripper closing', and the mean motion in metres."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genie_datasets.base.errors import UserError
from genie_robotics.run_folder import write_atomically

PLACES = ("codes.json", "report.json", "report/report.json", "../report/report.json")


@dataclass(frozen=True)
class Meaning:
    name: str = ""
    """Empty where none is known."""
    motion: np.ndarray | None = None
    """(3,) of the end effector in the base frame, metres; None where no true motion was known."""


def code_meanings(run: Path, num_codes: int, report: Path | None = None) -> list[Meaning]:
    """A meaning for each code.

    From `report`, else from a report beside the run: that a world comes with, or where `demo` and `evaluate` write it.
    Raises UserError where the report that was asked for is none of this world.
    """
    if report is not None:
        found = read_meanings(report, num_codes)
        if found is None:
            raise UserError(f"{report} is no report of a world with {num_codes} latent actions")
        return found
    for place in PLACES:
        found = read_meanings(run / place, num_codes)
        if found is not None:
            return found
    return [Meaning()] * num_codes


def read_meanings(path: Path, num_codes: int) -> list[Meaning] | None:
    try:
        found = json.loads(path.read_text())
        entries = {int(entry["code"]): entry for entry in (found["codes"] if isinstance(found, dict) else found)}
        if not entries or not all(0 <= code < num_codes for code in entries):
            return None
        return [meaning(entries.get(code, {})) for code in range(num_codes)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def write_meanings(report: dict[str, Any], path: Path) -> None:
    """What of a report a world keeps of its codes, to travel without the report."""
    kept = [{name: entry[name] for name in ("code", "name", "share", "mean_motion")} for entry in report["codes"]]
    write_atomically(path, (json.dumps(kept, indent=1) + "\n").encode())


def meaning(entry: dict) -> Meaning:
    motion = entry.get("mean_motion")
    known = motion is not None and len(motion) == 3
    return Meaning(str(entry.get("name") or ""), np.array(motion, float) if known else None)
