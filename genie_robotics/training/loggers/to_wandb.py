"""Weights & Biases. Its own environment variables choose project, entity and mode: WANDB_PROJECT, WANDB_MODE, ..."""

import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path

from genie_datasets.base.files import write_atomically
from genie_robotics.health.findings import Finding
from genie_robotics.models.config import read_json


class Wandb:
    """One wandb run per run folder, also after a resume: its id is stored in RUN/state/wandb_id.

    Every stage counts its own steps, so values are named 'stage/value' and plotted over 'stage/step'. Steps that a
    resumed run repeats appear twice, because wandb cannot delete values.
    """

    def __init__(self, run: Path, stage: str, step: int):
        import wandb

        path = run / "state" / "wandb_id"
        if not path.exists():
            write_atomically(path, secrets.token_hex(4).encode())
        config = run / "config.json"
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "genie-robotics"),
            name=run.resolve().name,
            id=path.read_text().strip(),
            resume="allow",
            dir=run,
            config=read_json(config) if config.exists() else None,
            settings=wandb.Settings(console="off", silent=True),  # copying the output would break the status line
        )
        self.run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")

    def log(self, step: int, stage: str, values: Mapping[str, float], findings: Sequence[Finding] = ()) -> None:
        self.run.log({f"{stage}/step": step} | {f"{stage}/{name}": value for name, value in values.items()})
        for finding in findings:
            text = f"{stage}, step {step}: {finding.message} {finding.remedy}"
            self.run.alert(title=f"{finding.severity}: {finding.name}", text=text)

    def close(self) -> None:
        self.run.finish()
