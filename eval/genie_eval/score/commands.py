"""`genie-robotics score`: the consistency suite on a file of latent actions."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from genie_datasets.base.command_help import Option
from genie_datasets.base.command_line import parse
from genie_datasets.base.errors import UserError
from genie_eval.commands import print_scorecard

MIN_DRAWS = 100  # with fewer, the ends of a 95 % interval are noise


@dataclass
class ScoreOptions:
    """Measure how consistent the latent actions in a file are; write report.json, report.html and figures."""

    latents: tyro.conf.Positional[Path] = tyro.MISSING
    """npz or parquet with codes, motion, trajectory, step (docs/score_your_latents.md), or LARYBench's csv."""
    out: Annotated[Path, Option("DIR")] = tyro.MISSING
    """Folder for the report."""
    num_codes: int | None = None
    """Size of the codebook (of all tuples of tokens), or number of clusters of an embedding."""
    trajectories: int | None = 1000
    """Largest number of random trajectories, or "none" for all that fit into 200,000 transitions."""
    unit: str = ""
    """Unit of the motion; with m and motion named x, y, z it is also drawn as a map, in mm."""
    data_root: Annotated[tuple[Path, ...], Option("DIR ...")] = ()
    """Folders to which the paths in a LARYBench table are relative."""
    draws: int = 2000
    """Bootstrap draws, at least 100."""
    seed: int = 0
    """Random seed."""


def score(argv: list[str]) -> int:
    options = parse(ScoreOptions, argv, prog="genie-robotics score", example="score latents.npz --out report")
    if options.draws < MIN_DRAWS:
        raise UserError(f"--draws must be at least {MIN_DRAWS} for stable intervals, got {options.draws}")

    from genie_eval.score.score import ScoreConfig
    from genie_eval.score.score import score as run_score

    config = ScoreConfig(
        num_codes=options.num_codes, trajectories=options.trajectories, unit=options.unit, draws=options.draws,
        seed=options.seed,
    )  # fmt: skip
    report = run_score(options.latents, options.out, config, options.data_root)
    for note in report["data"]["notes"]:
        print(f"note: {note}")
    print_scorecard(report)
    print(f"report: {(options.out / 'report.html').resolve()}")
    return 0
