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

    run: tyro.conf.Positional[str | None] = None
    """Run folder."""
    data: str | None = None
    """RLDS folder, folder of videos, or frame cache."""
    out: Path | None = None
    """Folder for the report."""
    judge: str | None = None
    """Another run (other seed, other data) whose latent action model reads commands back from the dreams."""
    seeds: tuple[str, ...] = ()
    """Runs of the same recipe from other training seeds: measured too, for the spread."""
    compare: tuple[Path, ...] = ()
    """Instead of measuring: lay these finished reports (folders or report.json files) side by side."""
    full: bool = False
    """The whole specification: more starts, sequences and clips, hours instead of minutes for large models."""
    quick: bool = False
    """The headline metrics only, as in `demo`."""
    i3d: Path | None = None
    """TorchScript I3D weights (i3d_torchscript.pt), for FVD proper."""
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
    if options.compare:
        from genie_eval.compare import run_compare

        if options.run is not None or options.data is not None:
            raise UserError("--compare lays finished reports side by side: give no RUN and no --data with it")
        return run_compare(list(options.compare), options.out)
    if options.run is None or options.data is None or options.out is None:
        missing = [n for n in ("run", "data", "out") if getattr(options, n) is None]
        names = {"run": "RUN", "data": "--data SRC", "out": "--out DIR"}
        raise UserError(f"evaluate needs {' and '.join(names[n] for n in missing)}: see genie-robotics evaluate --help")
    if options.full and options.quick:
        raise UserError("--full and --quick exclude each other")
    if options.out.exists() and not options.out.is_dir():
        raise UserError(f"{options.out} is a file: give a folder with --out")

    from genie_eval.evaluation import evaluate as run_suite
    from genie_robotics.genie import Genie

    if options.i3d is not None:  # a wrong file is said now, not after minutes of work
        from genie_eval.dreams.fvd import load_i3d

        load_i3d(options.i3d)
    genie = Genie.from_pretrained(options.run)
    judge = None if options.judge is None else Genie.from_pretrained(options.judge)
    seeds = [Genie.from_pretrained(run) for run in options.seeds]
    for name, other in [(options.judge, judge), *zip(options.seeds, seeds, strict=True)]:
        if other is not None and tuple(other.config.image_size) != tuple(genie.config.image_size):
            raise UserError(
                f"{name} sees frames of {other.config.image_size}, {options.run} of {genie.config.image_size}"
            )
    source = options.open(options.data)
    config = EvaluationConfig(
        trajectories=options.trajectories, clips=options.clips, starts=options.starts, seed=options.seed,
        size="full" if options.full else "quick" if options.quick else "default", i3d=options.i3d,
    )  # fmt: skip
    report = run_suite(
        genie, source, options.out, split=options.split, run=options.run, judge=judge, seeds=seeds, config=config
    )
    print_scorecard(report)
    print(f"report: {(options.out / 'report.html').resolve()}")
    return 0


def print_scorecard(report: dict) -> None:
    """The verdicts in the terminal: one line a metric."""
    summary = report["summary"]
    print(summary["first_line"])
    for asked in summary.get("questions", [summary]):
        print(f"{asked['question']} {asked['answer']}. {asked['because']}")
    for name, metric in report["metrics"].items():
        value = "      -" if metric["value"] is None else f"{metric['value']:7.2f}"
        interval = "" if metric["ci95"] is None else f"[{metric['ci95'][0]:.2f}, {metric['ci95'][1]:.2f}]"
        print(f"  {metric['verdict']:<8}{name:<30}{value}  {interval:<16} {metric['reason']}")
