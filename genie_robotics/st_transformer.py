"""The spatiotemporal transformer of all three components (Genie section 2, figure 4).

A block is spatial attention inside each frame, causal temporal attention along each patch, and ONE feed-forward
after both. Cost is linear in the number of frames. Letters: B batch, T frames, N patches of a frame, D width.
"""

from dataclasses import dataclass, field

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from genie_robotics.attention import KeyValue, SelfAttention


@dataclass
class TemporalCache:
    """Temporal keys and values of past frames, one pair a block, each (B*N, heads, T, head_dim).

    Past frames never depend on later ones, so these need computing once. The tensors are never written to: a step
    makes a new cache, so that forks share their past.
    """

    blocks: list[KeyValue] = field(default_factory=list)

    @property
    def num_frames(self) -> int:
        return self.blocks[0][0].shape[2] if self.blocks else 0


class STBlock(nn.Module):
    """Spatial attention, causal temporal attention, feed-forward; each pre-normalised with a residual.

    `temporal=False` leaves the temporal layer out: frames are then independent (a decoder without history).
    `modulated=True` lets a condition (one vector a frame) scale and shift what each layer reads (adaLN); it starts
    as the identity.
    """

    def __init__(
        self, width: int, num_heads: int, *, ffw_factor: int = 4, temporal: bool = True, modulated: bool = False
    ):
        super().__init__()
        self.spatial_norm = nn.LayerNorm(width)
        self.spatial = SelfAttention(width, num_heads, causal=False)
        self.temporal = SelfAttention(width, num_heads, causal=True) if temporal else None
        self.temporal_norm = nn.LayerNorm(width) if temporal else None
        self.ffw_norm = nn.LayerNorm(width)
        self.ffw = nn.Sequential(nn.Linear(width, ffw_factor * width), nn.GELU(), nn.Linear(ffw_factor * width, width))
        self.modulation = nn.Linear(width, 6 * width) if modulated else None
        if self.modulation is not None:
            nn.init.zeros_(self.modulation.weight)
            nn.init.zeros_(self.modulation.bias)

    def forward(
        self,
        x: Float[Tensor, "B T N D"],
        condition: Float[Tensor, "B T D"] | None = None,
        past: KeyValue | None = None,
    ) -> tuple[Float[Tensor, "B T N D"], KeyValue | None]:
        batch = x.shape[0]
        if self.modulation is not None and condition is not None:
            scales = self.modulation(condition).unsqueeze(2).chunk(6, dim=-1)
        else:
            scales = (None,) * 6
        y = rearrange(modulate(low(self.spatial_norm(x)), scales[0], scales[1]), "b t n d -> (b t) n d")
        x = x + rearrange(self.spatial(y)[0], "(b t) n d -> b t n d", b=batch)
        keys_values = None
        if self.temporal is not None and self.temporal_norm is not None:
            y = rearrange(modulate(low(self.temporal_norm(x)), scales[2], scales[3]), "b t n d -> (b n) t d")
            y, keys_values = self.temporal(y, past)
            x = x + rearrange(y, "(b n) t d -> b t n d", b=batch)
        return x + self.ffw(modulate(low(self.ffw_norm(x)), scales[4], scales[5])), keys_values


def low(x: Tensor) -> Tensor:
    """Casts to autocast's type now rather than in the next matrix product: what lies between reads half the bytes."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


def modulate(x: Tensor, scale: Tensor | None, shift: Tensor | None) -> Tensor:
    return x if scale is None or shift is None else x * (1 + scale) + shift


class STTransformer(nn.Module):
    """A stack of ST blocks with learned positions in space and time, added once at the input.

    Args:
        num_patches, max_frames: the largest N and T; fewer frames use the first positions.
    """

    def __init__(
        self,
        width: int,
        num_blocks: int,
        num_heads: int,
        num_patches: int,
        max_frames: int,
        *,
        ffw_factor: int = 4,
        temporal: bool = True,
        modulated: bool = False,
    ):
        super().__init__()
        self.max_frames = max_frames
        self.space = nn.Parameter(0.02 * torch.randn(num_patches, width))
        self.time = nn.Parameter(0.02 * torch.randn(max_frames, width)) if temporal else None
        self.blocks = nn.ModuleList(
            STBlock(width, num_heads, ffw_factor=ffw_factor, temporal=temporal, modulated=modulated)
            for _ in range(num_blocks)
        )
        self.norm = nn.LayerNorm(width)
        self.checkpoint_activations = False

    def forward(
        self, x: Float[Tensor, "B T N D"], condition: Float[Tensor, "B T D"] | None = None
    ) -> Float[Tensor, "B T N D"]:
        if self.checkpoint_activations and self.training and torch.is_grad_enabled():
            x = self.add_positions(x, 0)
            for block in self.blocks:
                x = torch.utils.checkpoint.checkpoint(lambda y, b=block: b(y, condition)[0], x, use_reentrant=False)
            return self.norm(x)
        return self.forward_cached(x, condition, None)[0]

    def forward_cached(
        self,
        x: Float[Tensor, "B T N D"],
        condition: Float[Tensor, "B T D"] | None,
        cache: TemporalCache | None,
    ) -> tuple[Float[Tensor, "B T N D"], TemporalCache]:
        """Frames x that follow those of `cache`; returns the output for x and the cache that includes x."""
        start = cache.num_frames if cache else 0
        if self.time is not None and start + x.shape[1] > self.max_frames:
            raise ValueError(f"{start + x.shape[1]} frames do not fit a transformer of {self.max_frames} frames")
        x = self.add_positions(x, start)
        new: list[KeyValue] = []
        for i, block in enumerate(self.blocks):
            x, keys_values = block(x, condition, cache.blocks[i] if cache and cache.blocks else None)
            if keys_values is not None:
                new.append(keys_values)
        return self.norm(x), TemporalCache(new)

    def add_positions(self, x: Tensor, start: int) -> Tensor:
        x = x + self.space
        return x if self.time is None else x + self.time[start : start + x.shape[1], None]
