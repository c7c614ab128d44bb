"""What is trained together and in which order: four modes, one flag each (`--mode`).

| mode | stages after the tokenizer |
|---|---|
| frozen | latent_action, then dynamics on its frozen codes |
| cotrain | joint: both at once, no gradient from the dynamics into the actions (Genie section 2.1) |
| end_to_end | joint: the loss of the dynamics alone trains the latent actions; their decoder is left out (Jasmine) |
| warmup | latent_action, then joint: both losses, and the dynamics' gradient reaches the actions (CoLA-World) |

A stage is a module whose `forward` takes clips (B, T, H, W, 3) uint8 and returns (loss, logs); it registers the
components that it trains and no others.
"""

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from genie_datasets.base.errors import UserError
from genie_robotics.genie import Genie
from genie_robotics.models.dynamics import DynamicsBatch
from genie_robotics.models.video_tokenizer import Logs

MODES: dict[str, tuple[str, ...]] = {
    "frozen": ("tokenizer", "latent_action", "dynamics"),
    "cotrain": ("tokenizer", "joint"),
    "end_to_end": ("tokenizer", "joint"),
    "warmup": ("tokenizer", "latent_action", "joint"),
}
TRAINED: dict[str, tuple[str, ...]] = {
    "tokenizer": ("tokenizer",),
    "latent_action": ("latent_action",),
    "dynamics": ("dynamics",),
    "joint": ("latent_action", "dynamics"),
}
"""The components that each stage trains."""


class DynamicsStage(nn.Module):
    """The dynamics on frozen tokens and frozen codes."""

    def __init__(self, genie: Genie):
        super().__init__()
        self.dynamics = genie.dynamics
        self.frozen = (genie.tokenizer, genie.latent_action)  # in a tuple: not this module's parameters

    def codes(self, frames: UInt8[Tensor, "B T H W 3"]) -> tuple[Int[Tensor, "B T N"], Int[Tensor, "B T-1"]]:
        """Tokens and latent actions of clips."""
        tokenizer, latent_action = self.frozen
        with torch.no_grad():
            return tokenizer.encode(frames), latent_action.encode(frames)

    def forward(
        self,
        frames: UInt8[Tensor, "B T H W 3"],
        codes: tuple[Int[Tensor, "B T N"], Int[Tensor, "B T-1"]] | None = None,
    ) -> tuple[Float[Tensor, ""], Logs]:
        """codes: of these frames, where they are known."""
        tokens, actions = self.codes(frames) if codes is None else codes
        with torch.no_grad():
            vectors = self.frozen[1].codebook.lookup(actions)
        return self.dynamics(DynamicsBatch(tokens, vectors))


class JointStage(nn.Module):
    """Latent action model and dynamics at once, on frozen tokens.

    Args:
        own_loss: the latent action model also learns to predict frames, as it does alone.
        into_actions: the gradient of the dynamics reaches the latent actions, straight through the codebook.
    """

    def __init__(self, genie: Genie, *, own_loss: bool, into_actions: bool):
        super().__init__()
        self.latent_action, self.dynamics = genie.latent_action, genie.dynamics
        self.frozen = (genie.tokenizer,)
        self.own_loss, self.into_actions = own_loss, into_actions

    def forward(self, frames: UInt8[Tensor, "B T H W 3"]) -> tuple[Float[Tensor, ""], Logs]:
        with torch.no_grad():
            tokens = self.frozen[0].encode(frames)
        actions, loss, logs = self.latent_action.explain(frames, predict=self.own_loss)
        dynamics_loss, more = self.dynamics(DynamicsBatch(tokens, actions, into_actions=self.into_actions))
        return loss + dynamics_loss, logs | {"token_loss": dynamics_loss.detach()} | more


def build_stage(genie: Genie, stage: str, mode: str) -> nn.Module:
    """The module that trains `stage`; everything else of `genie` is frozen and in evaluation mode."""
    genie.eval().requires_grad_(False)
    if stage == "latent_action" and genie.latent_action.tokens is not None and not genie.tokenizer.codebook.started:
        raise UserError(
            "latent_action reads tokens, and the tokenizer is not trained: train it first (--stage tokenizer, or all)"
        )
    if stage == "joint":
        check_held(genie.config.latent_action.codebook.hold, mode)
    if stage == "dynamics":
        module: nn.Module = DynamicsStage(genie)
    elif stage == "joint":
        module = JointStage(genie, own_loss=mode != "end_to_end", into_actions=mode != "cotrain")
    else:
        module = getattr(genie, stage)
    module.train().requires_grad_(True)
    if stage == "joint" and mode == "end_to_end":
        genie.latent_action.decoder_parts().requires_grad_(False)
    return module


def check_held(hold: bool, mode: str) -> None:
    """Raises UserError where the mode would teach the latent actions through codes that let nothing through."""
    if hold and mode in ("warmup", "end_to_end"):
        raise UserError(
            f"--mode {mode} lets the gradient of the dynamics into the latent actions, and held codes let none "
            "through: --latent-action.codebook.no-hold"
        )


def stages_of(mode: str, asked: str = "all") -> tuple[str, ...]:
    """The stages to train, in order.

    Raises:
        UserError: no such mode, or `asked` is not a stage of it.
    """
    if mode not in MODES:
        raise UserError(f"--mode must be one of {', '.join(MODES)}, not {mode}")
    if asked == "all":
        return MODES[mode]
    if asked not in MODES[mode]:
        raise UserError(f"--stage must be all, {', '.join(MODES[mode])} with --mode {mode}, not {asked}")
    return (asked,)


def needs(stage: str, mode: str, latent_input: str = "pixels") -> tuple[str, ...]:
    """The components that must have been trained before `stage`.

    Args:
        latent_input: what the latent action model reads; of tokens it needs the tokenizer.
    """
    if stage == "dynamics" or (stage == "joint" and mode == "warmup"):
        return ("tokenizer", "latent_action")
    reads_tokens = stage == "latent_action" and latent_input == "tokens"
    return ("tokenizer",) if stage == "joint" or reads_tokens else ()


def last_stage(component: str, mode: str) -> str:
    """The stage whose result the run folder's `component` is in the end."""
    return [stage for stage in MODES[mode] if component in TRAINED[stage]][-1]
