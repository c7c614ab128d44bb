"""The latent action model (Genie section 2.1): which of K codes explains the step from one frame to the next?

ALIGNMENT, defined here and nowhere else: the latent action a_t, t = 0 .. T-2, is what happened from frame t to
frame t+1. It is read from frames 0 .. t+1. Whatever generates frame t+1 receives a_t.
"""

from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from genie_robotics.codebook import Codebook, CodebookConfig
from genie_robotics.patches import num_patches, patchify, to_unit, unpatchify
from genie_robotics.st_transformer import ACTION_INPUTS, STTransformer
from genie_robotics.video_tokenizer import Logs, motion_weights


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
    """See genie_robotics.video_tokenizer.motion_weights."""

    def __post_init__(self) -> None:
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


class LatentActionModel(nn.Module):
    def __init__(self, config: LatentActionConfig):
        super().__init__()
        self.config = c = config
        self.num_patches = num_patches(c.image_size, c.patch)
        pixels = 3 * c.patch**2
        self.encoder_in = nn.Linear(pixels * (2 if c.see_change or not c.encoder_history else 1), c.width)
        self.encoder = STTransformer(
            c.width, c.encoder_blocks, c.heads, self.num_patches, c.clip_length, temporal=c.encoder_history
        )
        self.pool = AttentionPool(c.width, c.heads)
        self.to_latent = nn.Linear(c.width, c.codebook.latent_dim)
        self.codebook = Codebook(c.codebook)
        self.from_latent = nn.Linear(c.codebook.latent_dim, c.width)
        self.decoder_in = nn.Linear(pixels, c.width)
        self.decoder = STTransformer(
            c.width,
            c.decoder_blocks,
            c.heads,
            self.num_patches,
            c.clip_length,
            temporal=c.decoder_history,
            action_input=c.action_input,
        )
        self.patch_out = nn.Linear(c.width, pixels)
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

        `error_share` in the logs is the squared error over that of repeating the last frame: 1 means that the
        action explains nothing yet. With `predict=False` the loss is the codebook's alone: something else must then
        teach the actions.
        """
        frames = to_unit(batch)
        actions, _, loss = self.codebook(self.latents(frames))
        logs = self.codebook.logs()
        if not predict:
            return actions, loss, logs
        prediction = self.predict(frames[:, :-1], actions)
        error = (prediction - frames[:, 1:]).square()
        weights = motion_weights(frames, self.config.motion_weight)
        weights = weights[:, 1:] if isinstance(weights, Tensor) else weights
        still = (frames[:, 1:] - frames[:, :-1]).square().mean().clamp_min(1e-6)
        # Relative to copying the last frame: the loss then has one scale for every camera and gap.
        loss = (error * weights).mean() / still + loss
        return actions, loss, {"error_share": error.detach().mean() / still} | logs

    def decoder_parts(self) -> nn.ModuleList:
        """What serves prediction alone, and is thrown away after training (Genie section 2.1)."""
        return nn.ModuleList([self.from_latent, self.decoder_in, self.decoder, self.patch_out])

    def latents(self, frames: Float[Tensor, "B T H W 3"]) -> Float[Tensor, "B T-1 L"]:
        """Latent actions before quantisation; entry t is read from frames 0 .. t+1."""
        patches = patchify(frames - 0.5, self.config.patch)
        before = torch.cat([patches[:, :1], patches[:, :-1]], dim=1)
        if self.config.see_change:
            patches = torch.cat([patches, 2 * (patches - before)], dim=-1)
        elif not self.config.encoder_history:
            patches = torch.cat([patches, before], dim=-1)
        x = self.encoder(self.encoder_in(patches))
        return self.to_latent(self.pool(x))[:, 1:]

    def predict(
        self, frames: Float[Tensor, "B T H W 3"], actions: Float[Tensor, "B T L"]
    ) -> Float[Tensor, "B T H W 3"]:
        """Entry t predicts frame t+1 from frames 0 .. t (or t alone) and a_t."""
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
