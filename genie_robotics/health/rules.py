"""From which value on a measurement is a finding, why from there, and what helps: one table, RULES.

Sentinel and `doctor` judge by the same rows. Figures named here come from genie_robotics.health.measures and .history;
the healthy values are those of the demo's run (nano, 14 minutes).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from genie_robotics.health.findings import Finding, Severity
from genie_robotics.models.config import GenieConfig
from genie_robotics.models.layers.st_transformer import ACTION_INPUTS

HERE = "here"
"""As the stage of a rule: the stage that is being judged."""


@dataclass(frozen=True)
class Rule:
    name: str
    """Of the finding."""
    figure: str
    """Which measurement is judged."""
    label: str
    """What `doctor` calls it in its table."""
    stage: str
    """Where the finding is mended: tokenizer, latent_action, dynamics, data or HERE."""
    warning: float | None
    fault: float | None
    bad: str
    """'above' or 'below' these limits."""
    reason: str
    """Why the limits are there."""
    message: str
    remedy: str
    """Both with {value}, {option} (the stage's, as the command line spells it), {inputs} (other --action-input)."""
    learnt: bool = False
    """Needs training first: not judged at the beginning of a stage."""
    scale: str = ".2f"
    """How values are written."""

    def severity(self, value: float) -> Severity | None:
        if math.isnan(value):
            return None
        sign = 1 if self.bad == "above" else -1
        for severity, limit in (("fault", self.fault), ("warning", self.warning)):
            if limit is not None and sign * value >= sign * limit:
                return severity  # type: ignore[return-value]
        return None


RULES: tuple[Rule, ...] = (
    Rule(
        name="static_data",
        figure="static_share",
        label="clips in which nothing moves",
        stage="data",
        warning=0.5,
        fault=0.9,
        bad="above",
        reason=(
            "A clip without motion teaches no action. Half of the data wasted is worth a word; with nine of ten, most "
            "batches of 4 have not one that moves. Demo: 0.00"
        ),
        message="nothing moves in {value} of the clips",
        remedy=(
            "frames further apart (--gap SECONDS); `genie-robotics data inspect SRC` shows what is there, --exclude "
            "GLOB leaves episodes out"
        ),
        scale=".0%",
    ),
    Rule(
        name="not_finite",
        figure="not_finite",
        label="weights, losses or gradients that are not finite",
        stage=HERE,
        warning=None,
        fault=1,
        bad="above",
        reason="One is enough: the next step spreads it over all weights",
        message="{value} weights, losses or gradients are not finite",
        remedy=(
            "lower --training.{option}.learning-rate (and .matrix-rate), --precision float32; if the weights are bad "
            "already, train this stage anew"
        ),
        scale=".0f",
    ),
    Rule(
        name="exploding_loss",
        figure="loss_rise",
        label="loss, times its lowest",
        stage=HERE,
        warning=None,
        fault=2.5,
        bad="above",
        reason=(
            "A loss falls or stands; in the demo medians of five logged steps are never above 1.1 times the lowest "
            "before. Two and a half times is lost learning"
        ),
        message="the loss is {value} times its lowest",
        remedy=(
            "lower --training.{option}.learning-rate (and .matrix-rate), a longer --training.{option}.warmup; go on "
            "from a checkpoint of before, or in a new RUN"
        ),
    ),
    Rule(
        name="exploding_loss",
        figure="loss_share",
        label="loss, of that of knowing nothing",
        stage=HERE,
        warning=None,
        fault=1.5,
        bad="above",
        reason="A model that knows nothing has 1; only one that is sure of wrong things is far above",
        message="the loss is {value} times that of knowing nothing",
        remedy=("lower --training.{option}.learning-rate (and .matrix-rate), a longer --training.{option}.warmup"),
    ),
    Rule(
        name="not_learning",
        figure="loss_share",
        label="",
        stage=HERE,
        warning=None,
        fault=0.98,
        bad="above",
        reason=("1 is where training begins. Demo, at the end: tokenizer 0.02, latent actions 0.24, dynamics 0.32"),
        message="the loss is still {value} of that of knowing nothing",
        remedy=(
            "more steps (--training.{option}.steps, --minutes); another --training.{option}.learning-rate: higher if "
            "the loss creeps, lower if it jumps"
        ),
        learnt=True,
    ),
    Rule(
        name="exploding_gradient",
        figure="gradient_rise",
        label="gradient, times what it was before",
        stage=HERE,
        warning=10,
        fault=None,
        bad="above",
        reason=(
            "Clipping keeps the step small, but its direction is that of bad batches. In the demo medians of five "
            "logged gradients are never above 1.2 times those before: ten is no accident"
        ),
        message="the gradient is {value} times what it was",
        remedy=(
            "lower --training.{option}.learning-rate (and .matrix-rate), or --training.{option}.clip-gradient; look "
            "whether the loss follows"
        ),
        scale=".1f",
    ),
    Rule(
        name="collapsed_codebook",
        figure="token_bits",
        label="tokens: bits used of those there are",
        stage="tokenizer",
        warning=0.5,
        fault=0.35,
        bad="below",
        reason="0.35 is 11 tokens of 1024 or two codes of 8. Demo: 0.9",
        message="the tokens carry {value} of the bits they could",
        remedy=(
            "--tokenizer.codebook.kind fsq, which cannot collapse, or a higher --tokenizer.codebook.revive-below (new "
            "RUN)"
        ),
    ),
    Rule(
        name="collapsed_codebook",
        figure="token_spread",
        label="tokens: how far apart, 0 .. 1",
        stage="tokenizer",
        warning=0.01,
        fault=0.001,
        bad="below",
        reason="Codes on one spot are one code, however evenly they are used. Demo: 0.9, moving squares 0.1",
        message="all tokens are nearly the same vector (spread {value})",
        remedy="lower --training.tokenizer.learning-rate, or --tokenizer.codebook.kind fsq (new RUN)",
        scale=".3f",
    ),
    Rule(
        name="dead_codes",
        figure="dead_tokens",
        label="tokens: share never used",
        stage="tokenizer",
        warning=0.5,
        fault=None,
        bad="above",
        reason=("Half of the codebook is for nothing, which costs the dynamics' head and no quality. Demo: 0.0"),
        message="{value} of the tokens are never used",
        remedy=("a higher --tokenizer.codebook.revive-below, or a smaller --tokenizer.codebook.num-codes (new RUN)"),
        learnt=True,
        scale=".0%",
    ),
    Rule(
        name="tokenizer_floor",
        figure="floor",
        label="tokens: error on what moves, of standing still",
        stage="tokenizer",
        warning=0.6,
        fault=1.0,
        bad="above",
        reason=(
            "At 1 repeating the last frame is as near to the truth, so no dream on these tokens can show motion. Demo:"
            " 0.07"
        ),
        message="on pixels that move, the tokens' error is {value} of that of showing the frame before",
        remedy=(
            "a higher --tokenizer.motion-weight, a smaller --tokenizer.patch (new RUN); or more steps "
            "(--training.tokenizer.steps)"
        ),
        learnt=True,
    ),
    Rule(
        name="collapsed_codebook",
        figure="code_bits",
        label="actions: bits used of those there are",
        stage="latent_action",
        warning=0.5,
        fault=0.35,
        bad="below",
        reason="0.35 is two codes of 8, used alike; one that wins nine times in ten has 0.25. Demo: 0.97",
        message="the latent actions carry {value} of the bits they could",
        remedy=(
            "--latent-action.codebook.kind fsq, which cannot collapse, or a higher "
            "--latent-action.codebook.revive-below; with --mode cotrain or end_to_end, --mode warmup (all in a new "
            "RUN)"
        ),
    ),
    Rule(
        name="collapsed_codebook",
        figure="code_spread",
        label="actions: how far apart, 0 .. 1",
        stage="latent_action",
        warning=0.01,
        fault=0.001,
        bad="below",
        reason="Codes on one spot are one code, however evenly they are used. Demo: 0.75, moving squares 0.06",
        message="all latent actions are nearly the same vector (spread {value})",
        remedy=(
            "--latent-action.see-change, a higher --latent-action.motion-weight, or --latent-action.codebook.kind fsq "
            "(new RUN)"
        ),
        scale=".3f",
    ),
    Rule(
        name="dead_codes",
        figure="dead_codes",
        label="actions: share never used",
        stage="latent_action",
        warning=0.25,
        fault=None,
        bad="above",
        reason="Two of eight. Demo: 0",
        message="{value} of the latent actions are never used",
        remedy=(
            "a higher --latent-action.codebook.revive-below, or a smaller --latent-action.codebook.num-codes (new RUN)"
        ),
        learnt=True,
        scale=".0%",
    ),
    Rule(
        name="no_motion_explained",
        figure="error_share",
        label="actions: error of the prediction, of standing still",
        stage="latent_action",
        warning=0.9,
        fault=0.98,
        bad="above",
        reason="1 is repeating the last frame. Demo: 0.3, and 0.66 after 60 steps",
        message=(
            "with the right action, the next frame is predicted no better than by the last one ({value} of its error)"
        ),
        remedy=(
            "--latent-action.action-input {latent_inputs}, a higher --latent-action.motion-weight (new RUN), or more "
            "steps (--training.{option}.steps); is there motion? `genie-robotics data inspect SRC`"
        ),
        learnt=True,
    ),
    Rule(
        name="ignored_action",
        figure="action_gain",
        label="actions: error that the right one saves its decoder",
        stage="latent_action",
        warning=0.05,
        fault=0.01,
        bad="below",
        reason=(
            "0: a code drawn from another moment is as good, so the decoder predicts from the past alone. Demo: 0.8"
        ),
        message="the right latent action saves its own decoder {value} of the error",
        remedy=(
            "--latent-action.no-decoder-history if it has one, so that the action must carry the motion, or "
            "--latent-action.action-input {latent_inputs} (new RUN)"
        ),
        learnt=True,
    ),
    Rule(
        name="ignored_action",
        figure="action_gap",
        label="dynamics: what wrong actions cost, of its cross-entropy",
        stage="dynamics",
        warning=0.03,
        fault=0.01,
        bad="below",
        reason=(
            "0: wrong actions are as good as right ones. Over what changes, one batch of 4 differs from the next by "
            "0.08 in a trained dynamics. Demo: 0.001 after 100 steps, 0.09 after 400, 0.37 at the end"
        ),
        message=("wrong actions cost the dynamics {value} of its cross-entropy: what is commanded hardly matters"),
        remedy=(
            "--dynamics.action-input {dynamics_inputs} (new RUN), more steps (--training.{option}.steps), or frames "
            "further apart (--gap SECONDS)"
        ),
        learnt=True,
        scale=".3f",
    ),
)


def judge(figures: Mapping[str, float], stage: str, config: GenieConfig, *, learnt: bool = True) -> list[Finding]:
    """What is wrong, the causes first.

    Args:
        figures: those of `RULES` that were measured; nan: could not be.
        stage: the stage being trained, or that the figures are about.
        learnt: this stage has trained long enough that something must have been learnt. Where its loss exploded,
            nothing has, and that is said alone.
    """
    findings: dict[tuple[str, str], Finding] = {}
    for rule in RULES:
        severity = rule.severity(figures.get(rule.figure, math.nan))
        if severity is None or (rule.learnt and not learnt):
            continue
        where = stage if rule.stage == HERE else rule.stage
        words = {
            "value": format(figures[rule.figure], rule.scale),
            "option": trained_in(where, stage).replace("_", "-"),
            "latent_inputs": others(config.latent_action.action_input),
            "dynamics_inputs": others(config.dynamics.action_input),
        }
        finding = Finding(rule.name, severity, where, rule.message.format(**words), rule.remedy.format(**words))
        before = findings.get((rule.name, where))
        if before is None or (before.severity, severity) == ("warning", "fault"):
            findings[rule.name, where] = finding
        learnt = learnt and not (rule.name in ("not_finite", "exploding_loss") and severity == "fault")
    return list(findings.values())


def trained_in(component: str, stage: str) -> str:
    """The stage whose options train this component: 'joint' trains two."""
    return "joint" if stage == "joint" and component in ("latent_action", "dynamics") else component


def others(action_input: str) -> str:
    return " or ".join(name for name in reversed(ACTION_INPUTS) if name != action_input)


def gap_share(use: Mapping[str, float]) -> float:
    """`action_gap` of `measures.action_use`: what wrong actions cost, of the cross-entropy (of 0.1 nats at least).

    nan where one code is all there is: that is another finding.
    """
    if use["num_codes"] < 2 or math.isnan(use["true"]):
        return math.nan
    return (use["shuffled"] - use["true"]) / max(use["true"], 0.1)


def gain(explained: Mapping[str, float]) -> float:
    """`action_gain` of `measures.motion_explained`."""
    return 1 - explained["true"] / max(explained["shuffled"], 1e-12)
