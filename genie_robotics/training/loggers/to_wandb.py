"""Weights & Biases. Where to (project, entity, online or offline) is said by its own variables, WANDB_PROJECT ..."""

import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from genie_robotics.models.config import read_json
from genie_robotics.run_folder import write_atomically


class Wandb:
    """One wandb run for a run folder, whatever is resumed: its id is kept in RUN/state/wandb_id.

    Every stage counts its own steps, so its values are named 'stage/value' and drawn over 'stage/step'. Steps that are
    told again after a kill are drawn twice: wandb does not take back.
    """

    def __init__(self, run: Path, stage: str):
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
            settings=wandb.Settings(console="off", silent=True),  # its copy of the output and our status line clash
        )
        self.run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")

    def log(self, step: int, stage: str, values: Mapping[str, float], findings: Sequence[Any] = ()) -> None:
        self.run.log({f"{stage}/step": step} | {f"{stage}/{name}": value for name, value in values.items()})
        for finding in findings:
            text = f"{stage}, step {step}: {finding.message} {finding.remedy}"
            self.run.alert(title=f"{finding.severity}: {finding.name}", text=text)

    def close(self) -> None:
        self.run.finish()
