"""The spatiotemporal transformer of all three components (Genie section 2, figure 4).

A block is spatial attention inside each frame, causal temporal attention along each patch, and ONE feed-forward after
both. Its cost is linear in the number of frames. Letters: B batch, T frames, N patches of a frame, D width.
"""

from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from genie_robotics.models.layers.attention import KeyValue, SelfAttention
from genie_robotics.models.layers.conditioning import CONDITIONINGS, ActionInput

FFW_FACTOR = 4  # width of the feed-forward layer, in widths


@dataclass(frozen=True)
class TemporalCache:
    """Temporal keys and values of past frames, as segment -> block -> (B*N, num_heads, t, head_dim).

    Past frames never depend on later ones, so their keys and values are computed once. A cache is never changed:
    `extended` returns a new one that shares the earlier segments, so that forks and undo copy nothing.
    """

    segments: tuple[tuple[KeyValue, ...], ...] = ()

    @property
    def num_frames(self) -> int:
        return sum(segment[0][0].shape[2] for segment in self.segments if segment)

    def extended(self, segment: list[KeyValue]) -> "TemporalCache":
        """The cache with the keys and values of more frames."""
        return TemporalCache((*self.segments, tuple(segment)))

    def repeated(self, times: int) -> "TemporalCache":
        """The cache of `times` dreams with this past."""
        return TemporalCache(
            tuple(tuple((k.repeat(times, 1, 1, 1), v.repeat(times, 1, 1, 1)) for k, v in s) for s in self.segments)
        )

    def gather(self) -> "Past":
        """All segments concatenated, for the time in which one frame is generated."""
        blocks = [
            (torch.cat([k for k, _ in block], dim=2), torch.cat([v for _, v in block], dim=2))
            for block in zip(*self.segments, strict=True)
        ]
        return Past(self.num_frames, blocks)


@dataclass(frozen=True)
class Past:
    """Keys and values of the earlier frames: one pair per block, each (B*N, num_heads, num_frames, head_dim)."""

    num_frames: int
    blocks: list[KeyValue]


class STBlock(nn.Module):
    """Spatial attention, causal temporal attention, feed-forward; each pre-normalized, with a residual.

    temporal: False leaves the temporal layer out, so that frames are independent.
    adaln: a condition (one vector per frame) scales and shifts the input of each layer; starts as the identity.
    """

    def __init__(
        self, width: int, num_heads: int, *, head_dim: int | None = None, temporal: bool = True, adaln: bool = False
    ):
        super().__init__()
        self.spatial_norm = nn.LayerNorm(width)
        self.spatial = SelfAttention(width, num_heads, "space", head_dim)
        self.temporal = SelfAttention(width, num_heads, "time", head_dim) if temporal else None
        self.temporal_norm = nn.LayerNorm(width) if temporal else None
        self.ffw_norm = nn.LayerNorm(width)
        self.ffw = nn.Sequential(nn.Linear(width, FFW_FACTOR * width), nn.GELU(), nn.Linear(FFW_FACTOR * width, width))
        self.modulation = nn.Linear(width, 6 * width) if adaln else None
        if self.modulation is not None:
            nn.init.zeros_(self.modulation.weight)
            nn.init.zeros_(self.modulation.bias)

    def layers(self) -> list[nn.Module]:
        """The layers that hold nearly all parameters of a block."""
        return [layer for layer in (self.spatial, self.temporal, self.ffw, self.modulation) if layer is not None]

    def forward(
        self,
        x: Float[Tensor, "B T N D"],
        condition: Float[Tensor, "B T D"] | None = None,
        past: KeyValue | None = None,
    ) -> tuple[Float[Tensor, "B T N D"], KeyValue | None]:
        """Returns the output, and the keys and values of `x` that later frames attend to."""
        if self.modulation is not None and condition is not None:
            scales = self.modulation(condition).unsqueeze(2).chunk(6, dim=-1)
        else:
            scales = (None,) * 6
        y, _ = self.spatial(modulate(to_autocast(self.spatial_norm(x)), scales[0], scales[1]))
        x = x + y
        keys_values = None
        if self.temporal is not None and self.temporal_norm is not None:
            y, keys_values = self.temporal(modulate(to_autocast(self.temporal_norm(x)), scales[2], scales[3]), past)
            x = x + y
        return x + self.ffw(modulate(to_autocast(self.ffw_norm(x)), scales[4], scales[5])), keys_values


def to_autocast(x: Tensor) -> Tensor:
    """Casts to autocast's type before the next matrix product does: operations in between read half the bytes."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


def modulate(x: Tensor, scale: Tensor | None, shift: Tensor | None) -> Tensor:
    return x if scale is None or shift is None else x * (1 + scale) + shift


def output_of(
    block: nn.Module, x: Float[Tensor, "B T N D"], condition: Float[Tensor, "B T D"] | None, past: KeyValue | None
) -> Float[Tensor, "B T N D"]:
    return block(x, condition, past)[0]


class STTransformer(nn.Module):
    """A stack of ST blocks with learned positions in space and time, added once at the input.

    Args:
        num_patches, max_frames: the largest N and T; fewer frames use the first positions.
        head_dim: width of each head; width / num_heads unless given.
        temporal: False: frames are independent, also of their place in the clip.
        action_input: how the condition of `forward` enters, one of CONDITIONINGS; None: it has no condition.
    """

    def __init__(
        self,
        width: int,
        num_blocks: int,
        num_heads: int,
        num_patches: int,
        max_frames: int,
        *,
        head_dim: int | None = None,
        temporal: bool = True,
        action_input: ActionInput | None = None,
    ):
        super().__init__()
        self.max_frames = max_frames
        self.conditioning = CONDITIONINGS[action_input] if action_input else None
        self.num_action_tokens = self.conditioning.num_tokens if self.conditioning else 0
        in_blocks = self.conditioning is not None and self.conditioning.in_blocks
        self.space = nn.Parameter(0.02 * torch.randn(num_patches + self.num_action_tokens, width))
        self.time = nn.Parameter(0.02 * torch.randn(max_frames, width)) if temporal else None
        self.blocks = nn.ModuleList(
            STBlock(width, num_heads, head_dim=head_dim, temporal=temporal, adaln=in_blocks) for _ in range(num_blocks)
        )
        self.norm = nn.LayerNorm(width)
        self.checkpoint_activations = False
        """Keeps only the blocks' inputs for the backward pass and recomputes the other activations."""

    def forward(
        self, x: Float[Tensor, "B T N D"], condition: Float[Tensor, "B T D"] | None = None
    ) -> Float[Tensor, "B T N D"]:
        return self.forward_with_cache(x, condition, None, keep=False)[0]

    def forward_with_cache(
        self,
        x: Float[Tensor, "B T N D"],
        condition: Float[Tensor, "B T D"] | None,
        past: Past | None,
        keep: bool = True,
    ) -> tuple[Float[Tensor, "B T N D"], list[KeyValue]]:
        """The output for frames `x` that follow those of `past`, and x's own temporal keys and values.

        keep: False returns no keys and values, and holds none in memory.
        """
        start = past.num_frames if past else 0
        if self.time is not None and start + x.shape[1] > self.max_frames:
            raise ValueError(f"the transformer takes at most {self.max_frames} frames, got {start + x.shape[1]}")
        if condition is not None and self.conditioning is not None:
            x = self.conditioning.enter(x, condition)
        x = x + self.space
        if self.time is not None:
            x = x + self.time[start : start + x.shape[1], None]
        if self.conditioning is None or not self.conditioning.in_blocks:
            condition = None
        new: list[KeyValue] = []
        for i, block in enumerate(self.blocks):
            earlier = past.blocks[i] if past and past.blocks else None
            compute = partial(block if keep else partial(output_of, block), past=earlier)
            if self.checkpoint_activations and self.training and torch.is_grad_enabled():
                found = checkpoint(compute, x, condition, use_reentrant=False)
            else:
                found = compute(x, condition)
            x, keys_values = found if keep else (found, None)
            if keys_values is not None:
                new.append(keys_values)
        return self.norm(x[:, :, self.num_action_tokens :]), new
