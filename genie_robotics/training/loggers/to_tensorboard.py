"""TensorBoard: RUN/tensorboard, with one of its runs per stage (`tensorboard --logdir RUN/tensorboard`)."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

from genie_robotics.health.findings import Finding


class TensorBoard:
    """Writes scalars and findings. A resumed stage purges what an earlier process wrote from `step` on.

    Each stage has its own folder, because it counts its own steps and a purge goes by step alone. Every call is flushed
    to the disk, because a resumed run does not log the steps before its checkpoint again.
    """

    def __init__(self, run: Path, stage: str, step: int):
        # TensorBoard's own switch to work without TensorFlow, which it would import (6.5 s) only to write files.
        sys.modules.setdefault("tensorboard.compat.notf", ModuleType("tensorboard.compat.notf"))
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(run / "tensorboard" / stage), purge_step=step)

    def log(self, step: int, stage: str, values: Mapping[str, float], findings: Sequence[Finding] = ()) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        for finding in findings:
            text = f"**{finding.severity}: {finding.name}** {finding.message} {finding.remedy}"
            self.writer.add_text("findings", text, step)
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()
