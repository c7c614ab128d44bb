"""`score`: from anyone's latents to report.json, report.html and figures/*.png."""

import re
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genie_datasets.base.errors import UserError
from genie_datasets.base.files import make_folder
from genie_eval.checks import checked
from genie_eval.codes.baselines import Features, baselines
from genie_eval.codes.codebook import codebook_perplexity
from genie_eval.codes.details import code_details
from genie_eval.codes.measure import StatisticsConfig, code_metrics
from genie_eval.codes.motion_statistics import MotionStatistics
from genie_eval.metrics import FEW, METRICS, Metric, not_run, plain
from genie_eval.report.answer import QUESTION, consistency_answer
from genie_eval.report.write import report_head, write_files
from genie_eval.resampling import DRAWS, SWAPS
from genie_eval.score.figures import draw
from genie_eval.score.latents import MAX_USAGE_CODES, Latents, LatentsConfig, latents
from genie_eval.score.readers import fingerprint, open_columns
from genie_eval.score.tokens import by_token

NEEDS = {
    "dreams": "needs the model itself, to generate dreams; a file of latents has none",
    "frames": "needs the model and the frames, to infer again under nuisances; a file of latents has none",
}
LIMITS = (
    "The motion is that of the file: how it was measured, in which frame and over which time, is not known here.",
    "There are no pixels, so that the model is not compared with baselines of optical flow or frame differences.",
    "No codes can explain all of a motion: read the skill, which compares with as many codes of the motion, not R2.",
    "The dreams of a world model are not judged here; `genie-robotics evaluate` does that for its own models.",
)
MAX_RARE = 0.5  # share of the transitions with rare codes from which a verdict is at most a warning


@dataclass(frozen=True, kw_only=True)
class ScoreConfig(LatentsConfig):
    """How latents are scored."""

    unit: str = ""
    """Unit of the motion; with m and motion named x, y, z it is also drawn as a map, in mm."""
    draws: int = DRAWS
    """Bootstrap draws."""
    swaps: int = SWAPS
    """Whole-trajectory swaps of the permutation tests."""
    progress: bool = True


def score(path: str | Path, out: str | Path, config: ScoreConfig | None = None, roots: tuple[Path, ...] = ()) -> dict:
    """Reads latents, measures them, writes the report into the folder `out`, and returns the content of report.json.

    roots: folders to which the paths of a LARYBench table may be relative.

    Raises:
        UserError: the file is not as docs/score_your_latents.md describes it, or `out` cannot be written.
    """
    config, path, out = checked(config or ScoreConfig()), Path(path), Path(out)
    if out.exists() and not out.is_dir():
        raise UserError(f"--out must be a folder, but {out} is a file; choose another folder")
    for name in ("num_codes", "trajectories", "max_rows", "draws"):
        value = getattr(config, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    started = time.perf_counter()
    with open_columns(path, roots) as columns:
        source = latents(columns, str(path), config)
    reading = time.perf_counter() - started
    make_folder(out)  # before the work, so that a wrong folder fails early
    report = measure(source, config)
    report["seconds"] = {"reading": round(reading, 1), **report["seconds"]}
    report["run"]["path"] = path.name
    report["data"] |= {"source": path.name, "path": str(path), "fingerprint": fingerprint(path)}
    started = time.perf_counter()
    report["figures"] = draw(source, report["ladder"], report["codes"], out, config.draws, config.unit == "m")
    report["seconds"]["figures"] = round(time.perf_counter() - started, 1)
    return write_files(plain(report), out)


def measure(source: Latents, config: ScoreConfig) -> dict[str, Any]:
    """The content of report.json without its figures and without the file's name."""
    started = time.perf_counter()
    table, codes, size = source.table, source.codes, source.num_codes
    found = baselines(table, codes, Features(), None, size, config.seed)
    metrics, ladder, cards = code_metrics(table, codes, found, size, StatisticsConfig.of(config))
    metrics |= {m.name: not_run(NEEDS[m.needs]) for m in METRICS.values() if m.always and m.name not in metrics}
    _use_names_of_the_file(source, metrics, cards)
    word, sentence = consistency_answer(metrics)  # on the codes in the table, so before usage is of all codes
    if source.whole_table is not table:
        _count_rare_codes(source, metrics, config)
    if source.guessed:
        metrics["codebook_perplexity"].reason += f"; K = {source.whole_num_codes} is what the file shows"
    for metric in metrics.values():  # shortens lists of hundreds of codes
        metric.reason = re.sub(r"(\d+(?:, \d+){11})(?:, \d+)+", r"\1 and more", metric.reason)
    oracle = found["oracle_motion"].codes
    details = code_details(table, codes, size, oracle, source.embedding, config.draws, config.seed)
    if not source.base_frame:  # "base" would be shown as forward, left, up
        by_motion = details["grounding"]["by_motion"]
        details["grounding"]["by_motion"] = {"motion" if k == "base" else k: v for k, v in by_motion.items()}
    details |= {
        "readout": {"reason": "needs frames to learn from; a file of latents has none"},
        "fvd": {"reason": NEEDS["dreams"]},
        "latents": {"labels": source.labels, "motion_names": source.motion_names},
    }
    if source.tokens is not None:
        details["tokens"] = by_token(source.whole_table, source.tokens, config.draws, config.seed)
    return {
        **report_head(),
        "run": {"path": None, "preset": None, "image_size": None, "num_actions": size},
        "data": {
            "source": "latents", "fingerprint": "", "split": "all",
            "n_trajectories": table.num_trajectories,
            "n_frames": len(codes) + table.num_trajectories,  # if transitions follow each other without a gap
            "n_transitions": len(codes), "true_motion": sorted(table.motions), "notes": source.notes,
            "motion_columns": _motion_columns(source, config.unit),
        },
        "settings": {name: value for name, value in asdict(config).items() if name != "progress"},
        "summary": {
            "first_line": "Scored from latents and motion alone: without pixels, there is no comparison with "
            "learning-free baselines.",
            "question": QUESTION, "answer": word, "because": sentence, "exploratory": table.num_trajectories < FEW,
        },
        "metrics": {name: metric.as_json() for name, metric in metrics.items()},
        "ladder": ladder,
        "codes": cards,
        "details": plain(details),
        "limits": LIMITS,
        "seconds": {"statistics": round(time.perf_counter() - started, 1)},
    }  # fmt: skip


def _use_names_of_the_file(source: Latents, metrics: dict[str, Metric], cards: list[dict[str, Any]]) -> None:
    """Names and reasons of the file, in place of those that hold for this library's own sources only."""
    table = source.table
    bad = ~np.isfinite(table.motions["base"]).all(axis=1)
    if bad.any():
        row = int(np.argmax(bad))
        at = f"trajectory {source.ids[table.trajectory[row]]}, step {table.step[row]}"
        for metric in metrics.values():
            if metric.reason.startswith("motion 'base' is not finite"):
                metric.reason = f"motion is not finite in {bad.sum()} of {len(bad)} transitions (first: {at})"
    for metric in metrics.values():
        if "motion" in metric.more:
            metric.more["motion"] = f"{', '.join(source.motion_names)} of the file, z-scored"
    for card, label in zip(cards, source.labels, strict=True):
        card["label"] = label
        if not source.base_frame:
            card["name"] = "unnamed"
        elif "gripper" in table.motions:  # the sign of opening is not known
            card["name"] = card["name"].replace("gripper closing", "gripper +").replace("gripper opening", "gripper -")


def _count_rare_codes(source: Latents, metrics: dict[str, Metric], config: ScoreConfig) -> None:
    """Counts the usage of all codes, and notes where a metric is that of the most common codes only.

    A metric of the most common codes does not pass where these have the smaller part of the transitions.
    """
    table, codes, size = source.whole_table, source.whole_codes, source.whole_num_codes
    share, of_common = len(source.codes) / len(codes), ["grounding_r2", "ctc"]
    if size <= MAX_USAGE_CODES:
        usage = codebook_perplexity(codes, table.trajectory, size, None, config.seed)
        usage.reason += "; with few transitions for each code this is a lower bound"
        metrics["codebook_perplexity"] = usage
    else:
        of_common.append("codebook_perplexity")
    for name in of_common:
        metric = metrics[name]
        metric.more["share_of_transitions"] = share
        metric.reason += f"; on the {source.num_codes} most common codes, {share:.0%} of the transitions"
        if metric.verdict == "pass" and (share < 1 - MAX_RARE or name == "codebook_perplexity"):
            metric.verdict = "warn"
    if metrics["grounding_r2"].value is not None:  # all rare codes as one more code
        common = np.sort(np.argsort(-np.bincount(codes, minlength=size), kind="stable")[: source.num_codes])
        new = np.full(size, source.num_codes)
        new[common] = np.arange(source.num_codes)
        statistics = MotionStatistics(table, "base", source.num_codes + 1, draws=1, seed=config.seed)
        metrics["grounding_r2"].more["all_transitions"] = statistics.r2(new[codes])


def _motion_columns(source: Latents, unit: str) -> list[dict[str, Any]]:
    """Columns of the mean motion in the table of codes: in mm where the unit is m, else in SDs."""
    if unit == "m" and source.base_frame:
        return [{"name": f"{name}, mm", "factor": 1000.0, "digits": 1} for name in source.motion_names]
    base = source.table.motions["base"]
    known = base[np.isfinite(base).all(axis=1)]
    spread = known.std(axis=0) if len(known) else np.zeros(base.shape[1])
    return [
        {"name": f"{name}, SD", "factor": float(1 / s) if s > 1e-9 else 0.0, "digits": 2}
        for name, s in zip(source.motion_names, spread, strict=True)
    ]
