"""`genie-robotics evaluate`: the consistency suite on a run and a source."""

import re
from dataclasses import dataclass
from pathlib import Path

import tyro

from genie_datasets.base.command_line import parse
from genie_datasets.base.errors import UserError
from genie_datasets.sources.options import SourceOptions
from genie_eval.checks import check_seed, make_folder
from genie_eval.report.cells import interval_text, number

MINUS_ZERO = re.compile(r"(?<![\w.])-(0\.0+)(?!\d)")


@dataclass
class EvaluateOptions(SourceOptions):
    """Measure how consistent the latent actions of a run are; write report.json, report.html and figures."""

    run: tyro.conf.Positional[str | None] = None
    """Run folder, or the name of a world that comes with the package (nano-tabletop)."""
    data: str | None = None
    """RLDS folder, folder of videos, or frame cache."""
    out: Path | None = None
    """Folder for the report."""
    judge: str | None = None
    """Another run (other seed, other data) whose latent action model reads commands back from the dreams. A world that
    was exported with a judge of its own needs none; one that is given goes first."""
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
        from genie_eval.report.compare import run_compare

        _refuse_beside_compare(options)
        return run_compare(list(options.compare), options.out)
    if options.run is None or options.data is None or options.out is None:
        missing = [n for n in ("run", "data", "out") if getattr(options, n) is None]
        names = {"run": "RUN", "data": "--data SRC", "out": "--out DIR"}
        raise UserError(f"evaluate needs {' and '.join(names[n] for n in missing)}: see genie-robotics evaluate --help")
    if options.full and options.quick:
        raise UserError("--full and --quick exclude each other")
    if options.quick and options.i3d is not None:
        raise UserError("--quick makes no long dreams, which --i3d is for: leave one of them out")
    check_seed(options.seed)
    _refuse_same_runs(options.run, options.judge, options.seeds)
    make_folder(options.out)

    from genie_eval.evaluation import evaluate as run_suite
    from genie_eval.results import EvaluationConfig
    from genie_robotics.genie import Genie
    from genie_robotics.pretrained import judge_of

    if options.i3d is not None:  # a wrong file is said now, not after minutes of work
        from genie_eval.dreams.fvd import load_i3d

        load_i3d(options.i3d)
    genie = Genie.from_pretrained(options.run)
    judge_run = options.judge or judge_of(options.run)
    judge = None if judge_run is None else Genie.from_pretrained(judge_run)
    if judge_run is not None:
        print(f"judge: {judge_run}")
    seeds = [Genie.from_pretrained(run) for run in options.seeds]
    for name, other in [(judge_run, judge), *zip(options.seeds, seeds, strict=True)]:
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


def _refuse_beside_compare(options: EvaluateOptions) -> None:
    measuring = {
        "RUN": options.run, "--data": options.data, "--judge": options.judge, "--seeds": options.seeds or None,
        "--i3d": options.i3d, "--full": options.full or None, "--quick": options.quick or None,
    }  # fmt: skip
    given = [name for name, value in measuring.items() if value is not None]
    if given:
        raise UserError(f"--compare lays finished reports side by side: give no {' and no '.join(given)} with it")


def _refuse_same_runs(run: str, judge: str | None, seeds: tuple[str, ...]) -> None:
    """A model agrees with itself, and one seed has no spread."""
    from genie_robotics.pretrained import locate

    own = locate(run).resolve()
    if judge is not None and locate(judge).resolve() == own:
        raise UserError(f"--judge {judge} is the run itself, which agrees with itself: give a run of another seed")
    seen = {own: "the run itself"}
    for other in seeds:
        place = locate(other).resolve()
        if place in seen:
            raise UserError(f"--seeds {other} is {seen[place]}: the spread is over different runs, give each once")
        seen[place] = "given twice"


def print_scorecard(report: dict) -> None:
    """The verdicts in the terminal: one line a metric."""
    summary = report["summary"]
    lines = [summary["first_line"]]
    lines += [
        f"{asked['question']} {asked['answer']}. {asked['because']}" for asked in summary.get("questions", [summary])
    ]
    for name, metric in report["metrics"].items():
        value = "-" if metric["value"] is None else number(metric["value"])
        interval = interval_text(metric["ci95"])
        lines.append(f"  {metric['verdict']:<8}{name:<30}{value:>7}  {interval:<16} {metric['reason']}")
    print(MINUS_ZERO.sub(r"\1", "\n".join(lines)))
