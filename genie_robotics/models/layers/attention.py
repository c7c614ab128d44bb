"""Multi-head self-attention along one axis of (B, T, N, D): space (the patches of a frame) or time (causal).

Two implementations compute the same: torch's fused `scaled_dot_product_attention` and the plain softmax(QK)V. On a CPU
in bfloat16 the fused backward pass is the slowest part of a training step (docs/LOG.md), so the plain one is used there
whenever a gradient is needed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from genie_robotics.models.layers.cache import LayerCache

Axis = Literal["space", "time"]
EPSILON = 1e-5  # of the mean square of queries and keys
MAX_ROWS = 65_535  # of one fused call on a GPU: a limit of CUDA's grids


def plain_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """softmax(QK + mask)V on (M, length, D) with scaled queries."""
    scores = q @ k.mT if mask is None else torch.baddbmm(mask.to(q.dtype), q, k.mT)
    return scores.softmax(-1, dtype=q.dtype) @ v


def fused_attention(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    """softmax(QK)V on (M, H, length, D) by torch's kernel."""
    parts = [
        F.scaled_dot_product_attention(*part, is_causal=causal, scale=1.0)
        for part in zip(q.split(MAX_ROWS), k.split(MAX_ROWS), v.split(MAX_ROWS), strict=True)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def causal_mask(length: int, device: torch.device) -> Float[Tensor, "1 T T"]:
    return torch.full((1, length, length), float("-inf"), device=device).triu(1)


def attend(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    """Attention by the implementation that is faster on this device, or by that of `attention_by`."""
    faster = "plain" if q.device.type == "cpu" and torch.is_grad_enabled() else "fused"
    if (_forced or faster) == "fused":
        return fused_attention(q, k, v, causal)
    mask = causal_mask(q.shape[2], q.device) if causal and q.shape[2] > 1 else None
    return plain_attention(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), mask).view_as(q)


Kind = Literal["fused", "plain"]
_forced: Kind | None = None


@contextmanager
def attention_by(kind: Kind | None) -> Iterator[None]:
    """Forces one implementation where no past is cached; None: the faster one."""
    global _forced
    before, _forced = _forced, kind
    try:
        yield
    finally:
        _forced = before


class SelfAttention(nn.Module):
    """Self-attention with query-key normalization (Genie section 3: QK-norm keeps large dynamics models stable).

    head_dim: width of a head's queries, keys and values; width / num_heads unless given (the paper's differ).
    """

    def __init__(self, width: int, num_heads: int, axis: Axis, head_dim: int | None = None):
        super().__init__()
        if head_dim is None and width % num_heads:
            raise ValueError(f"width must be a multiple of num_heads, got width {width} and num_heads {num_heads}")
        self.num_heads = num_heads
        self.head_dim = head_dim = head_dim or width // num_heads
        self.axis: Axis = axis
        self.qkv = nn.Linear(width, 3 * num_heads * head_dim, bias=False)
        self.out = nn.Linear(num_heads * head_dim, width, bias=False)
        self.q_norm = nn.Parameter(torch.ones(head_dim))
        self.k_norm = nn.Parameter(torch.ones(head_dim))

    def forward(self, x: Float[Tensor, "B T N D"], cache: LayerCache | None = None) -> Float[Tensor, "B T N D"]:
        """cache: of a layer over time: takes the keys and values of `x`, which also attends to the frames before."""
        batch, frames, patches, _ = x.shape
        dim, over_space = self.head_dim, self.axis == "space"
        qkv = self.qkv(x).view(batch, frames, patches, 3, self.num_heads, dim)
        # The attended axis second to last. Copied once, because the operations below are slow on strided tensors.
        qkv = (qkv.permute(3, 0, 1, 4, 2, 5) if over_space else qkv.permute(3, 0, 2, 4, 1, 5)).contiguous()
        qk, v = qkv.flatten(1, 2).split((2, 1))
        q, k = F.rms_norm(qk, (dim,), eps=EPSILON).unbind()
        # Products of queries and keys depend only on the product of both weights, and on the scale of the scores.
        q, v = q * (self.q_norm * self.k_norm * dim**-0.5).to(q.dtype), v[0]
        if cache is None:
            y = attend(q, k, v, not over_space)
        else:
            keys, values = cache.put(k.flatten(0, 1), v.flatten(0, 1))
            y = plain_attention(q.flatten(0, 1), keys, values, cache.mask)
        y = y.view(qkv.shape[1:])
        return self.out((y.permute(0, 1, 3, 2, 4) if over_space else y.permute(0, 3, 1, 2, 4)).flatten(-2))
