"""The dynamics model: a MaskGIT over the tokenizer's tokens, steered by latent actions (Genie section 2.1).

Frame t+1 receives a_t (genie_robotics.models.latent_action defines the alignment). Gradients flow into the
actions only where that is asked for.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from genie_datasets.base.errors import UserError
from genie_robotics.models.corruption import corrupted, sampled, untold
from genie_robotics.models.distributed import mean_over_processes, rand_by_clip
from genie_robotics.models.latent_action import shift_to_next_frame
from genie_robotics.models.layers.attention import EarlierFrames, KeyValue
from genie_robotics.models.layers.st_transformer import ACTION_INPUTS, Past, STTransformer
from genie_robotics.models.video_tokenizer import Logs


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
    head_dim: int | None = None
    """Width of a head's queries and keys; width / heads unless given. The paper prints 64 or 128 (tables 10 to 12)."""
    action_input: Literal["add", "prepend", "modulate"] = "add"
    """How a_t enters frame t+1: 'add' to every token (paper), 'prepend' a token, or 'modulate' every block."""
    min_mask_rate: float = 0.5
    """Mask rates are drawn uniformly from [min_mask_rate, 1], one a sample."""
    maskgit_steps: int = 25
    temperature: float = 2.0
    """Sampling defaults of the paper; smaller presets override both."""
    context_noise: float = 0.0
    """In training, the largest share of a clip's tokens that are shown wrong (corruption.py); targets
    stay true. 0 (paper): none."""
    self_context: float = 0.0
    """In training, the share of clips that are shown the model's own guesses for true tokens, at the cost of a forward
    pass over those clips. 0 (paper): none."""
    action_dropout: float = 0.0
    """In training, the share of frames whose action is not told; guidance needs it. 0 (paper): none."""
    guidance: float = 1.0
    """In dreams, where the logits are on the line from those without the action (0) to those with it (1, paper) and
    beyond: classifier-free guidance, at the cost of a second pass. Other than 1 it needs action_dropout."""
    see_before: bool = False
    """Beside each token the model reads the one that stood at its patch a frame earlier, so that the first layer of
    space already sees what may move where. Without (paper) that arrives with the first layer of time."""
    past: Literal["masked", "whole"] = "masked"
    """What training shows of the frames before one that is being filled: 'masked' like it (paper), or 'whole', as in
    a dream, at the cost of a second pass through the transformer."""

    def __post_init__(self) -> None:
        for name in ("context_noise", "self_context", "action_dropout"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be within 0 .. 1, not {getattr(self, name)}")
        if self.past not in ("masked", "whole"):
            raise ValueError(f"past must be masked or whole, not {self.past!r}")
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
        self.before_in = nn.Linear(c.width, c.width, bias=False) if c.see_before else None
        self.action_in = nn.Linear(c.action_dim, c.width)
        self.transformer = STTransformer(
            c.width,
            c.num_blocks,
            c.heads,
            c.num_patches,
            c.clip_length,
            head_dim=c.head_dim,
            action_input=c.action_input,
        )
        self.head = nn.Linear(c.width, c.num_tokens)

    def forward(self, batch: DynamicsBatch) -> tuple[Float[Tensor, ""], Logs]:
        """Cross-entropy of the masked tokens of frames 1 .. T-1; frame 0 is never masked."""
        tokens = batch.tokens
        actions = batch.actions if batch.into_actions else batch.actions.detach()
        mask = self.draw_mask(tokens)
        shown = self.draw_context(tokens, actions) if self.training else tokens
        if self.training and self.config.action_dropout:
            actions = untold(actions, self.config.action_dropout)
        x = self.filled(shown, mask, shift_to_next_frame(actions))
        logits = self.head(x[mask]).float()  # the head is a large part of a small model: only where it is asked
        count = mask.sum().float()
        # Of the whole batch: several processes have not masked equally many.
        loss = F.cross_entropy(logits, tokens[mask]) * (count / mean_over_processes(count))
        accuracy = (logits.detach().argmax(-1) == tokens[mask]).float().mean()
        return loss, {"token_accuracy": accuracy}

    def draw_context(self, tokens: Int[Tensor, "B T N"], actions: Float[Tensor, "B T-1 L"]) -> Int[Tensor, "B T N"]:
        """What is shown of `tokens` where they are not masked: with mistakes, if the configuration asks for them.

        The mistakes are not predicted: sampling never revises a token, and the loss stays comparable.
        """
        c = self.config
        if c.self_context:
            own = torch.rand(len(tokens), device=tokens.device) < c.self_context
            if own.any():
                tokens = tokens.clone()
                tokens[own] = self.guessed(tokens[own], actions[own])
        return corrupted(tokens, c.context_noise, self.head.weight) if c.context_noise else tokens

    @torch.no_grad()
    def guessed(self, tokens: Int[Tensor, "B T N"], actions: Float[Tensor, "B T-1 L"]) -> Int[Tensor, "B T N"]:
        """`tokens` with those of a new mask drawn by the model itself, all at once."""
        mask = self.draw_mask(tokens)
        logits = self.head(self.filled(tokens, mask, shift_to_next_frame(actions))[mask]).float()
        # One draw without MaskGIT's choice of the confident: above 1 it would be noise.
        return tokens.masked_scatter(mask, sampled(logits, min(1.0, self.config.temperature)))

    def draw_mask(self, tokens: Int[Tensor, "B T N"]) -> Bool[Tensor, "B T N"]:
        low = self.config.min_mask_rate
        rate = low + (1 - low) * rand_by_clip(len(tokens), 1, 1, device=tokens.device)
        mask = rand_by_clip(*tokens.shape, device=tokens.device) < rate
        mask[:, 0] = False
        return mask

    def filled(
        self, tokens: Int[Tensor, "B T N"], mask: Bool[Tensor, "B T N"], actions: Float[Tensor, "B T L"]
    ) -> Float[Tensor, "B T N D"]:
        """What the head reads where `mask` hides tokens, in training: all frames at once, with `config.past`."""
        masked, before = tokens.masked_fill(mask, self.mask_token), self.a_frame_earlier(tokens)
        if self.config.past == "masked":
            return self.hidden(masked, actions, None, before, keep=False)[0]
        if self.transformer.checkpoint_activations and torch.is_grad_enabled():
            raise UserError(
                "--dynamics.past whole cannot be trained with --checkpoint-activations; leave one of them out"
            )
        _, keys_values = self.hidden(tokens, actions, None)
        past = Past(0, [EarlierFrames(*block) for block in keys_values])
        return self.hidden(masked, actions, past, before, keep=False)[0]

    def a_frame_earlier(self, tokens: Int[Tensor, "B T N"]) -> Int[Tensor, "B T N"]:
        """What stood where each token stands, a frame before; of the first frame nobody knows."""
        return torch.cat([torch.full_like(tokens[:, :1], self.mask_token), tokens[:, :-1]], dim=1)

    def logits(self, tokens: Int[Tensor, "B T N"], actions: Float[Tensor, "B T L"]) -> Float[Tensor, "B T N V"]:
        """Entry t of `actions` is the action that led to frame t (zeros for the first frame of the window)."""
        return self.head(self.hidden(tokens, actions, None, keep=False)[0])

    def hidden(
        self,
        tokens: Int[Tensor, "B T N"],
        actions: Float[Tensor, "B T L"],
        past: Past | None,
        before: Int[Tensor, "B T N"] | None = None,
        keep: bool = True,
    ) -> tuple[Float[Tensor, "B T N D"], list[KeyValue]]:
        """What the head reads, for frames that follow those in `past`, and (`keep`) these frames' keys and values.

        before: the frames before each of these; without it they are taken from `tokens`, whose first has none.
        """
        x = self.embed(tokens)
        if self.before_in is not None:
            x = x + self.before_in(self.embed(self.a_frame_earlier(tokens) if before is None else before))
        return self.transformer.forward_after(x, self.action_in(actions), past, keep)
