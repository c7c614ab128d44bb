"""The commit of the code that made a report."""

import subprocess
from pathlib import Path
from typing import Any


def commit() -> dict[str, Any] | None:
    """{"commit", "changed"} of the checkout that this package runs from; None where there is no checkout or no git."""
    folder = Path(__file__).resolve().parent
    try:
        # a package inside another repository (in a virtual environment, say) is not tracked there
        _git(folder, "ls-files", "--error-unmatch", "write.py")
        return {
            "commit": _git(folder, "rev-parse", "HEAD"),
            "changed": bool(_git(folder, "status", "--porcelain", "-uno")),
        }
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
