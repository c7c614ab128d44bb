"""The latent action model (Genie section 2.1): which of K codes explains the step from one frame to the next?

ALIGNMENT, defined here and nowhere else: the latent action a_t, t = 0 .. T-2, is what happened from frame t to
frame t+1. It is read from frames 0 .. t+1. Whatever generates frame t+1 receives a_t.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from genie_robotics.models.distributed import mean_over_processes
from genie_robotics.models.frame_space import TokenInput
from genie_robotics.models.layers.patches import num_patches, patchify, to_unit, unpatchify
from genie_robotics.models.layers.st_transformer import ACTION_INPUTS, STTransformer
from genie_robotics.models.quantizers.codebook import Codebook
from genie_robotics.models.quantizers.config import CodebookConfig
from genie_robotics.models.video_tokenizer import Logs, VideoTokenizer, motion_weights


@dataclass
class LatentActionConfig:
    image_size: tuple[int, int] = (64, 64)
    clip_length: int = 16
    patch: int = 16
    """Genie: 16. Small moving parts need smaller patches (docs/LOG.md)."""
    width: int = 512
    encoder_blocks: int = 4
    decoder_blocks: int = 4
    heads: int = 8
    codebook: CodebookConfig = field(default_factory=lambda: CodebookConfig(num_codes=8))
    see_change: bool = True
    """The encoder sees the change x_t - x_{t-1} beside the frame x_t."""
    encoder_history: bool = True
    """The encoder sees all frames up to t+1 (paper); otherwise only the two of the step."""
    decoder_history: bool = True
    """The decoder sees all frames up to t (paper); otherwise only frame t, so that a_t must carry the motion."""
    action_input: Literal["add", "prepend", "modulate"] = "add"
    """How a_t enters the decoder: 'add' to every patch (paper), 'prepend' a token, or 'modulate' every block."""
    predict_change: bool = True
    """The decoder predicts x_{t+1} - x_t instead of x_{t+1} through a sigmoid (paper)."""
    motion_weight: float = 0.0
    """See genie_robotics.models.video_tokenizer.motion_weights."""
    input: Literal["pixels", "tokens"] = "pixels"
    """'pixels' (paper), or 'tokens' of the tokenizer, read and predicted (the paper's ablation, table 2; see
    genie_robotics.models.frame_space). With tokens `patch` is the tokenizer's, `see_change` is a change of code
    vectors, `predict_change` starts the prediction at the token before, and there is no motion_weight."""
    pool: Literal["attention", "mean"] = "attention"
    """How the encoder's patches become one vector a frame: read by a learned query, or their mean."""
    debias: bool = False
    """Subtracts the latent of the unchanged pair (x_t, x_t), so that what a scene looks like says nothing; only
    where the encoder sees pairs (encoder_history False). Costs a second pass of the encoder."""

    def __post_init__(self) -> None:
        if self.input not in ("pixels", "tokens"):
            raise ValueError(f"input must be pixels or tokens, not {self.input!r}")
        if self.pool not in ("attention", "mean"):
            raise ValueError(f"pool must be attention or mean, not {self.pool!r}")
        if self.input == "tokens" and self.motion_weight:
            raise ValueError("motion_weight is for pixels; leave it 0 where input is tokens")
        if self.debias and self.encoder_history:
            raise ValueError("debias needs encoder_history False: with a history no pair of frames is an unchanged one")
        if self.action_input not in ACTION_INPUTS:
            raise ValueError(f"action_input must be one of {', '.join(ACTION_INPUTS)}, not {self.action_input!r}")


class AttentionPool(nn.Module):
    """One learned query reads a frame's patches: a small moving gripper is not averaged away."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query = nn.Parameter(0.02 * torch.randn(width))
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "B T N D"]) -> Float[Tensor, "B T D"]:
        k, v = rearrange(self.key_value(x), "b t n (two h d) -> two b t h n d", two=2, h=self.heads)
        q = rearrange(self.query, "(h d) -> h d 1", h=self.heads).to(k.dtype)
        weights = ((k @ q) * k.shape[-1] ** -0.5).softmax(dim=-2).to(v.dtype)
        return self.out(rearrange((weights * v).sum(-2), "b t h d -> b t (h d)"))


class MeanPool(nn.Module):
    def forward(self, x: Float[Tensor, "B T N D"]) -> Float[Tensor, "B T D"]:
        return x.mean(2)


def mean_change(frames: Float[Tensor, "B T H W 3"]) -> Float[Tensor, ""]:
    """The squared error of repeating the last frame."""
    return (frames[:, 1:] - frames[:, :-1]).square().mean()


class LatentActionModel(nn.Module):
    """P numbers a patch are read (pixels, or a token's vector) and Q predicted (pixels, or a logit for each code).

    Args:
        tokenizer: read by a model of input 'tokens'; it stays its owner's, and is neither trained nor stored here.
    """

    def __init__(self, config: LatentActionConfig, tokenizer: VideoTokenizer | None = None):
        super().__init__()
        self.config = c = config
        self.tokens: TokenInput | None = None
        self.change_of_step: Tensor | None = None
        if c.input == "tokens":
            if tokenizer is None:
                raise ValueError("a latent action model that reads tokens needs the tokenizer")
            self.tokens = TokenInput(tokenizer)
            self.num_patches = self.tokens.num_patches
            num_in, num_out = self.tokens.width, self.tokens.num_codes
        else:
            self.num_patches = num_patches(c.image_size, c.patch)
            num_in = num_out = 3 * c.patch**2
        self.encoder_in = nn.Linear(num_in * (2 if c.see_change or not c.encoder_history else 1), c.width)
        self.encoder = STTransformer(
            c.width, c.encoder_blocks, c.heads, self.num_patches, c.clip_length, temporal=c.encoder_history
        )
        self.pool = AttentionPool(c.width, c.heads) if c.pool == "attention" else MeanPool()
        self.to_latent = nn.Linear(c.width, c.codebook.latent_dim)
        self.codebook = Codebook(c.codebook)
        self.from_latent = nn.Linear(c.codebook.latent_dim, c.width)
        self.decoder_in = nn.Linear(num_in, c.width)
        self.decoder = STTransformer(
            c.width,
            c.decoder_blocks,
            c.heads,
            self.num_patches,
            c.clip_length,
            temporal=c.decoder_history,
            action_input=c.action_input,
        )
        self.patch_out = nn.Linear(c.width, num_out)
        if c.predict_change:
            nn.init.zeros_(self.patch_out.weight)  # starts at "nothing moves"
            nn.init.zeros_(self.patch_out.bias)

    def forward(self, batch: UInt8[Tensor, "B T H W 3"]) -> tuple[Float[Tensor, ""], Logs]:
        """Loss of predicting every next frame from the past and the quantised latent action."""
        _, loss, logs = self.explain(batch)
        return loss, logs

    def explain(
        self, batch: UInt8[Tensor, "B T H W 3"], predict: bool = True
    ) -> tuple[Float[Tensor, "B T-1 L"], Float[Tensor, ""], Logs]:
        """Quantised latent actions (straight-through), the loss, and the logs.

        `error_share` in the logs is the squared error (of tokens: the number of wrong ones) over that of repeating
        the last frame: 1 means that the action explains nothing yet. With `predict=False` the loss is the codebook's
        alone: something else must then teach the actions.
        """
        frames = to_unit(batch)
        tokens = self.tokens.read(frames) if self.tokens is not None else None
        seen = self.look(frames) if tokens is None else self.vectors(tokens)
        actions, _, loss = self.codebook(self.latents_of(seen))
        logs = self.codebook.logs()
        if not predict:
            return actions, loss, logs
        if tokens is not None:
            token_loss, share = self.token_error(tokens, actions)
            return actions, token_loss + loss, {"error_share": share} | logs
        prediction = self.predict(frames[:, :-1], actions)
        error = (prediction - frames[:, 1:]).square()
        weights = motion_weights(frames, self.config.motion_weight)
        weights = weights[:, 1:] if isinstance(weights, Tensor) else weights
        still = mean_change(frames) if self.change_of_step is None else self.change_of_step
        still = mean_over_processes(still).clamp_min(1e-6)
        # Relative to copying the last frame: the loss then has one scale for every camera and gap.
        loss = (error * weights).mean() / still + loss
        return actions, loss, {"error_share": error.detach().mean() / still} | logs

    @torch.no_grad()
    def look_ahead(self, parts: Sequence[UInt8[Tensor, "B T H W 3"]]) -> None:
        """The parts of the clips of a training step, before the first is taken: the loss is relative to how much all of
        them change. Of one part: nothing is to be known before."""
        changes = [mean_change(to_unit(part)) for part in parts] if len(parts) > 1 else []
        self.change_of_step = torch.stack(changes).mean() if changes else None

    def decoder_parts(self) -> nn.ModuleList:
        """What serves prediction alone, and is thrown away after training (Genie section 2.1)."""
        return nn.ModuleList([self.from_latent, self.decoder_in, self.decoder, self.patch_out])

    def look(self, frames: Float[Tensor, "B T H W 3"]) -> Float[Tensor, "B T N P"]:
        """What encoder and decoder read of frames in [0, 1]."""
        if self.tokens is not None:
            return self.vectors(self.tokens.read(frames))
        return patchify(frames - 0.5, self.config.patch)

    def vectors(self, tokens: Int[Tensor, "B T N"]) -> Float[Tensor, "B T N P"]:
        assert self.tokens is not None
        return self.tokens.vectors(tokens)

    def latents(self, frames: Float[Tensor, "B T H W 3"]) -> Float[Tensor, "B T-1 L"]:
        """Latent actions before quantisation; entry t is read from frames 0 .. t+1."""
        return self.latents_of(self.look(frames))

    def latents_of(self, seen: Float[Tensor, "B T N P"]) -> Float[Tensor, "B T-1 L"]:
        before = torch.cat([seen[:, :1], seen[:, :-1]], dim=1)
        steps = self.beside(seen, before)
        if self.config.debias:  # both passes as one batch
            steps = torch.cat([steps, self.beside(before, before)])
        latents = self.to_latent(self.pool(self.encoder(self.encoder_in(steps))))[:, 1:]
        if not self.config.debias:
            return latents
        moved, unchanged = latents.chunk(2)
        return moved - unchanged

    def beside(self, seen: Float[Tensor, "B T N P"], before: Float[Tensor, "B T N P"]) -> Float[Tensor, "B T N M"]:
        """Each frame with what the encoder sees beside it: its change since `before`, or `before` itself."""
        if self.config.see_change:
            return torch.cat([seen, 2 * (seen - before)], dim=-1)
        return seen if self.config.encoder_history else torch.cat([seen, before], dim=-1)

    def token_logits(self, tokens: Int[Tensor, "B T N"], actions: Float[Tensor, "B T L"]) -> Float[Tensor, "B T N V"]:
        """Entry t: logits of frame t+1's tokens, from those of frames 0 .. t (or t alone) and a_t."""
        x = self.decoder_in(self.vectors(tokens))
        logits = self.patch_out(self.decoder(x, self.from_latent(actions))).float()
        if not self.config.predict_change:
            return logits
        # Starts at "nothing moves": even odds of the token before against all others together.
        stay = torch.full_like(tokens[..., None], math.log(logits.shape[-1]), dtype=logits.dtype)
        return logits.scatter_add(-1, tokens[..., None], stay)

    def token_error(
        self, tokens: Int[Tensor, "B T N"], actions: Float[Tensor, "B T-1 L"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Cross-entropy of the next tokens in nats, and how many are wrong over how many change."""
        logits, following = self.token_logits(tokens[:, :-1], actions), tokens[:, 1:]
        wrong = (logits.detach().argmax(-1) != following).float().mean()
        changed = (tokens[:, :-1] != following).float().mean().clamp_min(1e-3)
        return F.cross_entropy(logits.flatten(0, -2), following.flatten()), wrong / changed

    def predict(
        self, frames: Float[Tensor, "B T H W 3"], actions: Float[Tensor, "B T L"]
    ) -> Float[Tensor, "B T H W 3"]:
        """Entry t predicts frame t+1 from frames 0 .. t (or t alone) and a_t.

        From tokens: their best guesses, shown by the tokenizer as one clip; its floor is in every error then.
        """
        if self.tokens is not None:
            tokens = self.tokens.read(frames)
            following = self.token_logits(tokens, actions).argmax(-1)
            shown = self.tokens.show(torch.cat([tokens[:, :1], following], dim=1)[:, -self.config.clip_length :])
            return shown[:, -following.shape[1] :]
        x = self.decoder_in(patchify(frames - 0.5, self.config.patch))
        patches = self.patch_out(self.decoder(x, self.from_latent(actions))).float()
        out = unpatchify(patches, self.config.patch, self.config.image_size)
        return frames + out if self.config.predict_change else torch.sigmoid(out)

    def embed(self, frames: UInt8[Tensor, "B T H W 3"]) -> Float[Tensor, "B T-1 L"]:
        """Latent actions before quantisation, normalised as the codebook sees them."""
        return self.codebook.normalise(self.latents(to_unit(frames, self.encoder_in.weight.dtype)))

    def encode(self, frames: UInt8[Tensor, "B T H W 3"]) -> Int[Tensor, "B T-1"]:
        """Codes of a clip of at most `clip_length` frames."""
        return self.codebook.nearest(self.latents(to_unit(frames, self.encoder_in.weight.dtype)))


def shift_to_next_frame(actions: Float[Tensor, "B T-1 L"]) -> Float[Tensor, "B T L"]:
    """Puts a_t where frame t+1 is generated; frame 0 was caused by nothing known and gets zeros."""
    return F.pad(actions, (0, 0, 1, 0))
