"""`genie-robotics evaluate`: the consistency suite on a run and a source."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from genie_datasets.base.command_help import Option
from genie_datasets.base.command_line import parse
from genie_datasets.base.errors import UserError
from genie_datasets.base.files import make_folder
from genie_datasets.sources.options import SourceOptions
from genie_eval.checks import check_seed
from genie_eval.metrics import digits
from genie_eval.report.cells import interval_text, number

MINUS_ZERO = re.compile(r"(?<![\w.])-(0\.0+)(?!\d)")


@dataclass
class EvaluateOptions(SourceOptions):
    """Measure how consistent the latent actions of a run are; write report.json, report.html and figures."""

    run: tyro.conf.Positional[str | None] = None
    """Run folder, or the name of a world that comes with the package (nano-tabletop)."""
    data: Annotated[str | None, Option("SRC")] = None
    """Data set to measure on: RLDS folder, folder of videos, or frame cache."""
    out: Annotated[Path | None, Option("DIR")] = None
    """Folder for the report."""
    judge: Annotated[str | None, Option("RUN")] = None
    """Another run whose latent action model reads commands back; a shipped world has its own."""
    seeds: Annotated[tuple[str, ...], Option("RUN ...")] = ()
    """Runs of the same recipe with other training seeds, for the spread over seeds."""
    compare: Annotated[tuple[Path, ...], Option("REPORT ...")] = ()
    """Compare these finished reports (folders or report.json files) instead of measuring."""
    full: bool = False
    """Measure more starts, sequences and clips: hours instead of minutes for large models."""
    quick: bool = False
    """Measure the headline metrics only, as in `demo`."""
    i3d: Path | None = None
    """TorchScript I3D weights (i3d_torchscript.pt), for FVD."""
    split: Annotated[str | None, Option("NAME")] = None
    """Split to evaluate (default: test if there is one, else all)."""
    trajectories: int | None = 200
    """Random episodes to evaluate, or "none" for all. Fewer than 200 are exploratory."""
    clips: int = 200
    """Clips to dream from."""
    starts: Annotated[Path | None, Option("FOLDER")] = None
    """Folder of your own pictures to start from, measured beside the start set of the suite."""
    figure_rows: int = 6
    """Start frames of the same-action figure."""
    seed: int = 0
    """Random seed."""


def evaluate(argv: list[str]) -> int:
    options = parse(
        EvaluateOptions, argv, prog="genie-robotics evaluate", example="evaluate runs/mine --data SRC --out report"
    )
    if options.compare:
        from genie_eval.report.compare import run_compare

        _check_compare(options)
        return run_compare(list(options.compare), options.out)
    names = {"run": "RUN", "data": "--data SRC", "out": "--out DIR"}
    missing = [words for name, words in names.items() if getattr(options, name) is None]
    if missing:
        raise UserError(f"evaluate needs {' and '.join(missing)}; see genie-robotics evaluate --help")
    assert options.run is not None
    assert options.data is not None
    assert options.out is not None
    if options.full and options.quick:
        raise UserError("--full cannot be combined with --quick")
    if options.quick and options.i3d is not None:
        raise UserError("--i3d cannot be combined with --quick, which makes no long dreams; leave one of them out")
    check_seed(options.seed)
    _check_runs(options.run, options.judge, options.seeds)
    make_folder(options.out)

    from genie_eval.evaluation import evaluate as run_suite
    from genie_eval.results import EvaluationConfig
    from genie_robotics.genie import Genie
    from genie_robotics.pretrained import judge_of

    if options.i3d is not None:  # a wrong file must fail now, not after minutes of work
        from genie_eval.dreams.fvd import load_i3d

        load_i3d(options.i3d)
    if options.starts is not None:  # likewise
        from genie_eval.start_pictures.folder import read_folder

        read_folder(options.starts)
    genie = Genie.from_pretrained(options.run)
    judge_run = options.judge or judge_of(options.run)
    judge = None if judge_run is None else Genie.from_pretrained(judge_run)
    if judge_run is not None:
        print(f"judge: {judge_run}")
    seeds = [Genie.from_pretrained(run) for run in options.seeds]
    for name, other in [(judge_run, judge), *zip(options.seeds, seeds, strict=True)]:
        if other is not None and tuple(other.config.image_size) != tuple(genie.config.image_size):
            raise UserError(
                f"{name} is for frames of {other.config.image_size}, but {options.run} for {genie.config.image_size}; "
                "choose a run of the same frame size"
            )
    source = options.open(options.data)
    config = EvaluationConfig(
        trajectories=options.trajectories, clips=options.clips, figure_rows=options.figure_rows, seed=options.seed,
        size="full" if options.full else "quick" if options.quick else "default", i3d=options.i3d,
        starts=options.starts,
    )  # fmt: skip
    report = run_suite(
        genie, source, options.out, split=options.split, run=options.run, judge=judge, seeds=seeds, config=config
    )
    print_scorecard(report)
    print(f"report: {(options.out / 'report.html').resolve()}")
    return 0


def _check_compare(options: EvaluateOptions) -> None:
    measuring = {
        "RUN": options.run, "--data": options.data, "--judge": options.judge, "--seeds": options.seeds or None,
        "--i3d": options.i3d, "--starts": options.starts, "--full": options.full or None,
        "--quick": options.quick or None,
    }  # fmt: skip
    given = [name for name, value in measuring.items() if value is not None]
    if given:
        raise UserError(f"--compare reads finished reports and cannot be combined with {', '.join(given)}")


def _check_runs(run: str, judge: str | None, seeds: tuple[str, ...]) -> None:
    """The judge and the seeds must be different runs: a model agrees with itself, and one seed has no spread."""
    from genie_robotics.pretrained import locate

    own = locate(run).resolve()
    if judge is not None and locate(judge).resolve() == own:
        raise UserError(f"--judge {judge} is the run itself, which agrees with itself; choose a run of another seed")
    seen = {own: "the run itself"}
    for other in seeds:
        place = locate(other).resolve()
        if place in seen:
            raise UserError(f"--seeds {other} is {seen[place]}; list each other run once")
        seen[place] = "listed twice"


def print_scorecard(report: dict) -> None:
    """Prints the answers, and one line per metric: verdict, name, value, interval, reason."""
    summary = report["summary"]
    lines = [summary["first_line"]]
    lines += [
        f"{asked['question']} {asked['answer']}. {asked['because']}" for asked in summary.get("questions", [summary])
    ]
    print(MINUS_ZERO.sub(r"\1", "\n".join(lines + metric_lines(report["metrics"]))))


def metric_lines(metrics: dict[str, Any]) -> list[str]:
    """One line per metric: verdict, name, value, interval, reason."""
    lines = []
    for name, metric in metrics.items():
        value = "-" if metric["value"] is None else number(metric["value"], digits(name))
        interval = interval_text(metric["ci95"], digits(name))
        lines.append(f"  {metric['verdict']:<8}{name:<30}{value:>7}  {interval:<16} {metric['reason']}")
    return lines
