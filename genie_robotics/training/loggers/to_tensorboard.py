"""TensorBoard: RUN/tensorboard, one of its runs for each stage (`tensorboard --logdir RUN/tensorboard`)."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any


class TensorBoard:
    """Steps go on over a resume; from `step` on, what an earlier process wrote of this stage is purged.

    A folder for each stage, because a purge is by step alone and each stage counts its own. Written out at every call:
    what a killed process had told before its last checkpoint is not told again.
    """

    def __init__(self, run: Path, stage: str, step: int):
        # TensorBoard's own switch to do without TensorFlow; else it imports it only to write files (6.5 s).
        sys.modules.setdefault("tensorboard.compat.notf", ModuleType("tensorboard.compat.notf"))
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(run / "tensorboard" / stage), purge_step=step)

    def log(self, step: int, stage: str, values: Mapping[str, float], findings: Sequence[Any] = ()) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        for finding in findings:
            text = f"**{finding.severity}: {finding.name}** {finding.message} {finding.remedy}"
            self.writer.add_text("findings", text, step)
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()
