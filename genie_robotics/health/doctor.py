"""Diagnosis of a run, from its weights, its metrics and clips of its data."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genie_datasets import ClipDataset
from genie_datasets.base.errors import UserError
from genie_datasets.sources.split import Split
from genie_robotics.genie import Genie
from genie_robotics.health.findings import Finding, Severity, faults
from genie_robotics.health.history import history_figures, read_metrics
from genie_robotics.health.measures import (
    Figures,
    action_gain,
    action_gap,
    action_use,
    by_chunk,
    codebook_figures,
    evaluating,
    motion_explained,
    num_dead,
    num_not_finite,
    static_share,
    tokenizer_floor,
    without_kept,
)
from genie_robotics.health.rules import RULES, judge
from genie_robotics.models.config import COMPONENTS, GenieConfig, read_json
from genie_robotics.models.threads import threads_for
from genie_robotics.run_folder import load_component, load_config
from genie_robotics.training.checkpoint import Checkpoints, load_module_state
from genie_robotics.training.stages import MODES, STAGES, last_stage


@dataclass
class Diagnosis:
    """Everything that `doctor` reports."""

    run: Path
    mode: str
    figures: dict[str, Figures] = field(default_factory=dict)
    """Measurements by stage, and under 'data'."""
    state: dict[str, str] = field(default_factory=dict)
    """Progress of each stage: trained, at step N, started, not started or damaged."""
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Remarks, such as what could not be measured and why."""

    @property
    def num_checks(self) -> int:
        judged = {rule.figure for rule in RULES}
        return sum(name in judged and not math.isnan(v) for f in self.figures.values() for name, v in f.items())

    @property
    def answer(self) -> str:
        parts = []
        for severity in ("fault", "warning"):
            found = [f"{f.name} ({f.stage})" for f in self.findings if f.severity == severity]
            if found:
                parts.append(f"{len(found)} {severity}{'s' * (len(found) > 1)}: {', '.join(found)}")
        return f"{self.run}: " + ("; ".join(parts) or f"nothing wrong in {self.num_checks} checks")

    def to_json(self) -> dict[str, Any]:
        figures = {
            stage: {name: None if math.isnan(value) else value for name, value in values.items()}
            for stage, values in self.figures.items()
        }
        return {
            "answer": self.answer,
            "healthy": not faults(self.findings),
            "mode": self.mode,
            "state": self.state,
            "figures": figures,
            "findings": [asdict(finding) for finding in self.findings],
            "notes": self.notes,
        }


def diagnose(
    run: Path, clips: Tensor | None, notes: Sequence[str] = (), device: str = "cpu", seed: int = 0
) -> Diagnosis:
    """Measures and judges everything in a run folder.

    Args:
        clips: (B, T, H, W, 3) uint8 at the model's size; None: judges weights and metrics only.
        notes: remarks to include.

    Raises:
        UserError: `run` is not a run folder.
    """
    config, mode = load_config(run), stored_mode(run)
    found = Diagnosis(run, mode, notes=list(notes))
    genie = Genie(config)
    metrics = read_metrics(run)
    loaded: set[str] = set()
    for stage in MODES[mode]:
        loaded |= load_stage(found, genie, stage, bool(metrics.get(stage)))
    genie.to(device).eval()
    with threads_for(genie):
        measured = {} if clips is None else measure_components(genie, loaded, found, clips.to(device), seed)
    for stage in MODES[mode]:
        lines = metrics.get(stage, [])
        figures = last_logged(lines) | history_figures(lines, stage, config)
        if clips is not None:
            figures.pop("static_share", None)  # measured again below
        figures["not_finite"] = figures.get("not_finite", 0.0) + sum(
            num_not_finite(getattr(genie, name)) for name in STAGES[stage].trains if name in loaded
        )
        for name in STAGES[stage].trains:
            figures |= measured.pop(name, {}) if stage == last_stage(name, mode) else {}
        if lines or len(figures) > 1 or loaded & set(STAGES[stage].trains):
            found.figures[stage] = figures
    if clips is not None:
        found.figures = {"data": {"static_share": static_share(clips)}} | found.figures
    for stage, figures in found.figures.items():
        found.findings += judge(figures, stage, config, trained=found.state.get(stage) == "trained")
    found.findings = causes_first(found.findings)
    return found


def causes_first(findings: Sequence[Finding]) -> list[Finding]:
    """Faults before warnings, then by stage, because earlier stages cause later findings; each finding once."""
    kept: dict[tuple[str, str], Finding] = {}
    for finding in sorted(findings, key=lambda f: f.severity != "fault"):
        kept.setdefault((finding.name, finding.stage), finding)
    order = ["data", *STAGES]
    return sorted(kept.values(), key=lambda f: (f.severity != "fault", order.index(f.stage)))


def last_logged(lines: Sequence[Mapping[str, float]]) -> Figures:
    """Latest figures of the health checks in training, for what cannot be measured now."""
    names = {rule.figure for rule in RULES} - {"not_finite", "loss_share", "loss_rise"}
    return {name: value for line in lines for name, value in line.items() if name in names}


def stored_mode(run: Path) -> str:
    mode = read_json(run / "config.json").get("training", {}).get("mode", "frozen")
    if mode not in MODES:
        raise UserError(
            f"{run / 'config.json'}: mode must be one of {', '.join(MODES)}, got {mode}; train a run with this version"
        )
    return mode


def load_stage(found: Diagnosis, genie: Genie, stage: str, has_metrics: bool) -> set[str]:
    """Loads the components of a stage into `genie`, from the run folder or its newest checkpoint.

    Adds the stage's state, and a finding if it is not complete. Returns the components that were loaded.
    """
    run, names = found.run, STAGES[stage].trains
    resume = f"resume: genie-robotics train {run} --data SRC, with the options of the first call"

    def report(name: str, severity: Severity, message: str, remedy: str = resume) -> None:
        found.findings.append(Finding(name, severity, stage, message, remedy))

    try:
        if all((run / name / "model.safetensors").exists() for name in names):
            for name in names:
                load_component(getattr(genie, name), run / name)
            found.state[stage] = "trained"
            return set(names)
        newest = Checkpoints(run / "state" / stage).newest(say=found.notes.append)
        if newest is not None:
            step, content = newest
            for name in names:
                load_module_state(getattr(genie, name), content["components"][name], run / "state" / stage)
            found.state[stage] = f"at step {step}"
            report("unfinished_stage", "warning", f"stopped or still training, at step {step}")
            return set(names)
    except UserError as error:
        problem, _, remedy = str(error).rpartition("; ")
        found.state[stage] = "damaged"
        report("damaged_weights", "fault", problem or str(error), remedy if problem else resume)
        return set()
    if has_metrics:
        found.state[stage] = "started"
        report("unfinished_stage", "warning", "started, without a checkpoint yet")
    else:
        found.state[stage] = "not started"
        report("missing_stage", "warning", "not trained")
    return set()


def measure_components(
    genie: Genie, loaded: set[str], found: Diagnosis, clips: Tensor, seed: int
) -> dict[str, Figures]:
    """Figures of each loaded component, measured on the clips; those that cannot be measured are left out."""
    usable = set()
    for name in COMPONENTS:
        part = getattr(genie, name)
        if name not in loaded or num_not_finite(part):
            continue
        if name != "dynamics" and not part.quantizer.started:
            found.notes.append(f"{name}: quantization has not started, so its codes are not measured")
            continue
        usable.add(name)
    figures: dict[str, Figures] = {}
    tokens = codes = None
    if "tokenizer" in usable:
        floor, tokens = tokenizer_floor(genie, clips, clips[:, 0])
        figures["tokenizer"] = floor | code_usage(genie, "tokenizer", tokens, "token", "dead_tokens")
    if "latent_action" in usable:
        if found.mode == "end_to_end":  # which does not train the decoder
            with evaluating(genie):
                explained, codes = {}, by_chunk(genie.latent_action.encode, clips)
        else:
            errors, codes = motion_explained(genie, clips, seed)
            explained = {"error_share": errors["true"], "action_gain": action_gain(errors)}
        figures["latent_action"] = explained | code_usage(genie, "latent_action", codes, "code", "dead_codes")
    if len(usable) == len(COMPONENTS) and tokens is not None and codes is not None:
        with evaluating(genie):
            context = genie.tokenizer.clip_context(tokens, clips[:, 0])
        use = action_use(genie, tokens, codes, seed, context)
        losses = {f"token_loss_{name}": use[name] for name in ("true", "shuffled", "null", "all")}
        figures["dynamics"] = losses | {"action_gap": action_gap(use)}
    return figures


def code_usage(genie: Genie, component: str, codes: Tensor, name: str, dead: str) -> Figures:
    part = getattr(genie, component)
    counts = torch.bincount(codes.flatten(), minlength=part.quantizer.num_codes)
    return codebook_figures(part.quantizer.vectors, without_kept(part, counts), name) | {
        dead: num_dead(counts) / len(counts)
    }


def some_clips(split: Split, config: GenieConfig, num: int) -> Tensor:
    """At most `num` clips, evenly spaced over the split: (B, T, H, W, 3) uint8."""
    clips = ClipDataset(split, config.clip_length, config.gap, size=config.image_size, mode=config.fit)
    return clips.batch(np.unique(np.linspace(0, len(clips) - 1, num).round().astype(int)).tolist())
