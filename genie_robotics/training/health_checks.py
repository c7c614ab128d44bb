"""Health checks while a stage trains: a collapse is reported when it happens, with a remedy.

Observing a step keeps a few references to tensors and waits for nothing; a check costs about the forward pass of one
step. All that is kept across steps is in `state_dict`, so that a resumed run reports what an uninterrupted one reports.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from genie_robotics.genie import Genie
from genie_robotics.health.findings import Finding
from genie_robotics.health.history import (
    WINDOW,
    gradient_figures,
    loss_figures,
    median,
)
from genie_robotics.health.measures import (
    action_gain,
    action_gap,
    action_use,
    bits_share,
    codebook_figures,
    evaluating,
    motion_explained,
    num_dead,
    num_not_finite,
    perplexity,
    static_clips,
    tokenizer_floor,
    without_kept,
)
from genie_robotics.health.rules import judge
from genie_robotics.models.quantizers import Quantizer
from genie_robotics.training.stages import Stage

WATCHED = ("grad_norm", "error_share")
NAMES = {"tokenizer": ("token", "dead_tokens"), "latent_action": ("code", "dead_codes")}
"""Names of the figures of each component's codes."""
OF_CODES = ("_bits", "_spread", "dead_tokens", "dead_codes")
"""Figures that are not judged at the first check after the codes have started: usage settles in those steps."""


@dataclass(frozen=True)
class HealthChecksConfig:
    patience: float = 0.5
    """Fraction of the stage after which what must first be learned is judged."""
    clips: int = 16
    """Largest number of clips of the batch that are checked."""
    pooled: int = 5
    """Checks whose figures of action use are pooled, because one batch has few clips."""
    repeat_every: int = 10
    """Checks after which a finding that persists is printed again."""
    forget_after: int = 3
    """Checks without a finding after which it counts as new."""
    seed: int = 0


class HealthChecks:
    """Checks of `genie` while a stage trains.

    Args:
        steps_per_epoch: after as many steps the usage of the codes is counted again from zero.
    """

    def __init__(
        self,
        genie: Genie,
        stage: type[Stage],
        mode: str = "frozen",
        config: HealthChecksConfig | None = None,
        steps_per_epoch: int = 1000,
    ):
        self.genie, self.stage = genie, stage
        self.config = config or HealthChecksConfig()
        self.steps_per_epoch = max(1, steps_per_epoch)
        used = {*stage.trains, *stage.reads(genie.config, mode)}
        if stage.name == "latent_action":
            used.discard("tokenizer")  # read for its tokens, not judged
        self.used = tuple(name for name in NAMES if name in used)
        self.quantizers: dict[str, Quantizer] = {n: getattr(genie, n).quantizer for n in NAMES if n in stage.trains}
        self.uninformed_loss = stage.loss_without_knowledge(genie.config)
        # All that is kept across steps; tensors stay on their device until a check.
        self.window: dict[str, deque[Tensor]] = {n: deque(maxlen=WINDOW) for n in (stage.judged_loss, *WATCHED)}
        self.epoch: dict[str, Tensor] = {}
        self.lowest = math.inf
        self.gradients: deque[float] = deque(maxlen=10)
        self.uses: deque[dict[str, float]] = deque(maxlen=self.config.pooled)
        self.num_clips = self.num_static = self.checks = 0
        self.quantized = self.all_started
        self.said: dict[str, list[int]] = {}

    @property
    def all_started(self) -> bool:
        """True if every quantizer that this stage uses assigns codes."""
        return all(getattr(self.genie, name).quantizer.started for name in self.used)

    def observe(self, step: int, values: Mapping[str, Tensor]) -> None:
        """Takes the logged values after every training step; `step` counts the steps that are done."""
        for name, kept in self.window.items():
            if name in values:
                kept.append(values[name].detach())
        if step % self.steps_per_epoch == 0:
            for name, quantizer in self.quantizers.items():
                self.epoch[name] = quantizer.usage.clone()
                quantizer.reset_usage()

    def check(
        self,
        step: int,
        frames: UInt8[Tensor, "B T H W 3"],
        reference: UInt8[Tensor, "B H W 3"] | None = None,
        progress: float = 1.0,
    ) -> tuple[dict[str, float], list[Finding]]:
        """Figures to log, and the findings to print now: new ones, and repeated ones now and then.

        Args:
            frames: clips of this rank's batch.
            reference: of each clip, if the tokenizer has one (default: its first frame).
            progress: of the stage, 0 .. 1.
        """
        self.checks += 1
        steady = self.quantized  # codes were already assigned at the last check
        frames = frames.to(self.genie.device)
        figures = self.loss_figures() | self.data_figures(frames)
        frames = frames[: self.config.clips]
        reference = frames[:, 0] if reference is None else reference[: self.config.clips].to(frames.device)
        if not figures["not_finite"]:  # otherwise the models' outputs mean nothing
            for name in self.quantizers:
                figures |= self.code_figures(name)
            if self.all_started:
                figures |= self.behavior_figures(step, frames, reference)
        figures = {name: value for name, value in figures.items() if not math.isnan(value)}
        judged = {name: value for name, value in figures.items() if steady or not name.endswith(OF_CODES)}
        found = judge(judged, self.stage.name, self.genie.config, trained=progress >= self.config.patience)
        return figures, self.news(found)

    def loss_figures(self) -> dict[str, float]:
        """Figures of the losses and gradients since the last check."""
        seen = {name: torch.stack(list(kept)).tolist() for name, kept in self.window.items() if kept}
        bad = sum(not math.isfinite(value) for values in seen.values() for value in values)
        bad += sum(num_not_finite(getattr(self.genie, name)) for name in self.stage.trains)
        figures = {"not_finite": float(bad)}
        if "error_share" in seen:
            figures["error_share"] = median(seen["error_share"])
        if self.all_started != self.quantized:  # the loss starts again
            self.quantized, self.lowest = self.all_started, math.inf
            self.gradients.clear()
            return figures
        losses, gradients = seen.get(self.stage.judged_loss, []), seen.get("grad_norm", [])
        figures |= loss_figures(losses, self.lowest, self.uninformed_loss) | gradient_figures(gradients, self.gradients)
        if losses:
            self.lowest = min(self.lowest, median(losses))
        if gradients:
            self.gradients.append(median(gradients))
        return figures

    def data_figures(self, frames: UInt8[Tensor, "B T H W 3"]) -> dict[str, float]:
        with torch.no_grad():
            self.num_static += static_clips(frames)
        self.num_clips += len(frames)
        return {"static_share": self.num_static / self.num_clips} if self.num_clips >= 8 else {}

    def code_figures(self, name: str) -> dict[str, float]:
        """Usage of the codes of a component in training: a moving average, and over the last epoch (or the first so
        far).

        A code is dead if it was used neither in that epoch nor since.
        """
        quantizer, (short, dead) = self.quantizers[name], NAMES[name]
        if not quantizer.started or not quantizer.share.any():
            return {}
        usage = without_kept(getattr(self.genie, name), quantizer.share)
        figures = codebook_figures(quantizer.vectors, usage, short)
        counts = self.epoch[name] + quantizer.usage if name in self.epoch else quantizer.usage
        if counts.sum() >= 20 * len(counts):  # with fewer, a rare code may not have occurred by chance
            figures[dead] = num_dead(counts) / len(counts)
            figures[f"{short}_perplexity_epoch"] = perplexity(self.epoch.get(name, quantizer.usage))
        return figures

    def behavior_figures(
        self, step: int, frames: UInt8[Tensor, "B T H W 3"], reference: UInt8[Tensor, "B H W 3"]
    ) -> dict[str, float]:
        """Figures of the trained components on these clips, once all codes are assigned."""
        genie, seed = self.genie, self.config.seed + step
        figures: dict[str, float] = {}
        if self.stage.name == "tokenizer":
            return tokenizer_floor(genie, frames, reference)[0]
        if "latent_action" in self.stage.trains and self.decoder_learns:
            explained, _ = motion_explained(genie, frames, seed)
            figures["action_gain"] = action_gain(explained)
        if "dynamics" not in self.stage.trains:
            return figures
        with evaluating(genie):
            tokens = genie.tokenizer.encode(frames, reference)
            context = genie.tokenizer.clip_context(tokens, reference)
            codes = genie.latent_action.encode(frames)
        for name, given in (("tokenizer", tokens), ("latent_action", codes)):
            if name not in self.quantizers:  # frozen, so its usage is not counted; one batch shows a collapse
                part = getattr(genie, name)
                counts = torch.bincount(given.flatten(), minlength=part.quantizer.num_codes)
                figures[f"{NAMES[name][0]}_bits"] = bits_share(without_kept(part, counts))
        self.uses.append(action_use(genie, tokens, codes, seed, context))
        return figures | pooled(list(self.uses))

    @property
    def decoder_learns(self) -> bool:
        """True if the latent action model's decoder is trained; --mode end_to_end leaves it out."""
        return self.genie.latent_action.patch_out.weight.requires_grad

    def news(self, found: list[Finding]) -> list[Finding]:
        """The findings to print now."""
        news, c = [], self.config
        for finding in found:
            key = f"{finding.name}/{finding.stage}/{finding.severity}"
            said, seen = self.said.get(key, [-c.repeat_every, -c.forget_after - 1])
            if self.checks - seen > c.forget_after or self.checks - said >= c.repeat_every:
                news.append(finding)
                said = self.checks
            self.said[key] = [said, self.checks]
        return news

    def state_dict(self) -> dict[str, Any]:
        """All that is kept across steps, as tensors and plain numbers."""
        return {
            "window": {name: torch.stack(list(kept)).cpu() for name, kept in self.window.items() if kept},
            "epoch": {name: counts.cpu() for name, counts in self.epoch.items()},
            "lowest": self.lowest,
            "gradients": list(self.gradients),
            "uses": [dict(use) for use in self.uses],
            "num_clips": self.num_clips,
            "num_static": self.num_static,
            "checks": self.checks,
            "quantized": self.quantized,
            "said": {key: list(when) for key, when in self.said.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        device = self.genie.device
        for name, kept in self.window.items():
            kept.clear()
            kept.extend(state["window"].get(name, torch.empty(0)).to(device).unbind())
        self.epoch = {name: counts.to(device) for name, counts in state["epoch"].items()}
        self.lowest = state["lowest"]
        self.gradients.clear()
        self.gradients.extend(state["gradients"])
        self.uses.clear()
        self.uses.extend(dict(use) for use in state["uses"])
        self.num_clips, self.num_static = state["num_clips"], state["num_static"]
        self.checks, self.quantized = state["checks"], state["quantized"]
        self.said = {key: list(when) for key, when in state["said"].items()}


def pooled(uses: list[dict[str, float]]) -> dict[str, float]:
    """Action use over several checks: means over all their tokens."""
    uses = [use for use in uses if use["num_tokens"] and use["num_codes"] > 1]
    if not uses:
        return {}
    weights = [use["num_tokens"] for use in uses]
    mean = {
        name: sum(w * use[name] for w, use in zip(weights, uses, strict=True)) / sum(weights)
        for name in ("true", "shuffled", "null")
    }
    return {f"token_loss_{name}": value for name, value in mean.items()} | {
        "action_gap": action_gap(mean | {"num_codes": 2.0})
    }
