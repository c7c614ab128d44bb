"""`evaluate`: measures one model on one source and writes report.json, report.html and figures/."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from genie_datasets.base.errors import UserError
from genie_eval.checks import checked
from genie_eval.codes.baselines import baselines
from genie_eval.codes.details import code_details
from genie_eval.codes.measure import StatisticsConfig, code_metrics
from genie_eval.collect import Evidence, collect, collect_training
from genie_eval.dreams.action_use import action_use
from genie_eval.dreams.any_start import measure_any_start
from genie_eval.dreams.control import dream_commands, measure_control
from genie_eval.dreams.distribution import mmd_motion
from genie_eval.dreams.fidelity import fidelity
from genie_eval.dreams.fvd import fvd_report
from genie_eval.dreams.generation import dream_set
from genie_eval.dreams.horizon import horizon_report, long_dreams
from genie_eval.dreams.readout import inverse_dynamics, readout_or_reason
from genie_eval.dreams.simulated import SimulatedFutures, simulate_futures
from genie_eval.dreams.starts import choose_starts
from genie_eval.inference.level import inference_details
from genie_eval.interfaces import Judge, WorldModel
from genie_eval.metrics import Metric
from genie_eval.report.write import write_report
from genie_eval.results import EvaluationConfig, Results
from genie_eval.start_pictures.folder import read_folder

if TYPE_CHECKING:
    from genie_datasets import Source, Split


def evaluate(
    world: WorldModel,
    source: "Source",
    out: str | Path,
    *,
    split: str | None = None,
    run: str | Path | None = None,
    judge: Judge | None = None,
    seeds: Sequence[WorldModel] = (),
    config: EvaluationConfig | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Measures a world model and writes the report into the folder `out`; returns the content of report.json.

    Args:
        world: the model, for example a `genie_robotics.Genie`; see `genie_eval.interfaces.WorldModel`.
        source: the video; with the truth where it knows it.
        out: folder of the report.
        split: the split to evaluate; None: `test` if there is one, otherwise all splits.
        run: where the model came from, for the record.
        judge: an independent model (other seed, other data) that reads commands back from the dreams.
        seeds: models of the same recipe from other training seeds; their spread is reported next to the values.
        config: amounts; fields can also be passed by name in `options`.

    Raises:
        UserError: the split does not exist, or has no episode of three frames.
    """
    from genie_robotics.models.threads import threads_for

    config = checked(replace(config or EvaluationConfig(), **options))
    if config.clips < 1 or config.figure_rows < 1 or (config.trajectories is not None and config.trajectories < 1):
        raise UserError(
            f"--trajectories, --clips and --figure-rows must be at least 1, got {config.trajectories}, {config.clips} "
            f"and {config.figure_rows}"
        )
    config = config.resolved()
    evaluated, train = choose_splits(source, split)
    with threads_for(world):
        results = measure(world, evaluated, train, config, judge)
        add_seeds(results.metrics, [measure(other, evaluated, train, config).metrics for other in seeds])
    return write_report(results, world, source, evaluated, Path(out), run, config)


def choose_splits(source: "Source", name: str | None) -> tuple["Split", "Split | None"]:
    """The split to evaluate, and the split to fit baselines on: `train`, unless it is evaluated."""
    from genie_datasets.sources.mixture import MixedSplit

    if name is None and "test" in source.splits:
        name = "test"
    if name is None and len(source.splits) > 1:
        every = list(source.splits.values())
        return MixedSplit("+".join(source.splits), every, [float(s.num_episodes) for s in every]), None
    chosen = source.split(name if name is not None else next(iter(source.splits)))
    train = source.splits.get("train")
    return chosen, None if train is chosen else train


def measure(
    world: WorldModel, evaluated: "Split", train: "Split | None", config: EvaluationConfig, judge: Judge | None = None
) -> Results:
    """Computes all numbers and writes no files."""
    config = config.resolved()
    assert config.control is not None
    assert config.horizon is not None
    assert config.any_start is not None
    own = None if config.starts is None else read_folder(Path(config.starts))  # a wrong folder fails before any work
    seconds: dict[str, float] = {}
    gap, num_codes, seed, progress = world.config.gap, world.config.num_actions, config.seed, config.progress
    with clock(seconds, "codes and motion"):
        untrained = untrained_like(world, seed)
        evidence = collect(world, evaluated, gap, config.trajectories, seed, untrained, progress)
        fitted = None
        if train is not None:
            fitted = collect_training(world, train, gap, config.train_trajectories, seed, progress)
    with clock(seconds, "read-out"):
        readout = readout_or_reason(world, evaluated, train, evidence, config.control.readout, seed, progress)
        if not isinstance(readout, str):
            predicted = inverse_dynamics(readout, world, evaluated, evidence)
            evidence = replace(evidence, features=replace(evidence.features, predicted=predicted))
    with clock(seconds, "statistics"):
        found = baselines(evidence.table, evidence.codes, evidence.features, fitted, num_codes, seed)
        metrics, rows, codes = code_metrics(
            evidence.table, evidence.codes, found, num_codes, StatisticsConfig.of(config)
        )
        oracle = found["oracle_motion"].codes
        details = code_details(
            evidence.table, evidence.codes, num_codes, oracle, evidence.embedding, config.draws, seed
        )
    with clock(seconds, "dreams"):
        dreams = dream_set(
            world, evaluated, evidence.trajectories, config.clips, batch=config.batch, seed=seed, progress=progress
        )
        metrics |= action_use(dreams, config.draws, seed) | fidelity(dreams, config.draws, seed)
    with clock(seconds, "commanded dreams"):
        starts = choose_starts(world, evaluated, evidence, config.control.starts, seed)
        commanded = dream_commands(world, starts, evidence, config.control, config.batch, seed, progress)
    with clock(seconds, "simulated futures"):
        try:
            futures: SimulatedFutures | str = simulate_futures(
                world, evaluated, evidence, starts, config.control.steps, config.control.sampled_starts, seed, progress
            )
        except UserError as error:
            futures = f"no simulator behind this source: {error}"
    with clock(seconds, "control"):
        control = measure_control(
            world, judge, evaluated, evidence, dreams, commanded, readout, futures, config.draws, seed
        )
        metrics |= control.metrics
    details |= control.details
    with clock(seconds, "any start"):
        any_start = measure_any_start(
            world, judge, config.any_start, split=evaluated, evidence=evidence, own=own, draws=config.draws, seed=seed,
            progress=progress,
        )  # fmt: skip
        metrics |= any_start.metrics
        details["any_start"] = any_start.details
    if config.horizon.clips:
        with clock(seconds, "long dreams"):
            details |= long_dream_details(world, evaluated, evidence, config)
    with clock(seconds, "altered input"):
        altered, details["inference"] = inference_details(
            world, evaluated, evidence.trajectories, evidence.table, evidence.codes, config.inference, seed, progress
        )
        metrics |= altered
    return Results(metrics, rows, codes, evidence, dreams, control, details, seconds, config.figure_rows, any_start)


def long_dream_details(
    world: WorldModel, evaluated: "Split", evidence: Evidence, config: EvaluationConfig
) -> dict[str, Any]:
    """Dreams of 15 frames: fidelity and use of the codes by t, and the distance of dreams, as a set, to real video."""
    assert config.horizon
    trajectory_codes = np.split(evidence.codes, evidence.table.starts[1:-1])
    dreams = long_dreams(
        world, evaluated, evidence.trajectories, config.horizon, trajectory_codes, config.seed, config.batch,
        config.progress,
    )  # fmt: skip
    details: dict[str, Any] = {
        "horizon": horizon_report(dreams, config.draws, config.seed),
        "distribution": mmd_motion(dreams, config.draws, config.seed),
        "fvd": {"reason": "pass TorchScript I3D weights with --i3d"},
    }
    if config.i3d is not None:
        details["fvd"] = fvd_report(dreams.truth[:, 1:], dreams.shown, config.i3d)
    return details


def add_seeds(metrics: dict[str, Metric], others: list[dict[str, Metric]]) -> None:
    """Sets n_seeds and the spread over training seeds, which is not a confidence interval over trajectories."""
    for name, metric in metrics.items():
        values = [metric.value, *(other[name].value for other in others if name in other)]
        known = [value for value in values if value is not None]
        if others and len(known) > 1:
            metric.n_seeds = len(known)
            metric.more["seeds"] = {
                "values": values, "mean": float(np.mean(known)), "sd": float(np.std(known, ddof=1)),
            }  # fmt: skip


def untrained_like(world: WorldModel, seed: int) -> WorldModel:
    """A model of the same shape with random weights. Does not change the caller's random state."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        make: Any = type(world)
        model = make(world.config)
    if hasattr(model, "to") and hasattr(world, "device"):
        model = model.to(world.device)
    return model.eval() if hasattr(model, "eval") else model


@contextmanager
def clock(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - start
