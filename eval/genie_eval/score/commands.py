"""`genie-robotics score`: the consistency suite on a file of latent actions."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from genie_datasets.base.command_line import parse
from genie_datasets.base.errors import UserError
from genie_eval.checks import check_seed
from genie_eval.commands import print_scorecard

LEAST_DRAWS = 100  # the ends of a 95 % interval lie between draws; fewer are noise


@dataclass
class ScoreOptions:
    """Measure how consistent anyone's latent actions are; write report.json, report.html and figures."""

    latents: tyro.conf.Positional[Path] = tyro.MISSING
    """npz or parquet of codes, motion, trajectory, step (docs/score_your_latents.md), or LARYBench's csv."""
    out: Path = tyro.MISSING
    """Folder for the report."""
    num_codes: int | None = None
    """Size of the codebook, if it is more than the largest code + 1; of several tokens, how many tuples there can be;
    of an embedding, the number of clusters (8)."""
    trajectories: int | None = 1000
    """At most so many trajectories, chosen at random; None: all that fit into 200,000 transitions."""
    unit: str = ""
    """Unit of the motion. With m, and motion named x, y, z, it is also drawn as a map, in mm."""
    data_root: tuple[Path, ...] = ()
    """Folders where the paths in a LARYBench table begin."""
    draws: int = 2000
    """Bootstrap draws; at least 100."""
    seed: int = 0


def score(argv: list[str]) -> int:
    options = parse(ScoreOptions, argv, prog="genie-robotics score")
    if options.out.exists() and not options.out.is_dir():
        raise UserError(f"{options.out} is a file: give a folder with --out")
    check_seed(options.seed)
    if options.draws < LEAST_DRAWS:
        raise UserError(f"--draws {options.draws}: at least {LEAST_DRAWS}, or intervals are chance")

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
