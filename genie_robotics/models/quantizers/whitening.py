"""Makes the directions of the latents alike in spread, so that a rare or faint difference can have a code of its own.

A latent action model gives what changes many pixels a wide direction and what changes few a narrow one. Motion towards
or away from the camera is of the second kind: k-means of the latents as they come merges it with motion up the picture,
k-means of whitened latents keeps it apart (docs/LOG.md, 2026-11-25).
"""

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn


class Whitening(nn.Module):
    """z -> (z - mean) C^(-1/2), where C is the covariance of the latents it was fitted to, with `floor` of its largest
    eigenvalue added to every one: directions of less than that are noise. Linear, and exactly undone."""

    mean: Tensor
    forth: Tensor
    back: Tensor

    def __init__(self, latent_dim: int, floor: float):
        super().__init__()
        self.floor = floor
        self.register_buffer("mean", torch.zeros(latent_dim))
        self.register_buffer("forth", torch.eye(latent_dim))
        self.register_buffer("back", torch.eye(latent_dim))

    @torch.no_grad()
    def fit(self, latents: Float[Tensor, "M L"]) -> None:
        """Fits to `latents` of at least two rows; those that are not finite are left out."""
        points = latents[latents.isfinite().all(-1)].double()
        mean = points.mean(0)
        values, vectors = torch.linalg.eigh(torch.cov(points.T, correction=0))
        spread = (values.clamp_min(0) + self.floor * values[-1].clamp_min(1e-12)).sqrt()
        self.mean.copy_(mean)
        self.forth.copy_(vectors / spread @ vectors.T)
        self.back.copy_(vectors * spread @ vectors.T)

    def share(self) -> None:
        """Gives every process what rank 0 fitted."""
        for part in (self.mean, self.forth, self.back):
            dist.broadcast(part, src=0)

    def forward(self, latents: Float[Tensor, "*S L"]) -> Float[Tensor, "*S L"]:
        return (latents - self.mean.to(latents.dtype)) @ self.forth.to(latents.dtype)

    def undo(self, white: Float[Tensor, "*S L"]) -> Float[Tensor, "*S L"]:
        return white @ self.back.to(white.dtype) + self.mean.to(white.dtype)
