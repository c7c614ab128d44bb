"""The vector quantiser of tokenizer and latent action model: vector-quantize-pytorch, with a data-driven start.

The first `start_after` training steps pass latents through unquantised and remember the recent ones; k-means on
those starts the codebook. From then on it follows the latents by moving averages, and codes used less than
`revive_below` of their fair share are moved onto current latents, for as long as training lasts
(docs: collapse of the codebook is the first complaint of users of latent action models).
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from vector_quantize_pytorch import VectorQuantize


@dataclass
class CodebookConfig:
    num_codes: int = 8
    latent_dim: int = 32
    """Width of a code (Genie tables 5 and 7: 32 for both codebooks)."""
    commitment: float = 0.25
    decay: float = 0.98
    """Of the moving averages that the codes follow."""
    start_after: int = 300
    """Training steps before quantisation starts."""
    start_share: float = 0.3
    """Share of the training before quantisation starts at the latest, however few steps that is."""
    revive_below: float = 0.15
    """Share of the fair share under which a code is revived; 0 never revives."""
    num_remembered: int = 4096
    """Latents kept for the k-means start."""


class Codebook(nn.Module):
    """(…, latent_dim) latents, normalised, to the nearest of `num_codes` codes."""

    num_updates: Tensor
    recent: Tensor

    def __init__(self, config: CodebookConfig):
        super().__init__()
        self.config = config
        self.vq = VectorQuantize(
            dim=config.latent_dim,
            codebook_size=config.num_codes,
            decay=config.decay,
            commitment_weight=config.commitment,
            kmeans_init=True,
            threshold_ema_dead_code=1 if config.revive_below else 0,  # its true value depends on the batch: forward
            rotation_trick=False,
        )
        self.progress = 0.0  # of the training, 0 .. 1; the trainer tells
        # State of training only: kept in the run's state/, not in the model's file.
        self.register_buffer("num_updates", torch.zeros((), dtype=torch.long), persistent=False)
        self.register_buffer("recent", torch.zeros(0, config.latent_dim), persistent=False)

    @property
    def started(self) -> bool:
        return bool(self.vq._codebook.initted)

    def normalise(self, latents: Tensor) -> Tensor:
        """Zero mean and unit variance over the latent's entries: quantisation then sees direction, not size."""
        latents = latents if latents.dtype == torch.float64 else latents.float()
        return F.layer_norm(latents, latents.shape[-1:])

    def forward(
        self, latents: Float[Tensor, "*S L"]
    ) -> tuple[Float[Tensor, "*S L"], Int[Tensor, "*S"] | None, Float[Tensor, ""]]:
        """Returns quantised latents (straight-through), codes (None before the start) and the commitment loss."""
        latents = self.normalise(latents)
        flat = latents.reshape(1, -1, self.config.latent_dim)
        if self.training and not self.started:
            self.remember(flat[0].detach())
            if int(self.num_updates) <= self.config.start_after and self.progress < self.config.start_share:
                return latents, None, latents.new_zeros(())
            self.start(self.recent, flat.shape[1])
            self.recent = self.recent[:0]
        if self.training:
            fair = flat.shape[1] / self.config.num_codes
            self.vq._codebook.threshold_ema_dead_code = self.config.revive_below * fair
            self.vq._codebook.reset_cluster_size = fair
            self.num_updates += 1
        quantised, codes, loss = self.vq(flat)
        return quantised.reshape(latents.shape), codes.reshape(latents.shape[:-1]), loss.sum()

    @torch.no_grad()
    def start(self, latents: Float[Tensor, "M L"], batch: int) -> None:
        """Puts the codes at the k-means centres of `latents`.

        k-means++ with restarts for small codebooks: from random starts k-means merges clusters that lie far apart, and
        nothing parts them afterwards.
        """
        from sklearn.cluster import KMeans

        num_codes = self.config.num_codes
        seed = int(torch.randint(2**31, ()))  # from the step's seed, so that a resumed run starts the same codebook
        points = latents.cpu().numpy()
        if len(points) < num_codes:  # a very small run: the rest of the codes are revived as training goes on
            points = np.concatenate([points, np.random.default_rng(seed).normal(size=(num_codes, points.shape[1]))])
        means = KMeans(num_codes, n_init=10 if num_codes <= 64 else 1, max_iter=50, random_state=seed).fit(points)
        book = self.vq._codebook
        share = torch.from_numpy(np.bincount(means.labels_, minlength=num_codes) / len(points))
        book.embed.copy_(torch.from_numpy(means.cluster_centers_))
        book.cluster_size.copy_(share * batch)
        book.embed_avg.copy_(book.embed * book.cluster_size.unsqueeze(-1))
        book.initted.fill_(True)

    def remember(self, latents: Tensor) -> None:
        self.num_updates += 1
        self.recent = torch.cat([self.recent, latents])[-self.config.num_remembered :]

    def nearest(self, latents: Float[Tensor, "*S L"]) -> Int[Tensor, "*S"]:
        flat = self.normalise(latents).reshape(-1, self.config.latent_dim)
        return torch.cdist(flat, self.vectors.to(flat.dtype)).argmin(-1).reshape(latents.shape[:-1])

    def logs(self) -> dict[str, Tensor]:
        """Perplexity exp(H) of the moving usage: all codes used alike gives their number, collapse gives 1.

        Moving over many batches, so that it does not depend on the batch size.
        """
        if not self.started:
            return {}
        share = self.vq._codebook.cluster_size.flatten().double()
        return {"perplexity": torch.special.entr(share / share.sum()).sum().exp()}

    @property
    def vectors(self) -> Float[Tensor, "K L"]:
        return self.vq.codebook

    def lookup(self, codes: Int[Tensor, "*S"]) -> Float[Tensor, "*S L"]:
        return F.embedding(codes, self.vectors)
