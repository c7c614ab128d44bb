"""`doctor RUN`: what is wrong with a run, from its weights, its metrics and clips of its data."""

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
from genie_robotics.health.findings import Finding, faults
from genie_robotics.health.history import history_figures, read_metrics
from genie_robotics.health.measures import (
    Figures,
    action_use,
    by_chunk,
    codebook_figures,
    motion_explained,
    num_dead,
    num_not_finite,
    static_share,
    tokenizer_floor,
    untouched,
)
from genie_robotics.health.rules import RULES, gain, gap_share, judge
from genie_robotics.models.config import COMPONENTS, read_json
from genie_robotics.models.threads import threads_for
from genie_robotics.run_folder import load_component, load_config
from genie_robotics.training.checkpoint import Checkpoints, load_module_state
from genie_robotics.training.stages import MODES, TRAINED, last_stage

TRAINED_WELL = "trained"


@dataclass
class Diagnosis:
    """What `doctor` found. `figures` are by stage, and under 'data'."""

    run: Path
    mode: str
    figures: dict[str, Figures] = field(default_factory=dict)
    state: dict[str, str] = field(default_factory=dict)
    """How far each stage is, in words."""
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What could not be looked at, and why."""

    @property
    def num_checks(self) -> int:
        keys = {rule.figure for rule in RULES}
        return sum(len(keys & {k for k, v in f.items() if not math.isnan(v)}) for f in self.figures.values())

    @property
    def answer(self) -> str:
        bad = faults(self.findings)
        kinds = [(bad, "fault"), ([f for f in self.findings if f not in bad], "warning")]
        parts = [
            f"{len(some)} {kind}{'s' * (len(some) > 1)}: " + ", ".join(f"{f.name} ({f.stage})" for f in some)
            for some, kind in kinds
            if some
        ]
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
    """Looks at everything that the run folder has.

    Args:
        clips: (B, T, H, W, 3) uint8 at the model's size; None: judges by weights and metrics alone.
        notes: said in the diagnosis.

    Raises:
        UserError: `run` is not a run folder.
    """
    config, mode = load_config(run), stored_mode(run)
    found = Diagnosis(run, mode, notes=list(notes))
    genie = Genie(config)
    metrics = read_metrics(run)
    loaded: set[str] = set()
    for stage in MODES[mode]:
        loaded |= take_stock(found, genie, stage, bool(metrics.get(stage)))
    genie.to(device).eval()
    with threads_for(genie):
        behaviour = examine(genie, loaded, found, None if clips is None else clips.to(device), seed)
    for stage in MODES[mode]:
        lines = metrics.get(stage, [])
        figures = last_logged(lines) | history_figures(lines, stage, config)
        if clips is not None:
            figures.pop("static_share", None)  # measured below
        figures["not_finite"] = figures.get("not_finite", 0.0) + sum(
            num_not_finite(getattr(genie, name)) for name in TRAINED[stage] if name in loaded
        )
        for name in TRAINED[stage]:
            figures |= behaviour.pop(name, {}) if stage == last_stage(name, mode) else {}
        if lines or len(figures) > 1 or loaded & set(TRAINED[stage]):
            found.figures[stage] = figures
    if clips is not None:
        found.figures = {"data": {"static_share": static_share(clips)}} | found.figures
    for stage, figures in found.figures.items():
        found.findings += judge(figures, stage, config, learnt=found.state.get(stage) == TRAINED_WELL)
    found.findings = causes_first(found.findings)
    return found


def causes_first(findings: Sequence[Finding]) -> list[Finding]:
    """Faults before warnings, and what may be the cause of others before them; each once."""
    kept: dict[tuple[str, str], Finding] = {}
    for finding in sorted(findings, key=lambda f: f.severity != "fault"):
        kept.setdefault((finding.name, finding.stage), finding)
    order = ["data", *COMPONENTS, "joint"]
    return sorted(kept.values(), key=lambda f: (f.severity != "fault", order.index(f.stage)))


def last_logged(lines: Sequence[Mapping[str, float]]) -> Figures:
    """What the sentinel measured last: for what cannot be measured now."""
    names = {rule.figure for rule in RULES} - {"not_finite", "loss_share", "loss_rise"}
    return {name: value for line in lines for name, value in line.items() if name in names}


def stored_mode(run: Path) -> str:
    mode = read_json(run / "config.json").get("training", {}).get("mode", "frozen")
    if mode not in MODES:
        raise UserError(f"{run / 'config.json'}: unknown mode {mode}; was it written by another version?")
    return mode


def take_stock(found: Diagnosis, genie: Genie, stage: str, has_metrics: bool) -> set[str]:
    """Loads what the stage has trained into `genie`, or its newest checkpoint, and says how far it is.

    Returns the components that were loaded.
    """
    run, names = found.run, TRAINED[stage]
    again = f"genie-robotics train {run} --data SRC, with the options it was begun with: it goes on where it was"
    have = [name for name in names if (run / name / "model.safetensors").exists()]
    try:
        if len(have) == len(names):
            for name in names:
                load_component(getattr(genie, name), run / name)
            found.state[stage] = TRAINED_WELL
            return set(names)
        newest = Checkpoints(run / "state" / stage).newest(say=found.notes.append)
        if newest is not None:
            step, content = newest
            for name in names:
                load_module_state(getattr(genie, name), content["components"][name], run / "state" / stage)
            found.state[stage] = f"at step {step}"
            message = f"stopped or still training, at step {step}"
            found.findings.append(Finding("unfinished_stage", "warning", stage, message, again))
            return set(names)
    except UserError as error:
        what, _, help_ = str(error).rpartition("; ")
        found.state[stage] = "damaged"
        found.findings.append(Finding("damaged_weights", "fault", stage, what or str(error), help_ or again))
        return set()
    found.state[stage] = "begun" if has_metrics else "not begun"
    message = "begun, and there is no checkpoint yet" if has_metrics else "not trained"
    name = "unfinished_stage" if has_metrics else "missing_stage"
    found.findings.append(Finding(name, "warning", stage, message, again))
    return set()


def examine(genie: Genie, loaded: set[str], found: Diagnosis, clips: Tensor | None, seed: int) -> dict[str, Figures]:
    """{component: what it does with the clips}, of those components that can be measured."""
    figures: dict[str, Figures] = {}
    if clips is None:
        return figures
    able = set()
    for name in COMPONENTS:
        part = getattr(genie, name)
        if name not in loaded or num_not_finite(part):
            continue
        if name != "dynamics" and not part.codebook.started:
            found.notes.append(f"{name}: its codes are not given out yet")
            continue
        able.add(name)
    tokens = codes = None
    if "tokenizer" in able:
        floor, tokens = tokenizer_floor(genie, clips)
        figures["tokenizer"] = floor | use_of_codes(genie, "tokenizer", tokens, "token", "dead_tokens")
    if "latent_action" in able:
        if found.mode == "end_to_end":  # its decoder is left out of the training
            with untouched(genie):
                explained, codes = {}, by_chunk(genie.latent_action.encode, clips)
        else:
            errors, codes = motion_explained(genie, clips, seed)
            explained = {"error_share": errors["true"], "action_gain": gain(errors)}
        figures["latent_action"] = explained | use_of_codes(genie, "latent_action", codes, "code", "dead_codes")
    if len(able) == len(COMPONENTS) and tokens is not None and codes is not None:
        use = action_use(genie, tokens, codes, seed)
        losses = {f"token_loss_{name}": use[name] for name in ("true", "shuffled", "null", "all")}
        figures["dynamics"] = losses | {"action_gap": gap_share(use)}
    return figures


def use_of_codes(genie: Genie, component: str, codes: Tensor, name: str, dead: str) -> Figures:
    book = getattr(genie, component).codebook
    counts = torch.bincount(codes.flatten(), minlength=book.config.num_codes)
    return codebook_figures(book.vectors, counts, name) | {dead: num_dead(counts) / len(counts)}


def some_clips(split: Split, genie_config: Any, num: int) -> Tensor:
    """`num` clips of the split (all, if there are fewer), evenly spaced over it: (B, T, H, W, 3) uint8."""
    c = genie_config
    clips = ClipDataset(split, c.clip_length, c.gap, size=c.image_size, mode=c.fit)
    return clips.batch(np.unique(np.linspace(0, len(clips) - 1, num).round().astype(int)).tolist())
