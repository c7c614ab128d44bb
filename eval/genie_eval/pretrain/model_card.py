"""The model card of a shipped world, written from its report and its training runs."""

import os
import platform
from importlib.resources import files
from pathlib import Path
from typing import Any

from genie_datasets.base.errors import UserError
from genie_eval.metrics import about, in_order
from genie_eval.pretrain.recipes import Recipe
from genie_eval.report.cells import estimate, interval_text, number, with_interval


def write_card(plan: Recipe, report: dict[str, Any], world: Path, run: Path, actions: Path, judge: Path) -> Path:
    """Writes MODEL_CARD.md into the exported `world`.

    run, judge: the runs that it was made from. actions: the run of its latent action model.
    """
    from genie_datasets.base.files import write_atomically

    path = world / "MODEL_CARD.md"
    write_atomically(path, card(plan, report, world, run, actions, judge).encode())
    return path


def card(plan: Recipe, report: dict[str, Any], world: Path, run: Path, actions: Path, judge: Path) -> str:
    import jinja2

    from genie_eval.pretrain.export import folder_bytes
    from genie_robotics.genie import Genie
    from genie_robotics.models.config import read_json

    stored = read_json(world / "config.json")
    parameters = Genie.from_pretrained(world).num_parameters()
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters |= {"number": number, "interval": interval_text}
    template = environment.from_string(files("genie_eval.report").joinpath("model_card.md").read_text())
    return template.render(
        plan=plan, report=report, exported=stored["exported"], packages=stored.get("packages", {}),
        model=stored["model"], parameters=parameters, megabytes=f"{folder_bytes(world) / 1e6:.1f}",
        stages=stages(stored, run, actions), judge=stage_row("latent_action", {}, judge),
        machine=f"{os.cpu_count()} CPU cores, {platform.machine()}",
        figures=figures(report["metrics"]), independent=independent(report["metrics"]), ladder=report["ladder"],
    )  # fmt: skip


def stages(stored: dict[str, Any], run: Path, actions: Path) -> list[dict[str, str]]:
    runs = {"tokenizer": run, "latent_action": actions, "dynamics": run}
    training = stored.get("training", {})
    return [stage_row(stage, training.get(stage, {}), folder) for stage, folder in runs.items()]


def stage_row(stage: str, config: dict[str, Any], run: Path) -> dict[str, str]:
    """Steps and minutes, from the last checkpoint."""
    from genie_robotics.training.checkpoint import Checkpoints

    try:
        newest = Checkpoints(run / "state" / stage).newest(say=lambda _: None)
    except UserError:  # a damaged checkpoint; the exported weights were intact
        newest = None
    steps, content = (None, {}) if newest is None else newest
    return {
        "stage": stage,
        "steps": "not recorded" if steps is None else f"{steps:,}",
        "minutes": "not recorded" if steps is None else f"{content['elapsed'] / 60:.1f}",
        "batch": str(config.get("batch_size", "")),
    }


def figures(metrics: dict[str, Any]) -> list[dict[str, str]]:
    """A row for every metric, in the report's order."""
    return [
        {part: number(metrics[name][part]) for part in ("null", "oracle", "skill")}
        | {"name": name, "about": about(name), "value": estimate(metrics[name]), "verdict": metrics[name]["verdict"]}
        | {"trajectories": str(metrics[name]["n_trajectories"] or "–")}
        for name in in_order(metrics)
    ]


def independent(metrics: dict[str, Any]) -> str:
    """Bits of the commanded codes that the independent judge reads back from dreams, with their interval."""
    found = metrics.get("command_bits", {}).get("judges", {}).get("independent", {})
    return with_interval(found["bits"], found.get("ci95")) if found.get("bits") is not None else "–"
