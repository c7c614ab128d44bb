"""`evaluate`: one model, one source, the whole suite; writes report.json, report.html and figures/*.png."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from genie_datasets.errors import UserError
from genie_eval.action_use import action_use
from genie_eval.assay import CtcReading, MotionAssay
from genie_eval.codebook import codebook_perplexity
from genie_eval.collect import Evidence, collect, collect_training, read_frames
from genie_eval.fidelity import fidelity
from genie_eval.generation import DreamSet, dream_set, same_action_grid
from genie_eval.ladder import Rung, ladder, rungs
from genie_eval.metric import Metric, not_run
from genie_eval.motion_metrics import by_motion, ctc_metric, grounding_metric
from genie_eval.naming import name_codes
from genie_eval.quantise import quantise
from genie_eval.resampling import DRAWS, SWAPS

if TYPE_CHECKING:
    from genie_datasets import Source, Split

BASELINES = ("pca_kmeans", "flow_kmeans")
BESIDE = ("image", "rotation", "gripper")  # other motions under `by_motion`
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
    from genie_eval.report import write_report

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
        metrics, rows, codes = code_metrics(evidence, found, num_codes, config)
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


def code_metrics(
    evidence: Evidence, found: list[Rung], num_codes: int, config: EvaluationConfig
) -> tuple[dict[str, Metric], list[dict[str, Any]], list[dict[str, Any]]]:
    """Metrics of the codes alone, the ladder, and the card of each code."""
    table, codes, seed, draws = evidence.table, evidence.codes, config.seed, config.draws
    by_name = {rung.name: rung.codes for rung in found}
    oracle = by_name["oracle_motion"]
    metrics = {"codebook_perplexity": codebook_perplexity(codes, table.trajectory, num_codes, oracle, seed)}
    baselines = {rung.name: rung.codes for rung in found if rung.name in BASELINES and rung.codes is not None}
    one_code = f"one code for everything: all {len(codes)} transitions have code {codes[0]}"
    assays: dict[str, MotionAssay] = {}
    readings: dict[str, CtcReading] = {}
    null, best_r2 = {}, {}
    for motion, suffix in (("base", ""), ("flow", "_flow")):
        grounding, consistent = names = (f"grounding{suffix}_r2", f"ctc{suffix}")
        problem = table.why_unusable(motion)
        if problem:
            metrics |= {name: not_run(problem) for name in names}
            continue
        assay = assays[suffix] = MotionAssay(table, motion, num_codes, draws, seed)
        best = oracle
        if best is None or suffix:
            best = quantise(assay.values, table.trajectory, num_codes, seed=seed)
        # against flow, k-means of flow is (nearly) the oracle and no rival
        rivals = {name: rival for name, rival in baselines.items() if not (suffix and name == "flow_kmeans")}
        null[suffix], best_r2[suffix] = 0.0, assay.r2(best)
        if codes.min() == codes.max():
            metrics |= {name: not_run(one_code) for name in names}
            continue
        metrics[grounding] = grounding_metric(assay, codes, best, rivals, config.swaps)
        metrics[consistent], readings[suffix] = ctc_metric(assay, codes, best, config.swaps)
        null[suffix] = metrics[grounding].null or 0.0
        for name in names:
            metrics[name].more["motion"] = MOTION_WORDS[motion]
    if "" in readings:
        beside = by_motion(table, list(BESIDE), codes, num_codes, draws, seed)
        metrics["grounding_r2"].more["by_motion"] = beside
    rows = ladder(found, assays, null, best_r2, table.trajectory, num_codes, config.progress)
    cards = name_codes(table, codes, num_codes, draws, seed)
    for card in cards:
        k = card["code"]
        card["ctc"] = readings[""].code_values[k] if "" in readings else None
        card["ctc_flow"] = readings["_flow"].code_values[k] if "_flow" in readings else None
    return metrics, rows, cards


MOTION_WORDS = {
    "base": "3-D end-effector displacement in the base frame, measured, z-scored",
    "flow": "mean optical flow of the moving pixels (Farneback), z-scored; not true motion",
}


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
