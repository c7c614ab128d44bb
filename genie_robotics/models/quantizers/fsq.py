"""Finite scalar quantization (Mentzer et al. 2023, https://arxiv.org/abs/2309.15505): codes are the points of a grid.

A latent is projected to a few numbers, each is bounded and rounded to one of its levels, and the levels together are
the code. The grid does not follow the data, so no code can die.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from genie_robotics.models.quantizers.base import Quantized, Quantizer
from genie_robotics.models.quantizers.config import QuantizerConfig
from genie_robotics.models.quantizers.levels import chosen_levels


class FiniteScalarQuantizer(Quantizer):
    """A grid of D numbers, each with its levels, between linear maps from and to the latent's width.

    Levels lie symmetrically in [-1, 1]; with two of them these are -1 and 1 (Parker et al. 2024, section 3.2).
    """

    levels: Tensor
    basis: Tensor
    grid: Tensor

    def __init__(self, config: QuantizerConfig):
        super().__init__(config)
        levels = chosen_levels(config.num_codes, config.fsq.levels)
        self.project_in = nn.Linear(config.latent_dim, len(levels))
        self.project_out = nn.Linear(len(levels), config.latent_dim)
        self.register_buffer("levels", torch.tensor(levels, dtype=torch.int32), persistent=False)
        basis = torch.cumprod(torch.tensor([1, *levels[:-1]]), dim=0, dtype=torch.int32)
        self.register_buffer("basis", basis, persistent=False)
        index = (torch.arange(config.num_codes).unsqueeze(-1) // basis) % self.levels
        self.register_buffer("grid", index * (2.0 / (self.levels - 1)) - 1.0, persistent=False)  # (K, D)

    def quantize(self, latents: Float[Tensor, "M L"], num_clips: int) -> Quantized:
        values = self._rounded(latents)
        return Quantized(linear(self.project_out, values), self._codes(values), latents.new_zeros(()))

    def _rounded(self, latents: Float[Tensor, "M L"]) -> Float[Tensor, "M D"]:
        """Points of the grid; gradients pass straight through the rounding."""
        steps = self.levels - 1
        position = (steps * (torch.tanh(linear(self.project_in, latents)) + 1) / 2.0) + 0.5
        position = position + (position.floor() - position).detach()
        return (2.0 / steps) * position - 1.0

    def _codes(self, values: Float[Tensor, "M D"]) -> Int[Tensor, "M"]:
        index = (values + 1.0) / (2.0 / (self.levels - 1))
        return (index * self.basis).sum(-1).round().long()

    def nearest_code(self, latents: Float[Tensor, "M L"]) -> Int[Tensor, "M"]:
        return self._codes(self._rounded(latents))

    @property
    def vectors(self) -> Float[Tensor, "K L"]:
        return linear(self.project_out, self.grid)


def linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """The layer in the precision of `x`, whatever the precision of its weights."""
    return F.linear(x, layer.weight.to(x.dtype), layer.bias.to(x.dtype))
