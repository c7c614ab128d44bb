"""The spatiotemporal transformer of all three components (Genie section 2, figure 4).

A block is spatial attention inside each frame, causal temporal attention along each patch, and ONE feed-forward
after both. Cost is linear in the number of frames. Letters: B batch, T frames, N patches of a frame, D width.
"""

from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from genie_robotics.models.layers.attention import KeyValue, SelfAttention
from genie_robotics.models.layers.full_attention import SpaceTimeAttention

ACTION_INPUTS = ("add", "prepend", "modulate")
"""How a frame's latent action enters: added to every patch (Genie section 2.1), as a token before the frame's patches
(what the Jasmine reproduction found necessary), or by scaling and shifting what every layer reads (adaLN)."""

ATTENTIONS = ("st", "spatial", "full")
"""What a block attends to: space, then time (ST-transformer); each frame's patches alone (ViT); or, in one layer, all
patches of all frames so far (Genie's reading of C-ViViT). The last two have one attention layer where 'st' has two, and
a wider feed-forward for it (factor + 2): a block has as many parameters in each of the three, but for the norm of one
layer's queries and keys (2 head_dim). 'spatial' has no positions in time."""


@dataclass(frozen=True)
class TemporalCache:
    """Temporal keys and values of past frames, in pieces as they came: piece -> block -> (B*N, heads, t, head_dim).

    Past frames never depend on later ones, so these need computing once. Nothing is ever written to: `extended` makes
    a new cache that shares all earlier pieces, so that forks and undo copy nothing.
    """

    pieces: tuple[tuple[KeyValue, ...], ...] = ()

    @property
    def num_frames(self) -> int:
        return sum(piece[0][0].shape[2] for piece in self.pieces if piece)

    def extended(self, piece: list[KeyValue]) -> "TemporalCache":
        return TemporalCache((*self.pieces, tuple(piece)))

    def repeated(self, times: int) -> "TemporalCache":
        """The cache of so many dreams that have the same past, made of that of one."""
        return TemporalCache(
            tuple(tuple((k.repeat(times, 1, 1, 1), v.repeat(times, 1, 1, 1)) for k, v in p) for p in self.pieces)
        )

    def gather(self) -> "Past":
        """The pieces side by side, for as long as one frame is being filled; the cache itself keeps no copy."""
        blocks = [
            (torch.cat([k for k, _ in block], dim=2), torch.cat([v for _, v in block], dim=2))
            for block in zip(*self.pieces, strict=True)
        ]
        return Past(self.num_frames, blocks)


@dataclass(frozen=True)
class Past:
    """What the frames before contribute: one (keys, values) a block, each (B*N, heads, num_frames, head_dim)."""

    num_frames: int
    blocks: list[KeyValue]


class STBlock(nn.Module):
    """Spatial attention, causal temporal attention, feed-forward; each pre-normalised with a residual.

    `temporal=False` leaves the temporal layer out: frames are then independent (a decoder without history).
    `full=True` leaves it out too, and attends to all patches of all frames so far where `spatial` does to a frame's.
    `modulated=True` lets a condition (one vector a frame) scale and shift what each layer reads (adaLN); it starts
    as the identity.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        *,
        head_dim: int | None = None,
        ffw_factor: int = 4,
        temporal: bool = True,
        full: bool = False,
        modulated: bool = False,
    ):
        super().__init__()
        temporal = temporal and not full
        self.full = full
        self.spatial_norm = nn.LayerNorm(width)
        self.spatial = (
            SpaceTimeAttention(width, num_heads, head_dim)
            if full
            else SelfAttention(width, num_heads, "space", head_dim)
        )
        self.temporal = SelfAttention(width, num_heads, "time", head_dim) if temporal else None
        self.temporal_norm = nn.LayerNorm(width) if temporal else None
        self.ffw_norm = nn.LayerNorm(width)
        self.ffw = nn.Sequential(nn.Linear(width, ffw_factor * width), nn.GELU(), nn.Linear(ffw_factor * width, width))
        self.modulation = nn.Linear(width, 6 * width) if modulated else None
        if self.modulation is not None:
            nn.init.zeros_(self.modulation.weight)
            nn.init.zeros_(self.modulation.bias)

    def layers(self) -> list[nn.Module]:
        """Where nearly all of a block's parameters are."""
        return [part for part in (self.spatial, self.temporal, self.ffw, self.modulation) if part is not None]

    def forward(
        self,
        x: Float[Tensor, "B T N D"],
        condition: Float[Tensor, "B T D"] | None = None,
        past: KeyValue | None = None,
    ) -> tuple[Float[Tensor, "B T N D"], KeyValue | None]:
        """Returns the output and the keys and values of `x` that later frames attend to."""
        if self.modulation is not None and condition is not None:
            scales = self.modulation(condition).unsqueeze(2).chunk(6, dim=-1)
        else:
            scales = (None,) * 6
        y, keys_values = self.spatial(
            modulate(low(self.spatial_norm(x)), scales[0], scales[1]), past if self.full else None
        )
        x = x + y
        keys_values = keys_values if self.full else None
        if self.temporal is not None and self.temporal_norm is not None:
            y, keys_values = self.temporal(modulate(low(self.temporal_norm(x)), scales[2], scales[3]), past)
            x = x + y
        return x + self.ffw(modulate(low(self.ffw_norm(x)), scales[4], scales[5])), keys_values


def low(x: Tensor) -> Tensor:
    """Casts to autocast's type now rather than in the next matrix product: what lies between reads half the bytes."""
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
        head_dim: of each head; width / num_heads unless given.
        temporal: False: frames are independent, of their place in the clip too.
        attention: one of ATTENTIONS.
        action_input: how the condition of `forward` enters, one of ACTION_INPUTS; None: there is none.
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
        ffw_factor: int = 4,
        temporal: bool = True,
        attention: str = "st",
        action_input: str | None = None,
    ):
        super().__init__()
        if attention not in ATTENTIONS:
            raise ValueError(f"attention must be one of {', '.join(ATTENTIONS)}, not {attention!r}")
        if attention != "st":
            ffw_factor += 2
        temporal = temporal and attention != "spatial"
        full = temporal and attention == "full"
        self.max_frames = max_frames
        self.action_input = action_input
        self.num_extra = 1 if action_input == "prepend" else 0  # tokens a frame beside its patches
        self.space = nn.Parameter(0.02 * torch.randn(num_patches + self.num_extra, width))
        self.time = nn.Parameter(0.02 * torch.randn(max_frames, width)) if temporal else None
        modulated = action_input == "modulate"
        self.blocks = nn.ModuleList(
            STBlock(
                width,
                num_heads,
                head_dim=head_dim,
                ffw_factor=ffw_factor,
                temporal=temporal,
                full=full,
                modulated=modulated,
            )
            for _ in range(num_blocks)
        )
        self.norm = nn.LayerNorm(width)
        self.checkpoint_activations = False
        """Keeps only the blocks' inputs for the backward pass and computes the rest again."""

    def forward(
        self, x: Float[Tensor, "B T N D"], condition: Float[Tensor, "B T D"] | None = None
    ) -> Float[Tensor, "B T N D"]:
        return self.forward_after(x, condition, None, keep=False)[0]

    def forward_after(
        self,
        x: Float[Tensor, "B T N D"],
        condition: Float[Tensor, "B T D"] | None,
        past: Past | None,
        keep: bool = True,
    ) -> tuple[Float[Tensor, "B T N D"], list[KeyValue]]:
        """Frames x that follow those of `past`; returns the output for x and x's own temporal keys and values.

        keep: else none of these are returned, nor held in memory until the last block is done.
        """
        start = past.num_frames if past else 0
        if self.time is not None and start + x.shape[1] > self.max_frames:
            raise ValueError(f"{start + x.shape[1]} frames do not fit a transformer of {self.max_frames} frames")
        if condition is not None and self.action_input == "add":
            x = x + condition.unsqueeze(2)
        if condition is not None and self.action_input == "prepend":
            x = torch.cat([condition.unsqueeze(2).to(x.dtype), x], dim=2)
        x = x + self.space
        if self.time is not None:
            x = x + self.time[start : start + x.shape[1], None]
        condition = condition if self.action_input == "modulate" else None
        new: list[KeyValue] = []
        for i, block in enumerate(self.blocks):
            earlier = past.blocks[i] if past and past.blocks else None
            job = partial(block if keep else partial(output_of, block), past=earlier)
            if self.checkpoint_activations and self.training and torch.is_grad_enabled():
                found = checkpoint(job, x, condition, use_reentrant=False)
            else:
                found = job(x, condition)
            x, keys_values = found if keep else (found, None)
            if keys_values is not None:
                new.append(keys_values)
        return self.norm(x[:, :, self.num_extra :]), new
