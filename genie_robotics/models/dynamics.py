"""The dynamics model: a MaskGIT over the tokenizer's tokens, conditioned on latent actions (Genie section 2.1).

Frame t+1 receives a_t (latent_action.py defines the alignment).
"""

from dataclasses import dataclass
from typing import ClassVar, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from genie_robotics.models.distributed import mean_over_processes, rand_per_clip
from genie_robotics.models.latent_action import shift_to_next_frame
from genie_robotics.models.layers.cache import TemporalCache
from genie_robotics.models.layers.conditioning import ActionInput, check_action_input
from genie_robotics.models.layers.st_transformer import STTransformer
from genie_robotics.models.losses import Logs
from genie_robotics.models.sampling import OrderName


@dataclass
class DynamicsConfig:
    """Sizes of the dynamics model, and how it is sampled."""

    GROUP: ClassVar[str] = "advanced: dynamics"  # heading in --help

    num_patches: int = 256
    """Tokens N of a frame; follows from the tokenizer."""
    num_tokens: int = 1024
    """Number V of the tokenizer's codes; follows from the tokenizer."""
    action_dim: int = 32
    """Width of a latent action; follows from the latent action model."""
    context_dim: int = 0
    """Numbers per patch that each token is read with, besides tokens; follows from the tokenizer."""
    clip_length: int = 16
    """Frames of a clip."""
    width: int = 512
    """Width."""
    num_blocks: int = 6
    """ST blocks."""
    num_heads: int = 8
    """Attention heads."""
    head_dim: int | None = None
    """Width of a head; width / num_heads unless given. The paper prints 64 or 128 (tables 10 to 12)."""
    action_input: ActionInput = "add"
    """How a_t enters frame t+1: added to every token (paper), as a token before them, or by adaLN in every block."""
    min_mask_rate: float = 0.5
    """Mask rates are drawn uniformly from [min_mask_rate, 1], one per clip."""
    maskgit_steps: int = 25
    """Sampling steps per frame (paper: 25)."""
    temperature: float = 2.0
    """Sampling temperature (paper: 2)."""
    order: OrderName = "confidence"
    """Order in which a frame's tokens are filled: the most confident first (paper), or a Halton sequence, which needs
    fewer steps."""
    prev_frame_tokens: bool = False
    """Each token's embedding includes the token at its patch in the previous frame. Without it (paper) the previous
    frame arrives with the first temporal layer."""

    def __post_init__(self) -> None:
        check_action_input(self.action_input)
        if self.order not in get_args(OrderName):
            raise ValueError(f"order must be one of {', '.join(get_args(OrderName))}, got {self.order!r}")


@dataclass
class DynamicsBatch:
    """Tokens (B, T, N) and the latent actions between frames (B, T-1, L)."""

    tokens: Tensor
    actions: Tensor
    grad_to_actions: bool = False
    """Passes the loss's gradient to the actions; Genie does not."""
    context: Tensor | None = None
    """Input beside the tokens (B, T, N, C), if the tokenizer gives a context."""


class Dynamics(nn.Module):
    """Predicts masked tokens of frames from the frames before and the latent actions.

    Tokens of a tokenizer with a reference say what has changed, not what is there. So each token is read with its patch
    of the frame before, as it was shown, and of the reference, which stays in view while the window of frames slides.
    """

    def __init__(self, config: DynamicsConfig):
        super().__init__()
        self.config = c = config
        self.mask_token = c.num_tokens
        self.embed = nn.Embedding(c.num_tokens + 1, c.width)
        nn.init.normal_(self.embed.weight, std=0.02)
        self.prev_frame_in = nn.Linear(c.width, c.width, bias=False) if c.prev_frame_tokens else None
        self.context_in = nn.Linear(c.context_dim, c.width) if c.context_dim else None
        self.action_in = nn.Linear(c.action_dim, c.width)
        self.transformer = STTransformer(
            c.width,
            c.num_blocks,
            c.num_heads,
            c.num_patches,
            c.clip_length,
            head_dim=c.head_dim,
            action_input=c.action_input,
        )
        self.head = nn.Linear(c.width, c.num_tokens)

    def forward(self, batch: DynamicsBatch) -> tuple[Float[Tensor, ""], Logs]:
        """Cross-entropy of the masked tokens of frames 1 .. T-1; frame 0 is never masked."""
        tokens = batch.tokens
        actions = batch.actions if batch.grad_to_actions else batch.actions.detach()
        mask = self.draw_mask(tokens)
        x = self.hidden_where_masked(tokens, mask, shift_to_next_frame(actions), batch.context)
        # All tokens of these frames, masked or not: to choose some would make a GPU tell the CPU how many there are.
        logits, tokens, mask = self.head(x[:, 1:]).flatten(0, 2), tokens[:, 1:].flatten(), mask[:, 1:].flatten()
        error = F.cross_entropy(logits.float(), tokens, reduction="none") * mask
        # Relative to the whole batch: several processes have not masked equally many.
        loss = error.sum() / mean_over_processes(mask.sum().float())
        with torch.no_grad():
            hit = logits.gather(1, tokens.unsqueeze(1))[:, 0] >= logits.amax(-1)
            accuracy = (hit & mask).sum() / mask.sum()
        return loss, {"token_accuracy": accuracy}

    def draw_mask(self, tokens: Int[Tensor, "B T N"]) -> Bool[Tensor, "B T N"]:
        """A random mask with one rate per clip; frame 0 stays unmasked."""
        low = self.config.min_mask_rate
        rate = low + (1 - low) * rand_per_clip(len(tokens), 1, 1, device=tokens.device)
        mask = rand_per_clip(*tokens.shape, device=tokens.device) < rate
        mask[:, 0] = False
        return mask

    def hidden_where_masked(
        self,
        tokens: Int[Tensor, "B T N"],
        mask: Bool[Tensor, "B T N"],
        actions: Float[Tensor, "B T L"],
        context: Float[Tensor, "B T N C"] | None = None,
    ) -> Float[Tensor, "B T N D"]:
        """The head's input when `mask` hides tokens; the previous frame of each is not masked."""
        masked = tokens.masked_fill(mask, self.mask_token)
        return self.hidden(masked, actions, context, previous=self.previous_tokens(tokens))

    def previous_tokens(self, tokens: Int[Tensor, "B T N"]) -> Int[Tensor, "B T N"]:
        """The token of each patch one frame earlier; the mask token for the first frame."""
        return torch.cat([torch.full_like(tokens[:, :1], self.mask_token), tokens[:, :-1]], dim=1)

    def logits(
        self,
        tokens: Int[Tensor, "B T N"],
        actions: Float[Tensor, "B T L"],
        context: Float[Tensor, "B T N C"] | None = None,
    ) -> Float[Tensor, "B T N V"]:
        """Entry t of `actions` is the action that led to frame t (zeros for the first frame of the window)."""
        return self.head(self.hidden(tokens, actions, context))

    def hidden(
        self,
        tokens: Int[Tensor, "B T N"],
        actions: Float[Tensor, "B T L"],
        context: Float[Tensor, "B T N C"] | None = None,
        cache: TemporalCache | None = None,
        previous: Int[Tensor, "B T N"] | None = None,
    ) -> Float[Tensor, "B T N D"]:
        """The head's input.

        context: what the tokenizer gives to be read beside the tokens.
        cache: the frames follow those in it, and their keys and values are written behind it.
        previous: tokens of the frame before each; by default taken from `tokens`, whose first frame has none.
        """
        x = self.embed(tokens)
        if self.prev_frame_in is not None:
            x = x + self.prev_frame_in(self.embed(self.previous_tokens(tokens) if previous is None else previous))
        if self.context_in is not None:
            x = x + self.context_in(context)
        return self.transformer(x, self.action_in(actions), cache)
