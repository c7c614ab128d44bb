"""`genie-robotics doctor`: find what is wrong with a run, and the remedies."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from genie_datasets.base.command_help import Option
from genie_datasets.base.command_line import parse
from genie_datasets.base.errors import UserError
from genie_datasets.sources.options import SourceOptions

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class DoctorOptions(SourceOptions):
    """Check data, codes, use of actions, losses and weights of a run, and name a remedy for each fault.

    The exit status is 1 if there is a fault.
    """

    run: tyro.conf.Positional[Path] = tyro.MISSING
    """Run folder, during or after training."""
    data: Annotated[str | None, Option("SRC")] = None
    """Source of the clips to measure on (default: the training data)."""
    split: Annotated[str | None, Option("NAME")] = None
    """Split of the source (default: the one that was trained on)."""
    clips: int = 64
    """Number of clips to measure on."""
    json: bool = False
    """Print one JSON object and nothing else."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to compute on."""


def doctor(argv: list[str]) -> int:
    options = parse(DoctorOptions, argv, prog="genie-robotics doctor", example="doctor runs/demo/run")
    if options.clips < 2:
        raise UserError(f"--clips must be at least 2, got {options.clips}: actions are compared between clips")

    import torch

    from genie_robotics.health.doctor import diagnose
    from genie_robotics.health.findings import faults
    from genie_robotics.health.table import table
    from genie_robotics.pretrained import locate
    from genie_robotics.run_folder import is_exported

    options.run, named = locate(options.run), options.run
    if is_exported(options.run):
        answer = (
            f"{named}: exported world without metrics and checkpoints, so there is no training to examine; measure "
            f"it with genie-robotics evaluate {named} --data SRC --out DIR"
        )
        print(json.dumps({"answer": answer, "healthy": None}) if options.json else answer)
        return 0
    notes: list[str] = []
    clips = read_clips(options, notes)
    device = ("cuda" if torch.cuda.is_available() else "cpu") if options.device == "auto" else options.device
    found = diagnose(options.run, clips, notes, device)
    print(json.dumps(found.to_json(), indent=1) if options.json else table(found))
    return 1 if faults(found.findings) else 0


def read_clips(options: DoctorOptions, notes: list[str]) -> "Tensor | None":
    """Clips of --data, or of the training data; None, with a note, if the latter cannot be read.

    Raises:
        UserError: there is no run folder, or --data cannot be read.
    """
    from genie_robotics.health.doctor import some_clips
    from genie_robotics.models.config import read_json
    from genie_robotics.run_folder import load_config
    from genie_robotics.training.commands import training_split

    if not options.run.is_dir():
        raise UserError(f"no run folder {options.run}; train one: genie-robotics train {options.run} --data SRC")
    config = load_config(options.run)
    data = read_json(options.run / "config.json").get("data", {})
    try:
        if options.data is None and "source" not in data:
            raise UserError(f"{options.run / 'config.json'} has no entry data.source")
        if options.data is None:
            options = replace(options, **data.get("reading", {}) | options.non_defaults())
        source = options.open(options.data or stored_source(data["source"], options.run))
        split = options.split or data.get("split")
        if options.split is None and split not in source.splits:
            split = training_split(source.splits, None)
        clips = some_clips(source.split(split), config, options.clips)
    except UserError as error:
        if options.data is not None or options.split is not None:
            raise
        notes.append(f"not measured on clips ({error}); pass the video with --data SRC and its options, such as --hz")
        return None
    if options.data is None and data.get("fingerprint", source.fingerprint) != source.fingerprint:
        notes.append(f"{source.path} has changed since the run was trained")
    notes.append(f"measured on {len(clips)} clips of {source.path} [{split}]")
    return clips


def stored_source(source: str, run: Path) -> str:
    """The source named in config.json; a relative path is also looked up in the folders above the run."""
    for folder in (Path(), *run.resolve().parents):
        if (folder / source).exists():
            return str(folder / source)
    return source
