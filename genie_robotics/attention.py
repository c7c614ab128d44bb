"""Multi-head self-attention over the second-last axis, with an optional cache of past keys and values.

Two implementations compute the same thing: torch's fused `scaled_dot_product_attention` and the plain
softmax(QK)V. On CPU in bfloat16 the fused backward is the slowest part of a training step (docs/LOG.md has the
measurement), so plain is chosen there whenever a gradient is needed.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

KeyValue = tuple[Tensor, Tensor]  # each (M, heads, L, head_dim)


def plain_attention(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    """softmax(QK / sqrt(d)) V on (M, heads, L, d); a causal query i of the last Lq positions sees keys up to i."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if causal:
        num_q, num_k = scores.shape[-2:]
        future = torch.ones(num_q, num_k, dtype=torch.bool, device=q.device).triu(num_k - num_q + 1)
        scores = scores.masked_fill(future, float("-inf"))
    return scores.softmax(dim=-1).to(v.dtype) @ v


def fused_attention(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal)


def attend(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    """Chooses the implementation that is faster on this device."""
    if causal and q.shape[-2] != k.shape[-2]:  # torch's is_causal aligns to the first key, a cache needs the last
        return plain_attention(q, k, v, causal)
    if q.device.type == "cpu" and torch.is_grad_enabled():
        return plain_attention(q, k, v, causal)
    return fused_attention(q, k, v, causal)


def rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    return F.rms_norm(x, weight.shape, weight.to(x.dtype), eps=1e-5)


class SelfAttention(nn.Module):
    """Self-attention with query-key normalisation (Genie section 3: QK-norm keeps large dynamics models stable)."""

    def __init__(self, width: int, num_heads: int, causal: bool):
        super().__init__()
        if width % num_heads:
            raise ValueError(f"width {width} is not a multiple of num_heads {num_heads}")
        self.num_heads = num_heads
        self.causal = causal
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.q_norm = nn.Parameter(torch.ones(width // num_heads))
        self.k_norm = nn.Parameter(torch.ones(width // num_heads))

    def forward(
        self, x: Float[Tensor, "M L D"], past: KeyValue | None = None
    ) -> tuple[Float[Tensor, "M L D"], KeyValue]:
        """Returns the output and the keys and values of `past` + `x`, for whoever keeps a cache."""
        q, k, v = rearrange(self.qkv(x), "m l (three h d) -> three m h l d", three=3, h=self.num_heads)
        q, k = rms_norm(q, self.q_norm), rms_norm(k, self.k_norm)
        if past is not None:
            k, v = torch.cat([past[0], k], dim=2), torch.cat([past[1], v], dim=2)
        y = attend(q, k, v, self.causal)
        return self.out(rearrange(y, "m h l d -> m l (h d)")), (k, v)
