"""What each code does, as the run's report measured it: 'right, gripper closing'."""

import json
from pathlib import Path

from genie_datasets.errors import UserError

PLACES = ("codes.json", "report.json", "report/report.json", "../report/report.json")


def code_names(run: Path, num_codes: int, report: Path | None = None) -> list[str]:
    """A name for each code, empty where none is known.

    From `report`, else from a report beside the run: that a world comes with, or where `demo` and `evaluate` write it.
    Raises UserError where the report that was asked for is none of this world.
    """
    if report is not None:
        names = read_names(report, num_codes)
        if names is None:
            raise UserError(f"{report} is no report of a world with {num_codes} latent actions")
        return names
    for place in PLACES:
        names = read_names(run / place, num_codes)
        if names is not None:
            return names
    return [""] * num_codes


def read_names(path: Path, num_codes: int) -> list[str] | None:
    try:
        found = json.loads(path.read_text())
        entries = found["codes"] if isinstance(found, dict) else found
        names = {int(entry["code"]): str(entry.get("name") or "") for entry in entries}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    if not names or not all(0 <= code < num_codes for code in names):
        return None
    return [names.get(code, "") for code in range(num_codes)]
