"""`evaluate`: one model, one source, the whole suite; writes report.json, report.html and figures/*.png."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from genie_datasets.errors import UserError
from genie_eval.codes.ladder import rungs
from genie_eval.codes.measure import StatisticsConfig, code_metrics
from genie_eval.collect import Evidence, collect, collect_training, read_frames
from genie_eval.dreams.action_use import action_use
from genie_eval.dreams.fidelity import fidelity
from genie_eval.dreams.generation import DreamSet, dream_set, same_action_grid
from genie_eval.metric import Metric, not_run
from genie_eval.resampling import DRAWS, SWAPS

if TYPE_CHECKING:
    from genie_datasets import Source, Split

LATER = {
    "sequence_consistency": "needs a motion read-out on dreams, which this version does not have",
    "command_bits": "needs dreams of every code judged by this and by an independent latent action model; "
    "this version does not have it",
    "command_bits_physical": "needs a motion read-out on dreams, which this version does not have",
    "counterfactual_id": "needs the simulator's own futures from the same states, which this version does not render",
    "state_leak": "the cross-fitted model of codes from state is not part of this version",
    "nuisance_flip_rate": "the nuisances are not part of this version",
}


@dataclass(frozen=True)
class EvaluationConfig:
    """How much is evaluated. The defaults are those of the protocol (eval/README.md)."""

    trajectories: int | None = 200
    """Episodes to evaluate; none: all of the split."""
    clips: int = 200
    """Clips to dream from."""
    starts: int = 6
    """Start frames of the same-action figure."""
    draws: int = DRAWS
    """Bootstrap draws."""
    swaps: int = SWAPS
    """Whole-trajectory swaps of the permutation tests."""
    train_trajectories: int = 100
    """Training episodes on which the baselines are fitted."""
    batch: int = 16
    """Clips that are dreamt together."""
    seed: int = 0
    progress: bool = True


@dataclass
class Results:
    """Everything the report is made from."""

    metrics: dict[str, Metric]
    ladder: list[dict[str, Any]]
    codes: list[dict[str, Any]]
    evidence: Evidence
    dreams: DreamSet
    grid_starts: np.ndarray
    grid: np.ndarray
    seconds: dict[str, float]


def evaluate(
    genie: Any,
    source: "Source",
    out: str | Path,
    *,
    split: str | None = None,
    run: str | Path | None = None,
    config: EvaluationConfig | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Runs the suite and writes the report into the folder `out`; returns the content of report.json.

    genie: anything with the interface of `genie_robotics.Genie`. split: None takes `test` if there is one, else all
    splits. run: where the model came from, for the record. options: fields of EvaluationConfig.

    Raises:
        UserError: no such split, or no episode of three frames.
    """
    from genie_eval.report.write import write_report

    config = replace(config or EvaluationConfig(), **options)
    if config.clips < 1 or config.starts < 1 or (config.trajectories is not None and config.trajectories < 1):
        raise UserError("--trajectories, --clips and --starts must be at least 1")
    evaluated, train = choose_splits(source, split)
    results = measure(genie, evaluated, train, config)
    return write_report(results, genie, source, evaluated, Path(out), run, config)


def choose_splits(source: "Source", name: str | None) -> tuple["Split", "Split | None"]:
    """The split to evaluate, and the one to fit baselines on: `train`, where none of it is evaluated."""
    from genie_datasets.mixture import MixedSplit

    if name is None and "test" in source.splits:
        name = "test"
    if name is None and len(source.splits) > 1:
        every = list(source.splits.values())
        return MixedSplit("+".join(source.splits), every, [float(s.num_episodes) for s in every]), None
    chosen = source.split(name if name is not None else next(iter(source.splits)))
    train = source.splits.get("train")
    return chosen, None if train is chosen else train


def measure(genie: Any, evaluated: "Split", train: "Split | None", config: EvaluationConfig) -> Results:
    """All numbers, no files."""
    seconds: dict[str, float] = {}
    gap, num_codes, seed = genie.config.gap, genie.config.num_actions, config.seed
    with clock(seconds, "codes and motion"):
        untrained = untrained_like(genie, seed)
        evidence = collect(genie, evaluated, gap, config.trajectories, seed, untrained, config.progress)
        fitted = None
        if train is not None:
            fitted = collect_training(genie, train, gap, config.train_trajectories, seed, config.progress)
    with clock(seconds, "statistics"):
        found = rungs(evidence.table, evidence.codes, evidence.features, fitted, num_codes, seed)
        metrics, rows, codes = code_metrics(
            evidence.table, evidence.codes, found, num_codes, StatisticsConfig.of(config)
        )
    with clock(seconds, "dreams"):
        dreams = dream_set(
            genie, evaluated, evidence.trajectories, config.clips,
            batch=config.batch, seed=seed, progress=config.progress,
        )  # fmt: skip
        metrics |= action_use(dreams, config.draws, seed) | fidelity(dreams, config.draws, seed)
        starts = grid_starts(genie, evaluated, evidence, config)
        grid = same_action_grid(genie, starts, batch=config.batch, seed=seed, progress=config.progress)
    metrics |= {name: not_run(why) for name, why in LATER.items()}
    return Results(metrics, rows, codes, evidence, dreams, starts, grid, seconds)


def untrained_like(genie: Any, seed: int) -> Any:
    """A model of the same shape with random weights; the caller's random state is left as it was."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = type(genie)(genie.config)
    if hasattr(model, "to") and hasattr(genie, "device"):
        model = model.to(genie.device)
    return model.eval() if hasattr(model, "eval") else model


def grid_starts(genie: Any, split: "Split", evidence: Evidence, config: EvaluationConfig) -> np.ndarray:
    """(S, H, W, 3) frames from the middle third of different trajectories, in as many scenes as there are."""
    rng = np.random.default_rng(config.seed + 2)
    table = evidence.table
    scene = np.zeros(table.num_trajectories, int) if table.scene is None else table.scene[table.starts[:-1]]
    order = rng.permutation(table.num_trajectories)
    turn = np.array([(scene[order[:n]] == scene[i]).sum() for n, i in enumerate(order)])  # its rank within its scene
    chosen = order[np.argsort(turn, kind="stable")][: config.starts]
    frames = []
    for i in chosen:
        trajectory = evidence.trajectories[i]
        at = int(rng.integers(len(trajectory.ids) // 3, 2 * len(trajectory.ids) // 3 + 1))
        frames.append(read_frames(split, trajectory, genie, slice(at, at + 1))[0])
    return np.stack(frames)


@contextmanager
def clock(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - start
