"""What the sentinel and `doctor` say: one finding a thing that is wrong."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Severity = Literal["fault", "warning"]


@dataclass(frozen=True)
class Finding:
    """`name` is stable and for programs, `message` and `remedy` are one line each and for people."""

    name: str
    """collapsed_codebook, ignored_action, static_data, ...: the column `name` of genie_robotics.health.rules."""
    severity: Severity
    """'fault': what comes out is worthless. 'warning': it could be better."""
    stage: str
    """Where to mend it: a stage of the training, or 'data'."""
    message: str
    remedy: str
    """An option of `genie-robotics train`, or another command."""

    def __str__(self) -> str:
        return f"{self.severity} in {self.stage}: {self.name}: {self.message}. Remedy: {self.remedy}"


def faults(findings: Iterable[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.severity == "fault"]
