"""`genie-robotics doctor`: what is wrong with a run, and the remedy."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from genie_datasets.base.command_line import parse
from genie_datasets.base.errors import UserError
from genie_datasets.sources.options import SourceOptions

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class DoctorOptions(SourceOptions):
    """What is wrong with a run, and what helps: data, codebooks, the actions' use, losses, weights. Exit status 1 when
    something is."""

    run: tyro.conf.Positional[Path] = tyro.MISSING
    """Run folder, trained or in training (a world that comes with the package has no training to examine)."""
    data: str | None = None
    """Video to measure on; without it what the run was trained on."""
    split: str | None = None
    """Which split; without it the one that was trained on."""
    clips: int = 64
    """How many clips are looked at."""
    json: bool = False
    """Print one JSON object and nothing else."""
    device: str = "auto"
    """auto, cpu or cuda."""


def doctor(argv: list[str]) -> int:
    options = parse(DoctorOptions, argv, prog="genie-robotics doctor")
    if options.clips < 2:
        raise UserError(f"--clips {options.clips}: give at least 2, actions are compared between clips")

    import torch

    from genie_robotics.health.doctor import diagnose
    from genie_robotics.health.findings import faults
    from genie_robotics.health.table import table
    from genie_robotics.pretrained import locate
    from genie_robotics.run_folder import is_exported

    options.run, named = locate(options.run), options.run
    if is_exported(options.run):
        answer = (
            f"{named}: an exported world, weights without their training run (no metrics, no checkpoints), so there is "
            f"no training to examine; to measure what it does: genie-robotics evaluate {named} --data SRC --out DIR"
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
    """Clips of --data, or of what the run was trained on; None, with a note, where the latter cannot be read.

    Raises:
        UserError: the run folder is none, or --data cannot be read.
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
            raise UserError("config.json does not say what it was trained on")
        if options.data is None:
            options = replace(options, **data.get("reading", {}) | options.said())
        source = options.open(options.data or stored_source(data["source"], options.run))
        split = options.split or data.get("split")
        if options.split is None and split not in source.splits:
            split = training_split(source.splits, None)
        clips = some_clips(source.split(split), config, options.clips)
    except UserError as error:
        if options.data is not None or options.split is not None:
            raise
        notes.append(
            f"no clips looked at ({error}); --data SRC names the video, and its options (--hz, ...) go with it"
        )
        return None
    if options.data is None and data.get("fingerprint", source.fingerprint) != source.fingerprint:
        notes.append(f"{source.path} is not as it was when the run was trained")
    notes.append(f"{len(clips)} clips of {source.path} [{split}]")
    return clips


def stored_source(source: str, run: Path) -> str:
    """The source as config.json names it; a relative path also as seen from the folders above the run."""
    for folder in (Path(), *run.resolve().parents):
        if (folder / source).exists():
            return str(folder / source)
    return source
