"""The sentinel watches a stage while it trains: a collapse is named while it happens, with its remedy.

It costs nothing a step (a few references to tensors are kept, nothing is waited for) and a look is about one step's
forward pass. All it keeps across steps is in `state_dict`, so that a resumed run says what the uninterrupted one says.
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
    LOSS,
    WINDOW,
    gradient_figures,
    knowing_nothing,
    loss_figures,
    median,
)
from genie_robotics.health.measures import (
    action_use,
    bits_share,
    codebook_figures,
    motion_explained,
    num_dead,
    num_not_finite,
    perplexity,
    static_clips,
    tokenizer_floor,
    untouched,
)
from genie_robotics.health.rules import gain, gap_share, judge
from genie_robotics.models.quantizers.codebook import Codebook

WATCHED = ("grad_norm", "error_share")
NAMES = {"tokenizer": ("token", "dead_tokens"), "latent_action": ("code", "dead_codes")}
"""What the figures of each component's codebook are called."""
OF_CODES = ("_bits", "_spread", "dead_tokens", "dead_codes")
"""Not judged at the first look after the codes have started: they sort themselves out in those steps."""


@dataclass(frozen=True)
class SentinelConfig:
    patience: float = 0.5
    """Share of the stage before it is judged by what must first be learnt."""
    clips: int = 16
    """Of the batch that are looked at, at most."""
    pooled: int = 5
    """Looks whose figures of the action's use are taken together: one batch is few clips."""
    repeat_every: int = 10
    """Looks after which a finding that stays is said again."""
    forget_after: int = 3
    """Looks without a finding after which it counts as new."""
    seed: int = 0


class Sentinel:
    """Watches `genie` while the stage `stage` trains the components `trained`.

    Args:
        steps_per_epoch: after as many steps the use of the codes is counted anew.
    """

    def __init__(
        self,
        genie: Genie,
        stage: str,
        trained: tuple[str, ...],
        config: SentinelConfig | None = None,
        steps_per_epoch: int = 1000,
    ):
        self.genie, self.stage, self.trained = genie, stage, tuple(trained)
        self.config = config or SentinelConfig()
        self.steps_per_epoch = max(1, steps_per_epoch)
        self.books: dict[str, Codebook] = {n: getattr(genie, n).codebook for n in NAMES if n in self.trained}
        self.chance = knowing_nothing(stage, genie.config)
        # All that is kept across steps; tensors stay on their device until somebody looks.
        self.window: dict[str, deque[Tensor]] = {n: deque(maxlen=WINDOW) for n in (LOSS[stage], *WATCHED)}
        self.epoch: dict[str, Tensor] = {}
        self.lowest = math.inf
        self.gradients: deque[float] = deque(maxlen=10)
        self.uses: deque[dict[str, float]] = deque(maxlen=self.config.pooled)
        self.num_clips = self.num_static = self.looks = 0
        self.quantised = self.all_started
        self.said: dict[str, list[int]] = {}

    @property
    def all_started(self) -> bool:
        """Every codebook that this stage uses gives out codes."""
        return all(getattr(self.genie, name).codebook.started for name in NAMES if self.uses_component(name))

    def uses_component(self, name: str) -> bool:
        return name in self.trained or self.stage in ("dynamics", "joint")

    def observe(self, step: int, values: Mapping[str, Tensor]) -> None:
        """After every training step, `step` counting those that are done: the values that it logged."""
        for name, kept in self.window.items():
            if name in values:
                kept.append(values[name].detach())
        if step % self.steps_per_epoch == 0:
            for name, book in self.books.items():
                self.epoch[name] = book.usage.clone()
                book.reset_usage()

    def look(
        self, step: int, frames: UInt8[Tensor, "B T H W 3"], progress: float = 1.0
    ) -> tuple[dict[str, float], list[Finding]]:
        """Figures to log, and findings to say now: new ones, ones that came back, and now and then those that stay.

        Args:
            frames: clips of this rank's batch.
            progress: of the stage, 0 .. 1.
        """
        self.looks += 1
        steady = self.quantised  # at the last look codes were given out already
        frames = frames.to(self.genie.device)
        figures = self.numbers() | self.data(frames)
        frames = frames[: self.config.clips]
        if not figures["not_finite"]:  # else nothing that the models say means anything
            for name in self.books:
                figures |= self.use_of_codes(name)
            if self.all_started:
                figures |= self.behaviour(step, frames)
        figures = {name: value for name, value in figures.items() if not math.isnan(value)}
        judged = {name: value for name, value in figures.items() if steady or not name.endswith(OF_CODES)}
        found = judge(judged, self.stage, self.genie.config, learnt=progress >= self.config.patience)
        return figures, self.news(found)

    def numbers(self) -> dict[str, float]:
        """What the losses and gradients since the last look tell."""
        seen = {name: torch.stack(list(kept)).tolist() for name, kept in self.window.items() if kept}
        bad = sum(not math.isfinite(value) for values in seen.values() for value in values)
        bad += sum(num_not_finite(getattr(self.genie, name)) for name in self.trained)
        figures = {"not_finite": float(bad)}
        if "error_share" in seen:
            figures["error_share"] = median(seen["error_share"])
        if self.all_started != self.quantised:  # the loss begins anew
            self.quantised, self.lowest = self.all_started, math.inf
            self.gradients.clear()
            return figures
        losses, gradients = seen.get(LOSS[self.stage], []), seen.get("grad_norm", [])
        figures |= loss_figures(losses, self.lowest, self.chance) | gradient_figures(gradients, self.gradients)
        if losses:
            self.lowest = min(self.lowest, median(losses))
        if gradients:
            self.gradients.append(median(gradients))
        return figures

    def data(self, frames: UInt8[Tensor, "B T H W 3"]) -> dict[str, float]:
        with torch.no_grad():
            self.num_static += static_clips(frames)
        self.num_clips += len(frames)
        return {"static_share": self.num_static / self.num_clips} if self.num_clips >= 8 else {}

    def use_of_codes(self, name: str) -> dict[str, float]:
        """Of a codebook in training: now (a moving average), and over the last whole epoch, or the first so far.

        Dead is what was used neither then nor since: codes that were revived meanwhile are not.
        """
        book, (short, dead) = self.books[name], NAMES[name]
        if not book.started or not book.share.any():
            return {}
        figures = codebook_figures(book.vectors, book.share, short)
        counts = self.epoch[name] + book.usage if name in self.epoch else book.usage
        if counts.sum() >= 20 * len(counts):  # with fewer, a rare code may just not have come up
            figures[dead] = num_dead(counts) / len(counts)
            figures[f"{short}_perplexity_epoch"] = perplexity(self.epoch.get(name, book.usage))
        return figures

    def behaviour(self, step: int, frames: UInt8[Tensor, "B T H W 3"]) -> dict[str, float]:
        """What the trained components do with these clips, all codebooks being in use."""
        genie, seed = self.genie, self.config.seed + step
        figures: dict[str, float] = {}
        if self.stage == "tokenizer":
            return tokenizer_floor(genie, frames)[0]
        if self.stage == "latent_action" or self.decoder_learns:
            explained, _ = motion_explained(genie, frames, seed)
            figures["action_gain"] = gain(explained)
        if self.stage == "latent_action":
            return figures
        with untouched(genie):
            tokens, codes = genie.tokenizer.encode(frames), genie.latent_action.encode(frames)
        for name, given in (("tokenizer", tokens), ("latent_action", codes)):
            if name not in self.books:  # frozen: nobody counts, but this batch is enough to see a collapse
                counts = torch.bincount(given.flatten(), minlength=getattr(genie, name).codebook.config.num_codes)
                figures[f"{NAMES[name][0]}_bits"] = bits_share(counts)
        self.uses.append(action_use(genie, tokens, codes, seed))
        return figures | pooled(list(self.uses))

    @property
    def decoder_learns(self) -> bool:
        """The latent action model's decoder: a joint stage may train it, or leave it out (--mode end_to_end)."""
        return self.genie.latent_action.patch_out.weight.requires_grad

    def news(self, found: list[Finding]) -> list[Finding]:
        """Those of the findings that should be said now."""
        news, c = [], self.config
        for finding in found:
            key = f"{finding.name}/{finding.stage}/{finding.severity}"
            said, seen = self.said.get(key, [-c.repeat_every, -c.forget_after - 1])
            if self.looks - seen > c.forget_after or self.looks - said >= c.repeat_every:
                news.append(finding)
                said = self.looks
            self.said[key] = [said, self.looks]
        return news

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain numbers: all that was kept."""
        return {
            "window": {name: torch.stack(list(kept)).cpu() for name, kept in self.window.items() if kept},
            "epoch": {name: counts.cpu() for name, counts in self.epoch.items()},
            "lowest": self.lowest,
            "gradients": list(self.gradients),
            "uses": [dict(use) for use in self.uses],
            "num_clips": self.num_clips,
            "num_static": self.num_static,
            "looks": self.looks,
            "quantised": self.quantised,
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
        self.looks, self.quantised = state["looks"], state["quantised"]
        self.said = {key: list(when) for key, when in state["said"].items()}


def pooled(uses: list[dict[str, float]]) -> dict[str, float]:
    """The action's use over several looks, as one: means over all their tokens."""
    uses = [use for use in uses if use["num_tokens"] and use["num_codes"] > 1]
    if not uses:
        return {}
    weights = [use["num_tokens"] for use in uses]
    mean = {
        name: sum(w * use[name] for w, use in zip(weights, uses, strict=True)) / sum(weights)
        for name in ("true", "shuffled", "null")
    }
    return {f"token_loss_{name}": value for name, value in mean.items()} | {
        "action_gap": gap_share(mean | {"num_codes": 2.0})
    }
