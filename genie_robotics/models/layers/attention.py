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
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

KeyValue = tuple[Tensor, Tensor]
"""Keys and values, each (M, num_heads, length, head_dim)."""


def plain_attention(q: Tensor, k: Tensor, v: Tensor, causal: bool, past: KeyValue | None = None) -> Tensor:
    """softmax(QK)V on (M, num_heads, length, head_dim) with scaled queries; all queries see `past`.

    Past and new keys are not concatenated: MaskGIT reads the same past many times per frame, and copying it would cost
    more than reading it.
    """
    scores = q @ k.transpose(-1, -2)
    if causal and q.shape[-2] > 1:
        length = q.shape[-2]
        future = torch.ones(length, length, dtype=torch.bool, device=q.device).triu(1)
        scores = scores.masked_fill(future, float("-inf"))
    if past is None:
        return scores.softmax(dim=-1).to(v.dtype) @ v
    scores = torch.cat([q @ past[0].transpose(-1, -2), scores], dim=-1)
    seen, new = scores.softmax(dim=-1).to(v.dtype).split([past[0].shape[-2], k.shape[-2]], dim=-1)
    return seen @ past[1] + new @ v


def fused_attention(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=1.0)


def attend(q: Tensor, k: Tensor, v: Tensor, causal: bool, past: KeyValue | None = None) -> Tensor:
    """Attention by the implementation that is faster on this device, or by that of `attention_by`."""
    faster = "plain" if q.device.type == "cpu" and torch.is_grad_enabled() else "fused"
    if past is not None or (_forced or faster) == "plain":
        return plain_attention(q, k, v, causal, past)
    return fused_attention(q, k, v, causal)


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

    def __init__(self, width: int, num_heads: int, axis: Literal["space", "time"], head_dim: int | None = None):
        super().__init__()
        if head_dim is None and width % num_heads:
            raise ValueError(f"width must be a multiple of num_heads, got width {width} and num_heads {num_heads}")
        self.num_heads = num_heads
        self.head_dim = head_dim = head_dim or width // num_heads
        self.axis = axis
        self.qkv = nn.Linear(width, 3 * num_heads * head_dim, bias=False)
        self.out = nn.Linear(num_heads * head_dim, width, bias=False)
        self.q_norm = nn.Parameter(torch.ones(head_dim))
        self.k_norm = nn.Parameter(torch.ones(head_dim))

    def forward(
        self, x: Float[Tensor, "B T N D"], past: KeyValue | None = None
    ) -> tuple[Float[Tensor, "B T N D"], KeyValue]:
        """Returns the output, and the keys and values of `x` for a cache."""
        batch = x.shape[0]
        heads = "(b t) h n d" if self.axis == "space" else "(b n) h t d"
        qkv = rearrange(self.qkv(x), f"b t n (three h d) -> three {heads}", three=3, h=self.num_heads)
        dim = qkv.shape[-1]
        # Queries and keys in one call; the weight of the norm includes the scale of the scores.
        weight = torch.stack([self.q_norm * dim**-0.5, self.k_norm]).to(qkv.dtype)
        q, k = F.rms_norm(qkv[:2], (dim,), eps=1e-5) * weight[:, None, None, None]
        v = qkv[2]
        y = attend(q, k, v, self.axis == "time", past)
        return self.out(rearrange(y, f"{heads} -> b t n (h d)", b=batch)), (k, v)
