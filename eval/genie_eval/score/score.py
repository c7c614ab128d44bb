"""`score`: from anyone's latents to report.json, report.html and figures/*.png."""

import datetime
import json
import re
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genie_datasets.base.errors import UserError
from genie_eval.checks import checked, make_folder
from genie_eval.codes.baselines import Features, rungs
from genie_eval.codes.codebook import codebook_perplexity
from genie_eval.codes.details import code_details
from genie_eval.codes.measure import StatisticsConfig, code_metrics
from genie_eval.codes.motion_statistics import MotionAssay
from genie_eval.metric import Metric, not_run, plain
from genie_eval.report.answer import QUESTION, consistency_answer
from genie_eval.report.write import SCHEMA_VERSION, package_version, render, validate
from genie_eval.resampling import DRAWS, SWAPS
from genie_eval.score.figures import draw
from genie_eval.score.latents import MAX_ROWS, RAW_CODES, Latents, LatentsConfig, latents
from genie_eval.score.readers import fingerprint, open_columns
from genie_eval.score.tokens import by_token
from genie_eval.verdicts import FEW
from genie_robotics.run_folder import write_atomically

NEEDS_MODEL = "needs the model itself, to dream with: latents in a file cannot say"
NEEDS_FRAMES = "needs frames to learn from: latents in a file have none"
NEEDS = {
    "sequence_consistency": NEEDS_MODEL,
    "command_bits": NEEDS_MODEL,
    "command_bits_physical": NEEDS_MODEL,
    "counterfactual_id": NEEDS_MODEL,
    "delta_psnr_t4": NEEDS_MODEL,
    "action_attributable_fraction": NEEDS_MODEL,
    "tokenizer_psnr": NEEDS_MODEL,
    "dream_psnr": NEEDS_MODEL,
    "nuisance_flip_rate": "needs the model and the frames, to change their light and infer again",
}
LIMITS = (
    "The motion is the file's: whether it was measured, in which frame and over which time, is not known here.",
    "No pixels, so no baselines of flow or frame differences: whether a model beats what learns nothing stays open.",
    "No code can tell all of a motion: read skill, which compares with as many codes of the motion itself, not R2.",
    "What a world model makes of the codes is not judged: `genie-robotics evaluate` does that for its own models.",
)
MOST_MISSED = 0.5  # share of the transitions that may have rare codes before a verdict is at most a warning


@dataclass(frozen=True)
class ScoreConfig:
    """How latents are scored."""

    num_codes: int | None = None
    """Size of the codebook; of several tokens a transition, of all tuples. None: the largest code + 1; the tuples that
    occur; of an embedding without codes, 8."""
    trajectories: int | None = 1000
    """At most so many trajectories, chosen at random; none: all that fit."""
    max_rows: int = MAX_ROWS
    """Transitions beyond which whole trajectories are left out."""
    unit: str = ""
    """Unit of the motion. With m, and motion named x, y, z, it is also drawn as a map, in mm."""
    draws: int = DRAWS
    """Bootstrap draws."""
    swaps: int = SWAPS
    """Whole-trajectory swaps of the permutation tests."""
    seed: int = 0
    progress: bool = True


def score(path: str | Path, out: str | Path, config: ScoreConfig | None = None, roots: tuple[Path, ...] = ()) -> dict:
    """Reads latents, measures them, writes the report into the folder `out`; returns the content of report.json.

    roots: folders where the paths of a LARYBench table may begin.

    Raises UserError, one line, for a file that is not what docs/score_your_latents.md describes.
    """
    config, path, out = checked(config or ScoreConfig()), Path(path), Path(out)
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file: give a folder with --out")
    for name in ("num_codes", "trajectories", "max_rows", "draws"):
        value = getattr(config, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} {value}: at least 1")
    started = time.perf_counter()
    with open_columns(path, roots) as columns:
        table = latents(
            columns, str(path), LatentsConfig(config.num_codes, config.trajectories, config.max_rows, config.seed)
        )
    reading = time.perf_counter() - started
    make_folder(out)  # before the work, not after
    report = measure(table, config)
    report["seconds"] = {"reading": round(reading, 1), **report["seconds"]}
    report["run"]["path"] = path.name
    report["data"] |= {"source": path.name, "path": str(path), "fingerprint": fingerprint(path)}
    return write(table, report, out, config)


def measure(source: Latents, config: ScoreConfig) -> dict[str, Any]:
    """All numbers, no files: the content of report.json but for its figures and where the latents came from."""
    started = time.perf_counter()
    table, codes, size = source.table, source.codes, source.num_codes
    found = rungs(table, codes, Features(), None, size, config.seed)
    measured, ladder, cards = code_metrics(table, codes, found, size, StatisticsConfig.of(config))
    leak = "the file has no `state`" if table.state is None else "not part of this version"
    missing = {name: not_run(why) for name, why in {"state_leak": leak, **NEEDS}.items()}
    metrics = measured | {name: metric for name, metric in missing.items() if name not in measured}
    _speak_of_the_file(source, metrics, cards)
    word, sentence = consistency_answer(metrics)  # of the codes in the table, so before usage is of all codes
    if source.whole_table is not table:
        _count_rare_codes(source, metrics, config)
    if source.guessed:
        metrics["codebook_perplexity"].reason += f"; K = {source.whole_num_codes} is what the file shows"
    for metric in metrics.values():  # lists of hundreds of codes
        metric.reason = re.sub(r"(\d+(?:, \d+){11})(?:, \d+)+", r"\1 and more", metric.reason)
    oracle = next(rung.codes for rung in found if rung.name == "oracle_motion")
    details = code_details(table, codes, size, oracle, source.embedding, config.draws, config.seed)
    if not source.base_frame:  # the report would call the first three forward, left, up
        details["grounding"] = _renamed(details["grounding"])
    details |= {"readout": {"reason": NEEDS_FRAMES}, "fvd": {"reason": NEEDS_MODEL}}
    details["latents"] = {"labels": source.labels, "motion_names": source.motion_names}
    if source.tokens is not None:
        details["tokens"] = by_token(source.whole_table, source.tokens, config.draws, config.seed)
    return {
        "schema_version": SCHEMA_VERSION,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "package_version": package_version(),
        "run": {"path": None, "preset": None, "image_size": None, "num_actions": size},
        "data": {
            "source": "latents", "fingerprint": "", "split": "all",
            "n_trajectories": table.num_trajectories,
            "n_frames": len(codes) + table.num_trajectories,  # where transitions follow each other without a gap
            "n_transitions": len(codes), "true_motion": sorted(table.motions), "notes": source.notes,
            "motion_columns": _columns(source, config.unit),
        },
        "settings": {name: value for name, value in asdict(config).items() if name != "progress"},
        "summary": {
            "first_line": "Scored from latents and motion alone: no pixels, so no comparison with baselines that learn "
            "nothing from them.",
            "question": QUESTION, "answer": word, "because": sentence, "exploratory": table.num_trajectories < FEW,
        },
        "metrics": {name: metric.as_json() for name, metric in metrics.items()},
        "ladder": ladder,
        "codes": cards,
        "details": plain(details),
        "limits": LIMITS,
        "seconds": {"statistics": round(time.perf_counter() - started, 1)},
    }  # fmt: skip


def write(source: Latents, report: dict[str, Any], out: Path, config: ScoreConfig) -> dict[str, Any]:
    """Draws the figures, checks the report against its schema and writes both forms of it."""
    started = time.perf_counter()
    metres = config.unit == "m"
    report["figures"] = draw(source, report["ladder"], report["codes"], out, config.draws, metres)
    report["seconds"]["figures"] = round(time.perf_counter() - started, 1)
    report = plain(report)
    validate(report)
    write_atomically(out / "report.json", json.dumps(report, indent=1, allow_nan=False).encode())
    write_atomically(out / "report.html", render(report, out).encode())
    return report


def _speak_of_the_file(source: Latents, metrics: dict[str, Metric], cards: list[dict[str, Any]]) -> None:
    """Names and reasons as the file has them, in place of what is true of this library's own sources only."""
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
        elif "gripper" in table.motions:  # whether more is open or closed is not known
            card["name"] = card["name"].replace("gripper closing", "gripper +").replace("gripper opening", "gripper -")


def _renamed(grounding: dict[str, Any]) -> dict[str, Any]:
    """ "base" as "motion", in the parts that are by motion."""
    return {
        part: {("motion" if name == "base" else name): value for name, value in found.items()}
        if part == "by_motion"
        else found
        for part, found in grounding.items()
    }


def _count_rare_codes(source: Latents, metrics: dict[str, Metric], config: ScoreConfig) -> None:
    """Usage is of all codes; what is said of the commonest says so, and is no pass where they are the smaller part."""
    table, codes, size = source.whole_table, source.whole_codes, source.whole_num_codes
    if size <= RAW_CODES:
        usage = codebook_perplexity(codes, table.trajectory, size, None, config.seed)
        usage.reason += "; with few transitions for each code this is a lower bound"
        metrics["codebook_perplexity"] = usage
    share, of_common = len(source.codes) / len(codes), ["grounding_r2", "ctc"]
    if size > RAW_CODES:
        of_common.append("codebook_perplexity")
    for name in of_common:
        metric = metrics[name]
        metric.more["share_of_transitions"] = share
        metric.reason += f"; of the {source.num_codes} commonest codes, {share:.0%} of the transitions"
        if metric.verdict == "pass" and (share < 1 - MOST_MISSED or name == "codebook_perplexity"):
            metric.verdict = "warn"
    if metrics["grounding_r2"].value is not None:  # rare codes told apart from common ones, not from each other
        new = np.full(size, source.num_codes)
        new[np.sort(np.argsort(-np.bincount(codes, minlength=size), kind="stable")[: source.num_codes])] = np.arange(
            source.num_codes
        )
        assay = MotionAssay(table, "base", source.num_codes + 1, draws=1, seed=config.seed)
        metrics["grounding_r2"].more["all_transitions"] = assay.r2(new[codes])


def _columns(source: Latents, unit: str) -> list[dict[str, Any]]:
    """How the table of codes shows the mean motion: in SDs, or in mm where it is metres."""
    if unit == "m" and source.base_frame:
        return [{"name": f"{name}, mm", "factor": 1000.0, "digits": 1} for name in source.motion_names]
    base = source.table.motions["base"]
    known = base[np.isfinite(base).all(axis=1)]
    spread = known.std(axis=0) if len(known) else np.zeros(base.shape[1])
    return [
        {"name": f"{name}, SD", "factor": float(1 / s) if s > 1e-9 else 0.0, "digits": 2}
        for name, s in zip(source.motion_names, spread, strict=True)
    ]
