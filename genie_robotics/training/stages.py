"""The stages of training: one class each, with what it trains, what it needs and its loss.

| mode (`--mode`) | stages after the tokenizer |
|---|---|
| frozen | latent_action, then dynamics on its frozen codes |
| cotrain | joint: both at once, no gradient from the dynamics to the actions (Genie section 2.1) |
| end_to_end | joint: the dynamics' loss alone trains the latent actions, whose decoder is not used (Jasmine) |
| warmup | latent_action, then joint: both losses, and the dynamics' gradient reaches the actions (CoLA-World) |

A new stage is a subclass of `Stage`, an entry of STAGES and of a mode, and a field of TrainingConfig.
"""

import math
from typing import ClassVar

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from genie_datasets.base.errors import UserError
from genie_robotics.genie import Genie
from genie_robotics.models.config import GenieConfig
from genie_robotics.models.dynamics import Dynamics, DynamicsBatch
from genie_robotics.models.latent_action import LatentActionModel
from genie_robotics.models.losses import Logs
from genie_robotics.models.video_tokenizer import VideoTokenizer

MODES: dict[str, tuple[str, ...]] = {
    "frozen": ("tokenizer", "latent_action", "dynamics"),
    "cotrain": ("tokenizer", "joint"),
    "end_to_end": ("tokenizer", "joint"),
    "warmup": ("tokenizer", "latent_action", "joint"),
}


class Stage(nn.Module):
    """A module whose `forward` takes clips (B, T, H, W, 3) uint8 and returns (loss, logs).

    With `has_reference` the clips are (B, 1 + T, H, W, 3): each comes behind its reference (`ReferencedClips`).

    It registers the components that it trains; everything else of `genie` is frozen and in evaluation mode.
    """

    name: ClassVar[str]
    trains: ClassVar[tuple[str, ...]]
    """Components that it trains."""
    judged_loss: ClassVar[str] = "loss"
    """The logged value that health checks judge."""

    def __init__(self, genie: Genie, mode: str):
        super().__init__()
        self.check(genie.config, mode)
        self.clips_have_reference = self.has_reference(genie.config)
        genie.eval().requires_grad_(False)
        for component in self.trains:
            part = getattr(genie, component)
            self.add_module(component, part.train().requires_grad_(True))

    @classmethod
    def check(cls, config: GenieConfig, mode: str) -> None:
        """Raises UserError if this configuration cannot be trained in this mode."""

    @classmethod
    def has_reference(cls, config: GenieConfig) -> bool:
        """True if its clips come behind a reference, to which the tokenizer's tokens are relative."""
        return config.tokenizer.reference != "none"

    def split(self, batch: UInt8[Tensor, "B S H W 3"]) -> tuple[UInt8[Tensor, "B T H W 3"], Tensor | None]:
        """Clips, and their references (B, H, W, 3) or None."""
        return (batch[:, 1:], batch[:, 0]) if self.clips_have_reference else (batch, None)

    @classmethod
    def needs(cls, config: GenieConfig, mode: str) -> tuple[str, ...]:
        """Components that must have been trained before."""
        return ()

    @classmethod
    def reads(cls, config: GenieConfig, mode: str) -> tuple[str, ...]:
        """Components that it uses and does not train."""
        return tuple(name for name in cls.needs(config, mode) if name not in cls.trains)

    @classmethod
    def loss_without_knowledge(cls, config: GenieConfig) -> float:
        """The judged loss of a model that has learned nothing."""
        raise NotImplementedError


class TokenizerStage(Stage):
    name, trains = "tokenizer", ("tokenizer",)
    tokenizer: VideoTokenizer

    def forward(self, batch: UInt8[Tensor, "B S H W 3"]) -> tuple[Float[Tensor, ""], Logs]:
        return self.tokenizer(*self.split(batch))

    @classmethod
    def loss_without_knowledge(cls, config: GenieConfig) -> float:
        return 0.25  # the largest variance of pixels in 0 .. 1


class LatentActionStage(Stage):
    name, trains, judged_loss = "latent_action", ("latent_action",), "error_share"
    latent_action: LatentActionModel

    def __init__(self, genie: Genie, mode: str):
        super().__init__(genie, mode)
        if self.reads(genie.config, mode) and not genie.tokenizer.quantizer.started:
            raise UserError(
                "stage latent_action reads tokens and the tokenizer is not trained; train it first: --stage tokenizer"
            )

    def forward(self, frames: UInt8[Tensor, "B T H W 3"]) -> tuple[Float[Tensor, ""], Logs]:
        return self.latent_action(frames)

    @classmethod
    def has_reference(cls, config: GenieConfig) -> bool:
        return False

    @classmethod
    def needs(cls, config: GenieConfig, mode: str) -> tuple[str, ...]:
        return ("tokenizer",) if config.latent_action.frame_space == "tokens" else ()

    @classmethod
    def loss_without_knowledge(cls, config: GenieConfig) -> float:
        return 1.0  # repeating the previous frame


class DynamicsStage(Stage):
    """The dynamics on frozen tokens and frozen codes."""

    name, trains = "dynamics", ("dynamics",)
    dynamics: Dynamics

    def __init__(self, genie: Genie, mode: str):
        super().__init__(genie, mode)
        self._frozen = (genie.tokenizer, genie.latent_action)  # in a tuple, so that they are not submodules

    def codes(self, batch: UInt8[Tensor, "B S H W 3"]) -> tuple[Int[Tensor, "B T N"], Int[Tensor, "B T-1"]]:
        """Tokens and latent actions of clips."""
        tokenizer, latent_action = self._frozen
        frames, reference = self.split(batch)
        with torch.no_grad():
            return tokenizer.encode(frames, reference), latent_action.encode(frames)

    def forward(
        self,
        batch: UInt8[Tensor, "B S H W 3"],
        codes: tuple[Int[Tensor, "B T N"], Int[Tensor, "B T-1"]] | None = None,
    ) -> tuple[Float[Tensor, ""], Logs]:
        """codes: `self.codes(batch)`, if known."""
        tokenizer, latent_action = self._frozen
        tokens, actions = self.codes(batch) if codes is None else codes
        with torch.no_grad():
            context = tokenizer.clip_context(tokens, self.split(batch)[1])
            vectors = latent_action.quantizer.lookup(actions)
        return self.dynamics(DynamicsBatch(tokens, vectors, context=context))

    @classmethod
    def needs(cls, config: GenieConfig, mode: str) -> tuple[str, ...]:
        return ("tokenizer", "latent_action")

    @classmethod
    def loss_without_knowledge(cls, config: GenieConfig) -> float:
        return math.log(config.dynamics.num_tokens)  # all tokens equally likely


class JointStage(Stage):
    """Latent action model and dynamics at once, on frozen tokens."""

    name, trains, judged_loss = "joint", ("latent_action", "dynamics"), "token_loss"
    latent_action: LatentActionModel
    dynamics: Dynamics

    def __init__(self, genie: Genie, mode: str):
        super().__init__(genie, mode)
        self._frozen = (genie.tokenizer,)
        self.predict_frames = mode != "end_to_end"
        self.grad_to_actions = mode != "cotrain"
        if not self.predict_frames:
            for part in genie.latent_action.decoder_parts().values():
                part.requires_grad_(False)

    def forward(self, batch: UInt8[Tensor, "B S H W 3"]) -> tuple[Float[Tensor, ""], Logs]:
        frames, reference = self.split(batch)
        with torch.no_grad():
            tokens = self._frozen[0].encode(frames, reference)
            context = self._frozen[0].clip_context(tokens, reference)
        actions, loss, logs = self.latent_action.explain(frames, predict=self.predict_frames)
        dynamics_loss, more = self.dynamics(DynamicsBatch(tokens, actions, self.grad_to_actions, context))
        return loss + dynamics_loss, logs | {"token_loss": dynamics_loss.detach()} | more

    @classmethod
    def check(cls, config: GenieConfig, mode: str) -> None:
        if config.latent_action.quantizer.vq.freeze_after_init and mode in ("warmup", "end_to_end"):
            raise UserError(
                f"--mode {mode} needs gradients through the codes, and with freeze-after-init they pass none; "
                "pass --latent-action.quantizer.vq.no-freeze-after-init"
            )

    @classmethod
    def needs(cls, config: GenieConfig, mode: str) -> tuple[str, ...]:
        return ("tokenizer", "latent_action") if mode == "warmup" else ("tokenizer",)

    @classmethod
    def loss_without_knowledge(cls, config: GenieConfig) -> float:
        return DynamicsStage.loss_without_knowledge(config)


STAGES: dict[str, type[Stage]] = {
    stage.name: stage for stage in (TokenizerStage, LatentActionStage, DynamicsStage, JointStage)
}


def stages_of(mode: str, chosen: str = "all") -> tuple[str, ...]:
    """The stages to train, in order.

    Raises:
        UserError: the mode is unknown, or it has no stage `chosen`.
    """
    if mode not in MODES:
        raise UserError(f"--mode must be one of {', '.join(MODES)}, got {mode}")
    if chosen == "all":
        return MODES[mode]
    if chosen not in MODES[mode]:
        raise UserError(f"--stage must be all, {', '.join(MODES[mode])} with --mode {mode}, got {chosen}")
    return (chosen,)


def components_of(stages: tuple[str, ...]) -> tuple[str, ...]:
    """Components that these stages train, each once."""
    return tuple(dict.fromkeys(name for stage in stages for name in STAGES[stage].trains))


def last_stage(component: str, mode: str) -> str:
    """The last stage of a mode that trains `component`: its result is the component of the run folder."""
    return [stage for stage in MODES[mode] if component in STAGES[stage].trains][-1]
