"""The table that `doctor` prints: a row per figure with value and verdict, and the remedy below each finding."""

import math

from genie_robotics.health.doctor import Diagnosis
from genie_robotics.health.findings import Finding
from genie_robotics.health.rules import HERE, RULES

INCOMPLETE = {"unfinished_stage", "missing_stage", "damaged_weights"}
LABELS = {rule.figure: (rule.label, rule.format) for rule in RULES if rule.label}
SHOWN = {
    "psnr": ("tokens: PSNR of decoded frames, dB", ".1f"),
    "copy_psnr": ("tokens: PSNR of repeating the previous frame, dB", ".1f"),
    "token_perplexity": ("tokens: perplexity", ".0f"),
    "code_perplexity": ("actions: perplexity", ".2f"),
    "token_loss_true": ("dynamics: cross-entropy of changing tokens, nats", ".3f"),
    "token_loss_shuffled": ("dynamics: the same with actions of other transitions", ".3f"),
    "token_loss_null": ("dynamics: the same without actions", ".3f"),
}
"""Figures that are shown and not judged."""


def table(found: Diagnosis) -> str:
    lines = [found.answer, "", f"{'check':<68}{'value':>9}  verdict"]
    printed: set[Finding] = set()
    for stage in dict.fromkeys([*found.figures, *found.state]):
        lines.append(stage + (f" ({found.state[stage]})" if stage in found.state else ""))
        figures = found.figures.get(stage, {})
        for name, (label, number_format) in {**LABELS, **SHOWN}.items():
            value = figures.get(name, math.nan)
            if math.isnan(value):
                continue
            verdict, finding = verdict_on(name, value, stage, found)
            lines.append(f"  {label:<66}{value:>9{number_format}}  {verdict}")
            if finding is not None and finding not in printed:
                printed.add(finding)
                lines += [f"      {finding.message}", f"      remedy: {finding.remedy}"]
        for finding in found.findings:
            if finding.stage == stage and finding.name in INCOMPLETE:
                lines.append(f"  {finding.message:<77}  {finding.severity} {finding.name}")
                lines.append(f"      remedy: {finding.remedy}")
    return "\n".join([*(line.rstrip() for line in lines), *(f"note: {note}" for note in found.notes)])


def verdict_on(figure: str, value: float, stage: str, found: Diagnosis) -> tuple[str, Finding | None]:
    """The verdict on a value in words, and its finding if there is one."""
    if figure not in LABELS:
        return "", None
    unjudged = False
    for rule in RULES:
        severity = rule.severity(value) if rule.figure == figure else None
        if severity is None:
            continue
        where = stage if rule.stage == HERE else rule.stage
        for finding in found.findings:
            if (finding.name, finding.stage) == (rule.name, where):
                return f"{severity} {rule.name}", finding
        unjudged = rule.needs_training
    return ("not judged" if unjudged else "ok"), None
