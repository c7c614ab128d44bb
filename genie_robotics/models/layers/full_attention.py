"""Attention over space and time at once: every patch of frame t to all patches of frames 0 .. t (block-causal).

Genie's ablation (section 3.4, table 3: C-ViViT, "a full space-time attention mechanism"). Cost and memory grow with
the square of the number of frames.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from genie_robotics.models.layers.attention import KeyValue, SelfAttention, attend


class SpaceTimeAttention(SelfAttention):
    """The weights of a SelfAttention; its keys and values have the shape of a temporal layer's, for the same cache."""

    def __init__(self, width: int, num_heads: int, head_dim: int | None = None):
        super().__init__(width, num_heads, "time", head_dim)

    def forward(
        self, x: Float[Tensor, "B T N D"], past: KeyValue | None = None
    ) -> tuple[Float[Tensor, "B T N D"], KeyValue]:
        """Frame by frame, each over those up to itself: half the work of one masked product, and no mask in memory."""
        batch, num_frames, num_patches = x.shape[:3]
        qkv = rearrange(self.qkv(x), "b t n (three h d) -> three (b n) h t d", three=3, h=self.num_heads)
        dim = qkv.shape[-1]
        weight = torch.stack([self.q_norm * dim**-0.5, self.k_norm]).to(qkv.dtype)
        q, k = F.rms_norm(qkv[:2], (dim,), eps=1e-5) * weight[:, None, None, None]
        v = qkv[2]
        new = (k, v)
        if past is not None:
            k, v = torch.cat([past[0], k], dim=2), torch.cat([past[1], v], dim=2)
        q, k, v = (rearrange(part, "(b n) h t d -> b h (t n) d", b=batch) for part in (q, k, v))
        frames = []
        for t in range(num_frames):
            seen = k.shape[2] - (num_frames - 1 - t) * num_patches
            now = q[:, :, t * num_patches : (t + 1) * num_patches]
            frames.append(attend(now, k[:, :, :seen], v[:, :, :seen], causal=False))
        y = torch.cat(frames, dim=2)
        return self.out(rearrange(y, "b h (t n) d -> b t n (h d)", t=num_frames)), new
