"""Pooling of a frame's patches."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn


class AttentionPool(nn.Module):
    """One learned query reads a frame's patches, so that a small moving gripper is not averaged away."""

    def __init__(self, width: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Parameter(0.02 * torch.randn(width))
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "B T N D"]) -> Float[Tensor, "B T D"]:
        k, v = rearrange(self.key_value(x), "b t n (two h d) -> two b t h n d", two=2, h=self.num_heads)
        q = rearrange(self.query, "(h d) -> h d 1", h=self.num_heads).to(k.dtype)
        weights = ((k @ q) * k.shape[-1] ** -0.5).softmax(dim=-2).to(v.dtype)
        return self.out(rearrange((weights * v).sum(-2), "b t h d -> b t (h d)"))
