"""A finding: one thing that is wrong with a run, and its remedy."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Severity = Literal["fault", "warning"]


@dataclass(frozen=True)
class Finding:
    """`name` is stable and meant for programs; `message` and `remedy` are one line each, for people."""

    name: str
    """Name of the rule, such as collapsed_codebook or static_data."""
    severity: Severity
    """fault: the result is useless. warning: it could be better."""
    stage: str
    """Stage of training in which to fix it, or 'data'."""
    message: str
    remedy: str
    """Options of `genie-robotics train` to change, or another command to run."""

    def __str__(self) -> str:
        return f"{self.severity} in {self.stage}: {self.name}: {self.message}. Remedy: {self.remedy}"


def faults(findings: Iterable[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.severity == "fault"]
