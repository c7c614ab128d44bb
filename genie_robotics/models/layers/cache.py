"""Keys and values of past frames, in buffers that are allocated once per window."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


class LayerCache(NamedTuple):
    """The buffers of one temporal layer, and the places of new frames in them."""

    keys: Float[Tensor, "M max_frames D"]
    values: Float[Tensor, "M max_frames D"]
    places: Int[Tensor, "T"]
    """Places of the new frames."""
    mask: Float[Tensor, "1 T max_frames"]
    """0 where a new frame may attend, else -inf."""

    def put(self, k: Float[Tensor, "M T D"], v: Float[Tensor, "M T D"]) -> tuple[Tensor, Tensor]:
        """Writes keys and values of the new frames, and returns all."""
        return self.keys.index_copy_(1, self.places, k), self.values.index_copy_(1, self.places, v)


@dataclass
class Buffers:
    """Storage that several caches share: each holds the first frames of it. One tensor per block."""

    keys: list[Float[Tensor, "M max_frames D"]]
    values: list[Float[Tensor, "M max_frames D"]]
    num_frames: int = 0
    """Frames of the longest cache; later places are free."""


@dataclass(frozen=True)
class TemporalCache:
    """Temporal keys and values of the first `num_frames` frames of a window (M: batch x patches x heads).

    Past frames never depend on later ones, so their keys and values are computed once. A cache never changes: the
    next frame is written behind it, and `extended` is the cache with it. Caches share buffers, so that a fork and an
    undone step copy nothing until they go another way (`writable`). For inference: gradients do not pass.
    """

    buffers: Buffers
    num_frames: int = field(default=0)

    @staticmethod
    def empty(num_blocks: int, rows: int, max_frames: int, head_dim: int, like: Tensor) -> "TemporalCache":
        """A cache without frames, of `like`'s type and device."""
        shape = (rows, max_frames, head_dim)
        keys, values = ([like.new_zeros(shape) for _ in range(num_blocks)] for _ in range(2))
        return TemporalCache(Buffers(keys, values))

    def writable(self) -> "TemporalCache":
        """This cache, on buffers in which no other cache holds the next frame."""
        return self if self.num_frames == self.buffers.num_frames else self.copied(Tensor.clone)

    def extended(self, num_new: int) -> "TemporalCache":
        """The cache with the frames that were written behind it."""
        self.buffers.num_frames = self.num_frames + num_new
        return replace(self, num_frames=self.num_frames + num_new)

    def repeated(self, times: int) -> "TemporalCache":
        """The cache of `times` dreams with this past."""
        return self.copied(lambda buffer: buffer.repeat(times, 1, 1))

    def copied(self, copy: Callable[[Tensor], Tensor]) -> "TemporalCache":
        """This cache, on buffers made by `copy`."""
        keys, values = ([copy(buffer) for buffer in part] for part in (self.buffers.keys, self.buffers.values))
        return replace(self, buffers=Buffers(keys, values, self.num_frames))

    def layers(self, num_new: int) -> list[LayerCache]:
        """The cache of each layer, for `num_new` frames that follow.

        Attention reads all of the buffers behind a mask: shapes do not change as a window fills, and views of a part
        of them would be copied for each product.
        """
        keys, values = self.buffers.keys, self.buffers.values
        places = torch.arange(self.num_frames, self.num_frames + num_new, device=keys[0].device)
        later = torch.arange(keys[0].shape[1], device=places.device) > places.unsqueeze(-1)
        mask = keys[0].new_zeros(1, *later.shape).masked_fill_(later, float("-inf"))
        return [LayerCache(k, v, places, mask) for k, v in zip(keys, values, strict=True)]
