"""One table, RULES: the limits of each measurement, their reason, and the remedy.

The health checks of training and `doctor` judge by the same rules. Figures are measured by measures.py and history.py.
Healthy values in the reasons are those of the demo's run (preset nano, 14 minutes).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from genie_robotics.health.findings import Finding, Severity
from genie_robotics.models.config import GenieConfig
from genie_robotics.models.layers.conditioning import CONDITIONINGS
from genie_robotics.training.stages import STAGES

HERE = "here"
"""Stage of a rule that holds for every stage: the one that is judged."""

LOWER_RATE = "lower --training.{option}.learning-rate and .muon-learning-rate"
LONGER_WARMUP = LOWER_RATE + ", or raise --training.{option}.warmup-steps"
USE_FSQ = "use --{model}.quantizer.kind fsq, which cannot collapse"
REVIVE_OR_SHRINK = (
    "raise --{model}.quantizer.vq.dead-code-threshold or lower --{model}.quantizer.num-codes, in a new RUN"
)


@dataclass(frozen=True)
class Rule:
    """Limits of one figure. `message` and `remedy` are templates: see `judge`."""

    name: str
    """Name of the finding."""
    figure: str
    """The measurement that is judged."""
    stage: str
    """Stage in which to fix it: tokenizer, latent_action, dynamics, data or HERE."""
    bad: Literal["above", "below"]
    """The side of the limits on which values are bad."""
    warning: float | None
    fault: float | None
    label: str
    """Name of the figure in the table of `doctor`; empty if another rule already names it."""
    message: str
    remedy: str
    reason: str
    """Why the limits are where they are."""
    needs_training: bool = False
    """Not judged at the beginning of a stage."""
    format: str = ".2f"
    """How values are printed."""

    def severity(self, value: float) -> Severity | None:
        if math.isnan(value):
            return None
        sign = 1 if self.bad == "above" else -1
        if self.fault is not None and sign * value >= sign * self.fault:
            return "fault"
        if self.warning is not None and sign * value >= sign * self.warning:
            return "warning"
        return None


RULES: tuple[Rule, ...] = (
    Rule(
        "static_data", "static_share", "data", "above", warning=0.5, fault=0.9, format=".0%",
        label="clips without motion",
        message="nothing moves in {value} of the clips",
        remedy="put frames further apart (--gap SECONDS) or leave episodes out (--exclude GLOB); "
        "`genie-robotics data inspect SRC` shows which",
        reason="A clip without motion teaches no action. At 0.9, most batches of 4 have no clip that moves. Demo: 0.00",
    ),
    Rule(
        "not_finite", "not_finite", HERE, "above", warning=None, fault=1, format=".0f",
        label="weights, losses or gradients that are not finite",
        message="{value} weights, losses or gradients are not finite",
        remedy=LOWER_RATE + ", or pass --precision float32; if weights are not finite, retrain this stage",
        reason="One is enough: the next step spreads it to all weights",
    ),
    Rule(
        "exploding_loss", "loss_rise", HERE, "above", warning=None, fault=2.5,
        label="loss / lowest loss",
        message="the loss is {value} times its lowest value",
        remedy=LONGER_WARMUP + "; continue from an earlier checkpoint or in a new RUN",
        reason="In the demo, medians of five logged losses stay below 1.1 times the lowest median before",
    ),
    Rule(
        "exploding_loss", "loss_share", HERE, "above", warning=None, fault=1.5,
        label="loss / loss of an untrained model",
        message="the loss is {value} times that of an untrained model",
        remedy=LONGER_WARMUP,
        reason="An untrained model has 1; only a model that is sure of wrong predictions is far above",
    ),
    Rule(
        "not_learning", "loss_share", HERE, "above", warning=None, fault=0.98, needs_training=True,
        label="",
        message="the loss is still {value} of that of an untrained model",
        remedy="train longer (--training.{option}.steps, --minutes), or change --training.{option}.learning-rate: "
        "higher if the loss falls slowly, lower if it jumps",
        reason="Training starts at 1. Demo, at the end: tokenizer 0.02, latent actions 0.24, dynamics 0.32",
    ),
    Rule(
        "exploding_gradient", "gradient_rise", HERE, "above", warning=10, fault=None, format=".1f",
        label="gradient norm / earlier gradient norm",
        message="the gradient norm is {value} times what it was",
        remedy=LOWER_RATE + " or --training.{option}.clip-gradient, and check whether the loss rises too",
        reason="Clipping keeps the step small, but its direction comes from bad batches. In the demo, medians of five "
        "logged norms stay below 1.2 times the earlier ones",
    ),
    Rule(
        "collapsed_codebook", "token_bits", "tokenizer", "below", warning=0.5, fault=0.35,
        label="tokens: fraction of the possible bits",
        message="the tokens carry {value} of the bits that they could",
        remedy=USE_FSQ + ", or raise --{model}.quantizer.vq.dead-code-threshold, in a new RUN",
        reason="0.35 is 11 of 1024 tokens, or 2 of 8 codes. Demo: 0.9",
    ),
    Rule(
        "collapsed_codebook", "token_spread", "tokenizer", "below", warning=0.01, fault=0.001, format=".3f",
        label="tokens: spread of their vectors, 0 .. 1",
        message="all tokens have nearly the same vector (spread {value})",
        remedy="lower --training.tokenizer.learning-rate, or " + USE_FSQ + " (in a new RUN)",
        reason="Codes with equal vectors are one code, however evenly they are used. Demo: 0.9; moving squares: 0.1",
    ),
    Rule(
        "dead_codes", "dead_tokens", "tokenizer", "above", warning=0.5, fault=None, needs_training=True, format=".0%",
        label="tokens: never used",
        message="{value} of the tokens are never used",
        remedy=REVIVE_OR_SHRINK,
        reason="Unused tokens make the dynamics' head larger than necessary, but cost no quality. Demo: 0.0",
    ),
    Rule(
        "tokenizer_floor", "floor", "tokenizer", "above", warning=0.6, fault=1.0, needs_training=True,
        label="tokens: error on moving pixels / error of repeating a frame",
        message="on moving pixels, the error of the tokens is {value} of that of repeating the previous frame",
        remedy="raise --tokenizer.motion-weight or lower --tokenizer.patch-size, in a new RUN; or train longer "
        "(--training.tokenizer.steps)",
        reason="At 1, repeating the previous frame is as good, so no dream on these tokens can show motion. Demo: 0.07",
    ),
    Rule(
        "collapsed_codebook", "code_bits", "latent_action", "below", warning=0.5, fault=0.35,
        label="actions: fraction of the possible bits",
        message="the latent actions carry {value} of the bits that they could",
        remedy=USE_FSQ + ", or raise --{model}.quantizer.vq.dead-code-threshold; with --mode cotrain or end_to_end, "
        "use --mode warmup; each in a new RUN",
        reason="0.35 is 2 of 8 codes, used equally; a code that has 9 of 10 transitions gives 0.25. Demo: 0.97",
    ),
    Rule(
        "collapsed_codebook", "code_spread", "latent_action", "below", warning=0.01, fault=0.001, format=".3f",
        label="actions: spread of their vectors, 0 .. 1",
        message="all latent actions have nearly the same vector (spread {value})",
        remedy="use --latent-action.input-diff, raise --latent-action.motion-weight, or " + USE_FSQ + " (in a new RUN)",
        reason="Codes with equal vectors are one code, however evenly they are used. Demo: 0.75; moving squares: 0.06",
    ),
    Rule(
        "dead_codes", "dead_codes", "latent_action", "above", warning=0.25, fault=None, needs_training=True,
        format=".0%",
        label="actions: never used",
        message="{value} of the latent actions are never used",
        remedy=REVIVE_OR_SHRINK,
        reason="0.25 is 2 of 8 codes. Demo: 0",
    ),
    Rule(
        "no_motion_explained", "error_share", "latent_action", "above", warning=0.9, fault=0.98, needs_training=True,
        label="actions: prediction error / error of repeating a frame",
        message="with the right action, the prediction error is {value} of that of repeating the previous frame",
        remedy="use --latent-action.action-input {latent_inputs} or raise --latent-action.motion-weight, in a new RUN; "
        "train longer (--training.{option}.steps); check that there is motion: `genie-robotics data inspect SRC`",
        reason="1 is repeating the previous frame. Demo: 0.3, and 0.66 after 60 steps",
    ),
    Rule(
        "ignored_action", "action_gain", "latent_action", "below", warning=0.05, fault=0.01, needs_training=True,
        label="actions: error that the right one saves the decoder",
        message="the right latent action saves its decoder {value} of the error of a wrong one",
        remedy="use --latent-action.no-decoder-history, so that the action must carry the motion, or "
        "--latent-action.action-input {latent_inputs}, in a new RUN",
        reason="At 0, the code of another transition is as good, so the decoder predicts from the past. Demo: 0.8",
    ),
    Rule(
        "ignored_action", "action_gap", "dynamics", "below", warning=0.03, fault=0.01, needs_training=True,
        format=".3f",
        label="dynamics: rise of the cross-entropy with wrong actions",
        message="wrong actions raise the cross-entropy of the dynamics by only {value} of its value",
        remedy="use --dynamics.action-input {dynamics_inputs}, in a new RUN; train longer (--training.{option}.steps); "
        "or put frames further apart (--gap SECONDS)",
        reason="At 0, wrong actions are as good as right ones. On changing tokens, batches of 4 differ by 0.08 in a "
        "trained dynamics. Demo: 0.001 after 100 steps, 0.09 after 400, 0.37 at the end",
    ),
)  # fmt: skip


def judge(figures: Mapping[str, float], stage: str, config: GenieConfig, *, trained: bool = True) -> list[Finding]:
    """Findings about a stage, causes first; each name once per stage, at its worst.

    Messages and remedies are filled with {value}, {model} (tokenizer or latent-action), {option} (the stage that trains
    it) as the command line spells them, and with the other choices of --action-input.

    Args:
        figures: measurements by name; nan if one could not be made.
        stage: the stage in training, or that the figures are about; or 'data'.
        trained: the stage has trained long enough to have learned. After an exploded loss this does not count.
    """
    findings: dict[tuple[str, str], Finding] = {}
    trains = STAGES[stage].trains if stage in STAGES else ()
    for rule in RULES:
        severity = rule.severity(figures.get(rule.figure, math.nan))
        if severity is None or (rule.needs_training and not trained):
            continue
        where = stage if rule.stage == HERE else rule.stage
        words = {
            "value": format(figures[rule.figure], rule.format),
            "model": where.replace("_", "-"),
            "option": (stage if where in trains else where).replace("_", "-"),
            "latent_inputs": other_inputs(config.latent_action.action_input),
            "dynamics_inputs": other_inputs(config.dynamics.action_input),
        }
        finding = Finding(rule.name, severity, where, rule.message.format(**words), rule.remedy.format(**words))
        before = findings.get((rule.name, where))
        if before is None or (before.severity, severity) == ("warning", "fault"):
            findings[rule.name, where] = finding
        if rule.name in ("not_finite", "exploding_loss") and severity == "fault":
            trained = False
    return list(findings.values())


def other_inputs(action_input: str) -> str:
    return " or ".join(name for name in reversed(CONDITIONINGS) if name != action_input)
