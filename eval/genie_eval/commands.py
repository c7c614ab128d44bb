"""`genie-robotics evaluate`: the consistency suite on a run and a source."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from genie_datasets.errors import UserError
from genie_datasets.options import SourceOptions, parse
from genie_eval.evaluation import EvaluationConfig


@dataclass
class EvaluateOptions(SourceOptions):
    """Measure how consistent the latent actions of a run are; write report.json, report.html and figures."""

    run: tyro.conf.Positional[str] = tyro.MISSING
    """Run folder."""
    data: str = tyro.MISSING
    """RLDS folder, folder of videos, or frame cache."""
    out: Path = tyro.MISSING
    """Folder for the report."""
    split: str | None = None
    """Which split to evaluate; test if there is one, else all."""
    trajectories: int | None = 200
    """Episodes to evaluate, chosen at random; none: all. Below 200 the report calls itself exploratory."""
    clips: int = 200
    """Clips to dream from."""
    starts: int = 6
    """Start frames of the same-action figure."""
    seed: int = 0


def evaluate(argv: list[str]) -> int:
    options = parse(EvaluateOptions, argv, prog="genie-robotics evaluate")
    if options.out.exists() and not options.out.is_dir():
        raise UserError(f"{options.out} is a file: give a folder with --out")

    from genie_eval.evaluation import evaluate as run_suite
    from genie_robotics.genie import Genie

    genie = Genie.from_pretrained(options.run)
    source = options.open(options.data)
    config = EvaluationConfig(
        trajectories=options.trajectories, clips=options.clips, starts=options.starts, seed=options.seed
    )
    report = run_suite(genie, source, options.out, split=options.split, run=options.run, config=config)
    print_scorecard(report)
    print(f"report: {(options.out / 'report.html').resolve()}")
    return 0


def print_scorecard(report: dict) -> None:
    """The verdicts in the terminal: one line a metric."""
    summary = report["summary"]
    print(summary["first_line"])
    print(f"{summary['question']} {summary['answer']}. {summary['because']}")
    for name, metric in report["metrics"].items():
        value = "      -" if metric["value"] is None else f"{metric['value']:7.2f}"
        interval = "" if metric["ci95"] is None else f"[{metric['ci95'][0]:.2f}, {metric['ci95'][1]:.2f}]"
        print(f"  {metric['verdict']:<8}{name:<30}{value}  {interval:<16} {metric['reason']}")
