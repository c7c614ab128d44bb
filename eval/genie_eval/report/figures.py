"""The figures of a report, most important first; each is drawn only where its input is there."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from genie_eval.inference.flips import SECOND_FRAME_MARK
from genie_eval.metrics import MIN_CODE_CTC
from genie_eval.report.animations import animations
from genie_eval.report.charts import baseline_chart, code_usage, motion_quiver
from genie_eval.report.code_charts import (
    eta_heat,
    eta_squared,
    flip_bars,
    forest,
    transition_chart,
    transition_shares,
    variance_bars,
)
from genie_eval.report.control_charts import (
    command_confusion,
    dream_quiver,
    judges,
    readout_histogram,
    sequence_chart,
    sequence_steps,
)
from genie_eval.report.findings import consistency_rows, mark_of, nuisance_rows, variance_shares
from genie_eval.report.horizon_charts import fidelity_chart, use_chart
from genie_eval.report.pictures import Arrows, dream_grid, filmstrip
from genie_eval.report.start_charts import ALONG, along_the_dream, start_sheet

if TYPE_CHECKING:
    from genie_eval.results import EvaluationConfig, Results

STEP_DRAWS = 500  # bootstrap draws of a line in a figure


def measured_on(ladder: list[dict[str, Any]]) -> str:
    """Suffix of the metrics that are shown: "" for true motion, "_flow" where a source has none."""
    return "" if any(row.get("grounding_skill") is not None for row in ladder) else "_flow"


class Figures:
    """Draws figures and keeps {"file" (relative to the report's folder), "title", "caption"} of each."""

    def __init__(self, out: Path):
        self.folder = out / "figures"
        self.found: list[dict[str, str]] = []

    def add(self, name: str, title: str, chart: Callable[..., str], *arguments: Any) -> None:
        """chart(path, *arguments) writes the figure and returns its caption."""
        caption = chart(self.folder / f"{name}.png", *arguments)
        self.found.append({"file": f"figures/{name}.png", "title": title, "caption": caption})


def draw(results: "Results", out: Path, config: "EvaluationConfig") -> list[dict[str, str]]:
    """Writes the figures and returns one object each."""
    figures = Figures(out)
    metrics = {name: metric.as_json() for name, metric in results.metrics.items()}
    _codes_and_dreams(figures, results, metrics, config)
    _control(figures, results, metrics, config)
    _dreams(figures, results, metrics)
    _any_start(figures, results, metrics)
    _details(figures, results, metrics)
    return figures.found + animations(figures.folder, results.dreams, config.seed)


def _codes_and_dreams(
    figures: Figures, results: "Results", metrics: dict[str, Any], config: "EvaluationConfig"
) -> None:
    """The pictures that show the answer at a glance."""
    table, codes, cards = results.evidence.table, results.evidence.codes, results.codes
    control = getattr(results, "control", None)
    starts = results.grid_starts
    arrows = None if control is None else arrows_of(control, len(starts))
    figures.add("same_action", "One latent action, many starts", dream_grid, starts, results.grid, cards, arrows)
    if table.why_unusable("base") is None or table.why_unusable("flow") is None:
        title = "Motion of each code in real video"
        figures.add("motion", title, motion_quiver, table, codes, cards, config.draws)
    if control is not None and control.displacements is not None:
        simulated = control.simulated_displacements
        true = None if simulated is None else simulated.confident("base")
        dreamed, steps = control.displacements.confident("base"), control.constant.steps
        figures.add("dream_motion", "Motion of each code in the dreams", dream_quiver, dreamed, true, cards, steps)
    suffix = measured_on(results.ladder)
    if any(row.get(f"grounding{suffix}_skill") is not None for row in results.ladder):
        figures.add("ladder", "Comparison with baselines and oracles", baseline_chart, results.ladder, suffix)
    by_code, by_scene = consistency_rows(getattr(results, "details", {}), cards)
    if any(row["value"] is not None for row in by_code):
        marks = {"good": mark_of("ctc").good, "code": MIN_CODE_CTC}
        figures.add("consistency", "Consistency of each code", forest, by_code, by_scene, metrics["ctc"], marks)


def arrows_of(control: Any, rows: int) -> Arrows | None:
    """Arrows of the first `rows` starts; None without a read-out that knows the image plane."""
    dreamed, simulated = control.displacements, control.simulated_displacements
    if dreamed is None or "image" not in dreamed.columns:
        return None
    true = None if simulated is None else simulated.confident("image")[:rows]
    start = None if dreamed.start_position is None else dreamed.start_position[:rows, dreamed.columns["image"]]
    return Arrows(dreamed.confident("image")[:rows], true, start)


def _control(figures: Figures, results: "Results", metrics: dict[str, Any], config: "EvaluationConfig") -> None:
    """Commands, sequences, and use of the codes."""
    if panels := judges(metrics):
        figures.add("command", "Who can read the command", command_confusion, panels)
    control, details = getattr(results, "control", None), getattr(results, "details", {})
    metric, flow = metrics["sequence_consistency"], metrics.get("sequence_consistency_flow") or {}
    if metric["value"] is not None or flow.get("value") is not None:
        steps, base = None, results.evidence.table.motions.get("base")
        if control is not None and control.displacements is not None and base is not None:
            dreamed = control.displacements
            moved = np.stack([dreamed.confident("base", t) for t in range(control.constant.steps)], axis=2)
            spread = base.std(axis=0)
            spread = np.where(spread > 1e-9, spread, np.inf)  # a dimension that never moves has no weight
            steps = sequence_steps(moved, spread, min(config.draws, STEP_DRAWS))
        title, good = "The same sequence from different starts", mark_of("sequence_consistency").good
        figures.add("sequences", title, sequence_chart, metric, flow, steps, good)
    horizon = details.get("horizon") or {}
    if any(row.get("delta_psnr") for row in (horizon.get("laws") or {}).values()):
        marks = {"delta_psnr": mark_of("delta_psnr_t4").good, "aaf": mark_of("action_attributable_fraction").good}
        figures.add("use", "Effect of the codes", use_chart, horizon, marks)


def _dreams(figures: Figures, results: "Results", metrics: dict[str, Any]) -> None:
    figures.add("dreams", "Dreams next to the truth", filmstrip, results.dreams)
    horizon = getattr(results, "details", {}).get("horizon") or {}
    readings = {
        name: horizon[name]
        for name in ("psnr", "psnr_moving", "ssim", "lpips")
        if (horizon.get(name) or {}).get("dream")
    }
    t, clips = horizon.get("t"), horizon.get("n_clips")
    if not readings and metrics["dream_psnr"].get("by_t"):
        readings = {"psnr": {name: {"value": v} for name, v in metrics["dream_psnr"]["by_t"].items()}}
        t, clips = list(range(1, len(readings["psnr"]["dream"]["value"]) + 1)), metrics["dream_psnr"]["n_clips"]
    if readings and t and len(t) > 1:
        figures.add("fidelity", "Quality of the pictures", fidelity_chart, readings, t, int(clips or 0))


def _any_start(figures: Figures, results: "Results", metrics: dict[str, Any]) -> None:
    """Pictures of other kinds, and long dreams."""
    found = getattr(results, "any_start", None)
    if found is None:
        return
    for name, title, dreams in (
        ("any_start", "Pictures of other kinds", found.pictures),
        ("own_starts", "Your own pictures", found.own),
    ):
        if dreams is not None:
            figures.add(name, title, start_sheet, dreams)
    if any((metric.get("by_step") and name in ALONG) for name, metric in metrics.items()):
        figures.add("along_the_dream", "What is left along the dream", along_the_dream, metrics)


def _details(figures: Figures, results: "Results", metrics: dict[str, Any]) -> None:
    table, codes, cards = results.evidence.table, results.evidence.codes, results.codes
    details = getattr(results, "details", {})
    parts, names = eta_squared(table, codes, len(cards))
    if names:
        figures.add("dimensions", "Explained dimensions of each code", eta_heat, parts, names, cards)
    if shares := variance_shares(details):
        figures.add("variance", "Variance of the motion", variance_bars, shares)
    figures.add("usage", "Use of the codes", code_usage, table, codes, cards)
    followers = transition_shares(table, codes, len(cards))
    if np.isfinite(followers).any():
        figures.add("transitions", "Transitions between codes", transition_chart, followers, cards)
    by_nuisance, second, null = nuisance_rows(metrics, details)
    if by_nuisance or second:
        marks = (mark_of("nuisance_flip_rate").good, SECOND_FRAME_MARK)
        figures.add("nuisances", "Nuisances that change a code", flip_bars, by_nuisance, second, null, marks)
    error = getattr(getattr(results, "control", None), "error", None)
    if error is not None and len(error.errors_mm):
        figures.add("readout", "Error of the motion read-out", readout_histogram, error)
