"""The dynamics model: a MaskGIT over the tokenizer's tokens, steered by latent actions (Genie section 2.1).

Frame t+1 receives a_t (genie_robotics.latent_action defines the alignment). Gradients flow into the
actions only where that is asked for.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from genie_robotics.attention import KeyValue
from genie_robotics.latent_action import shift_to_next_frame
from genie_robotics.st_transformer import ACTION_INPUTS, Past, STTransformer
from genie_robotics.video_tokenizer import Logs


@dataclass
class DynamicsConfig:
    num_patches: int = 256
    """Tokens N of a frame; follows from the tokenizer."""
    num_tokens: int = 1024
    """Size V of the tokenizer's codebook; follows from the tokenizer."""
    action_dim: int = 32
    """Width of a latent action; follows from the latent action model."""
    clip_length: int = 16
    width: int = 512
    num_blocks: int = 6
    heads: int = 8
    action_input: Literal["add", "prepend", "modulate"] = "add"
    """How a_t enters frame t+1: 'add' to every token (paper), 'prepend' a token, or 'modulate' every block."""
    min_mask_rate: float = 0.5
    """Mask rates are drawn uniformly from [min_mask_rate, 1], one a sample."""
    maskgit_steps: int = 25
    temperature: float = 2.0
    """Sampling defaults of the paper; smaller presets override both."""

    def __post_init__(self) -> None:
        if self.action_input not in ACTION_INPUTS:
            raise ValueError(f"action_input must be one of {', '.join(ACTION_INPUTS)}, not {self.action_input!r}")


@dataclass
class DynamicsBatch:
    """What the dynamics learns from: tokens (B,T,N) and the latent actions between frames (B,T-1,L)."""

    tokens: Tensor
    actions: Tensor
    into_actions: bool = False
    """Lets the loss's gradient into the actions; Genie does not."""


class Dynamics(nn.Module):
    def __init__(self, config: DynamicsConfig):
        super().__init__()
        self.config = c = config
        self.mask_token = c.num_tokens
        self.embed = nn.Embedding(c.num_tokens + 1, c.width)
        nn.init.normal_(self.embed.weight, std=0.02)
        self.action_in = nn.Linear(c.action_dim, c.width)
        self.transformer = STTransformer(
            c.width, c.num_blocks, c.heads, c.num_patches, c.clip_length, action_input=c.action_input
        )
        self.head = nn.Linear(c.width, c.num_tokens)

    def forward(self, batch: DynamicsBatch) -> tuple[Float[Tensor, ""], Logs]:
        """Cross-entropy of the masked tokens of frames 1 .. T-1; frame 0 is never masked."""
        tokens = batch.tokens
        actions = batch.actions if batch.into_actions else batch.actions.detach()
        mask = self.draw_mask(tokens)
        x, _ = self.hidden(tokens.masked_fill(mask, self.mask_token), shift_to_next_frame(actions), None)
        logits = self.head(x[mask]).float()  # the head is a large part of a small model: only where it is asked
        loss = F.cross_entropy(logits, tokens[mask])
        accuracy = (logits.detach().argmax(-1) == tokens[mask]).float().mean()
        return loss, {"token_accuracy": accuracy}

    def draw_mask(self, tokens: Int[Tensor, "B T N"]) -> Bool[Tensor, "B T N"]:
        low = self.config.min_mask_rate
        rate = low + (1 - low) * torch.rand(len(tokens), 1, 1, device=tokens.device)
        mask = torch.rand(tokens.shape, device=tokens.device) < rate
        mask[:, 0] = False
        return mask

    def logits(self, tokens: Int[Tensor, "B T N"], actions: Float[Tensor, "B T L"]) -> Float[Tensor, "B T N V"]:
        """Entry t of `actions` is the action that led to frame t (zeros for the first frame of the window)."""
        return self.head(self.hidden(tokens, actions, None)[0])

    def hidden(
        self, tokens: Int[Tensor, "B T N"], actions: Float[Tensor, "B T L"], past: Past | None
    ) -> tuple[Float[Tensor, "B T N D"], list[KeyValue]]:
        """What the head reads, for frames that follow those in `past`, and these frames' keys and values."""
        return self.transformer.forward_after(self.embed(tokens), self.action_in(actions), past)
