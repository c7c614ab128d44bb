"""Whitening of latents: all directions get the same spread, so that a rare or faint difference can have its own code.

A latent action model gives a wide direction to what changes many pixels and a narrow one to what changes few. Motion
towards the camera is narrow: k-means of latents as they are merges it with motion up the picture, k-means of whitened
latents keeps it apart (docs/LOG.md, 2026-11-25).
"""

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn


class Whitening(nn.Module):
    """z -> (z - mean) C^(-1/2), where C is the covariance of the latents it was fitted to.

    floor: this fraction of C's largest eigenvalue is added to every eigenvalue; narrower directions are noise.
    """

    mean: Tensor
    matrix: Tensor
    inverse_matrix: Tensor

    def __init__(self, latent_dim: int, floor: float):
        super().__init__()
        self.floor = floor
        self.register_buffer("mean", torch.zeros(latent_dim))
        self.register_buffer("matrix", torch.eye(latent_dim))
        self.register_buffer("inverse_matrix", torch.eye(latent_dim))

    @torch.no_grad()
    def fit(self, latents: Float[Tensor, "M L"]) -> None:
        """Fits to the finite rows of `latents`, of which there must be at least two."""
        points = latents[latents.isfinite().all(-1)].double()
        mean = points.mean(0)
        values, vectors = torch.linalg.eigh(torch.cov(points.T, correction=0))
        spread = (values.clamp_min(0) + self.floor * values[-1].clamp_min(1e-12)).sqrt()
        self.mean.copy_(mean)
        self.matrix.copy_(vectors / spread @ vectors.T)
        self.inverse_matrix.copy_(vectors * spread @ vectors.T)

    def broadcast(self) -> None:
        """Gives every process what rank 0 fitted."""
        for buffer in (self.mean, self.matrix, self.inverse_matrix):
            dist.broadcast(buffer, src=0)

    def forward(self, latents: Float[Tensor, "*S L"]) -> Float[Tensor, "*S L"]:
        return (latents - self.mean.to(latents.dtype)) @ self.matrix.to(latents.dtype)

    def inverse(self, white: Float[Tensor, "*S L"]) -> Float[Tensor, "*S L"]:
        """The latents whose whitening is `white`."""
        return white @ self.inverse_matrix.to(white.dtype) + self.mean.to(white.dtype)
