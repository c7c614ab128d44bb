"""The spatiotemporal transformer of all three components (Genie section 2, figure 4).

A block is spatial attention inside each frame, causal temporal attention along each patch, and ONE feed-forward after
both. Its cost is linear in the number of frames. Letters: B batch, T frames, N patches of a frame, D width.
"""

import functools
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from genie_robotics.models.layers.attention import SelfAttention
from genie_robotics.models.layers.cache import LayerCache, TemporalCache
from genie_robotics.models.layers.conditioning import CONDITIONINGS, ActionInput

FFW_FACTOR = 4  # width of the feed-forward layer, in widths


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
        cache: LayerCache | None = None,
    ) -> Float[Tensor, "B T N D"]:
        """cache: takes the temporal keys and values of `x`, which also attends to the frames before."""
        if self.modulation is not None and condition is not None:
            scales = self.modulation(condition).unsqueeze(2).chunk(6, dim=-1)
        else:
            scales = (None,) * 6
        x = x + self.spatial(modulate(to_autocast(self.spatial_norm(x)), scales[0], scales[1]))
        if self.temporal is not None and self.temporal_norm is not None:
            x = x + self.temporal(modulate(to_autocast(self.temporal_norm(x)), scales[2], scales[3]), cache)
        return x + self.ffw(modulate(to_autocast(self.ffw_norm(x)), scales[4], scales[5]))


def to_autocast(x: Tensor) -> Tensor:
    """Casts to autocast's type before the next matrix product does: operations in between read half the bytes."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


def modulate(x: Tensor, scale: Tensor | None, shift: Tensor | None) -> Tensor:
    return x if scale is None or shift is None else torch.addcmul(shift, x, 1 + scale)


def run_blocks(
    blocks: nn.ModuleList, x: Float[Tensor, "B T N D"], condition: Float[Tensor, "B T D"] | None,
    layers: Sequence[LayerCache | None],
) -> Float[Tensor, "B T N D"]:  # fmt: skip
    """The output of the last block; layers: the cache of each."""
    for block, layer in zip(blocks, layers, strict=True):
        x = block(x, condition, layer)
    return x


@functools.cache
def run_compiled() -> Callable[..., Tensor]:
    """`run_blocks` as one program for each number and shape of blocks, and each size of batch."""
    return torch.compile(run_blocks, dynamic=False)


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
        self.head_shape = num_heads, head_dim or width // num_heads
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
        self.compile_single_frames = False
        """Runs single frames that follow a cache, as in dreams, through compiled blocks."""

    def new_cache(self, batch_size: int) -> TemporalCache:
        """An empty cache for `batch_size` dreams."""
        num_heads, head_dim = self.head_shape
        rows = batch_size * len(self.space) * num_heads
        like = to_autocast(self.space.detach()[:0])
        return TemporalCache.empty(len(self.blocks), rows, self.max_frames, head_dim, like)

    def forward(
        self,
        x: Float[Tensor, "B T N D"],
        condition: Float[Tensor, "B T D"] | None = None,
        cache: TemporalCache | None = None,
    ) -> Float[Tensor, "B T N D"]:
        """The output for frames `x`.

        cache: the frames follow those in it, and their keys and values are written behind it.
        """
        num_new, start = x.shape[1], cache.num_frames if cache else 0
        if self.time is not None and start + num_new > self.max_frames:
            raise ValueError(f"the transformer takes at most {self.max_frames} frames, got {start + num_new}")
        compiled = self.compile_single_frames and cache is not None and num_new == 1
        layers = cache.layers(num_new) if cache else [None] * len(self.blocks)
        if condition is not None and self.conditioning is not None:
            x = self.conditioning.enter(x, condition)
        x = x + self.space
        if self.time is not None:
            x = x + (self.time[:num_new] if layers[0] is None else self.time[layers[0].places]).unsqueeze(1)
        if self.conditioning is None or not self.conditioning.in_blocks:
            condition = None
        if self.checkpoint_activations and self.training and torch.is_grad_enabled():
            for block, layer in zip(self.blocks, layers, strict=True):
                x = checkpoint(block, x, condition, layer, use_reentrant=False)
        else:
            x = (run_compiled() if compiled else run_blocks)(self.blocks, x, condition, layers)
        return self.norm(x[:, :, self.num_action_tokens :])
