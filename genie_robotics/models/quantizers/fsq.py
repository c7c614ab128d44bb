"""Finite scalar quantisation (Mentzer et al. 2023, https://arxiv.org/abs/2309.15505): every code is a corner of a grid.

A latent is projected to a few numbers, each is squashed and rounded to one of its levels, and the levels together name
the code. Nothing follows the data, so no code can be left behind: there is nothing to start and nothing to revive.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

PAPER = {
    240: (8, 6, 5),
    1000: (8, 5, 5, 5),
    4375: (7, 5, 5, 5, 5),
    15360: (8, 8, 8, 6, 5),
    64000: (8, 8, 8, 5, 5, 5),
}
"""The paper's table 1, under what the levels really multiply to: it calls them 2^8 .. 2^16."""


def levels_of(num_codes: int) -> tuple[int, ...]:
    """Levels whose product is exactly `num_codes`; empty where there are none.

    Of the sizes in the paper's table, the paper's. Else the prime factors, with pairs of twos as fours above 8 codes: 8
    is 2,2,2 and 1024 is 4,4,4,4,4. A prime above 7 would be an axis of too many levels, one above 3 a line and no grid.
    """
    if num_codes in PAPER:
        return PAPER[num_codes]
    left, factors = num_codes, []
    for prime in (7, 5, 3, 2):
        while left > 1 and left % prime == 0:
            factors.append(prime)
            left //= prime
    if left != 1 or (len(factors) < 2 and num_codes > 3):
        return ()
    if num_codes > 8:
        fours, twos = divmod(factors.count(2), 2)
        factors = [f for f in factors if f != 2] + [4] * fours + [2] * twos
    return tuple(sorted(factors, reverse=True))


def chosen_levels(num_codes: int, levels: tuple[int, ...] = ()) -> tuple[int, ...]:
    """`levels`, or those that go with `num_codes`.

    Raises:
        ValueError: their product is not `num_codes`, or no levels have that product.
    """
    if num_codes < 2:
        raise ValueError(f"num_codes must be at least 2, not {num_codes}")
    if levels:
        product = int(torch.tensor(levels).prod())
        if min(levels) < 2 or product != num_codes:
            given = ",".join(map(str, levels))
            raise ValueError(f"levels {given} make {product} codes, not num_codes {num_codes} (and each is at least 2)")
        return tuple(levels)
    found = levels_of(num_codes)
    if not found:
        fewer = next((n for n in range(num_codes, 1, -1) if levels_of(n)), None)
        more = next(n for n in range(num_codes, 2 * num_codes + 3) if levels_of(n))
        nearest = f"{fewer} or {more}" if fewer else f"{more}"
        raise ValueError(f"num_codes {num_codes} is no product of FSQ levels; the nearest that are: {nearest}")
    return found


class FiniteScalars(nn.Module):
    """(M, latent_dim) to a grid of `levels`, and back to latent_dim.

    The levels lie symmetrically in [-1, 1], an even number of them too (`preserve_symmetry`; two of them are -1 and 1).
    The projections are linear maps of this module and not FSQ's own, so that they compute in the latents' precision
    whatever the weights'.
    """

    started = True

    def __init__(self, levels: tuple[int, ...], latent_dim: int):
        from vector_quantize_pytorch import FSQ  # takes as long to import as torch

        super().__init__()
        self.levels = levels
        self.project_in = nn.Linear(latent_dim, len(levels))
        self.project_out = nn.Linear(len(levels), latent_dim)
        self.grid = FSQ(list(levels), preserve_symmetry=True)

    def quantise(
        self, latents: Float[Tensor, "M L"], progress: float, num_clips: int = 1, more: bool = False
    ) -> tuple[Float[Tensor, "M L"], Int[Tensor, "M"], Float[Tensor, ""]]:
        """Quantised latents (straight-through), codes, and no loss: there is nothing to commit to."""
        values, codes = self.grid(linear(self.project_in, latents).unsqueeze(0))
        return linear(self.project_out, values.squeeze(0)), codes.squeeze(0).long(), latents.new_zeros(())

    def forget(self) -> None:
        """The grid stays: it was not found in latents."""

    def nearest(self, latents: Float[Tensor, "M L"]) -> Int[Tensor, "M"]:
        """The cell that a latent falls into: near by the levels, not by the distance of `vectors`."""
        return self.grid(linear(self.project_in, latents).unsqueeze(0))[1].squeeze(0).long()

    def lookup(self, codes: Int[Tensor, "*S"]) -> Float[Tensor, "*S L"]:
        return linear(self.project_out, F.embedding(codes, self.grid.implicit_codebook))

    @property
    def vectors(self) -> Float[Tensor, "K L"]:
        return linear(self.project_out, self.grid.implicit_codebook)


def linear(layer: nn.Linear, x: Tensor) -> Tensor:
    return F.linear(x, layer.weight.to(x.dtype), layer.bias.to(x.dtype))
