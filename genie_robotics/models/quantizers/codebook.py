"""The codebook of tokenizer and latent action model: of one kind or another, to its users all the same.

'vq' (Genie): free vectors that follow the latents (vq.py). 'fsq': a fixed grid (fsq.py).
"""

from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from genie_robotics.models.distributed import num_processes
from genie_robotics.models.quantizers.config import CodebookConfig
from genie_robotics.models.quantizers.fsq import FiniteScalars, chosen_levels

if TYPE_CHECKING:
    from genie_robotics.models.quantizers.vq import VectorCodes


class Codebook(nn.Module):
    """(…, latent_dim) latents, normalised, to one of `num_codes` codes. In float32 at least, also under autocast."""

    usage: Tensor
    share: Tensor

    def __init__(self, config: CodebookConfig):
        super().__init__()
        self.config = config
        if config.kind == "fsq":
            self.fsq = FiniteScalars(chosen_levels(config.num_codes, config.levels), config.latent_dim)
        else:
            from genie_robotics.models.quantizers.vq import (
                VectorCodes,  # its base class takes as long to import as torch: not for --help
            )

            self.vq = VectorCodes(config)
        self.progress = 0.0  # of the training, 0 .. 1; the trainer tells
        self.more = False  # of the same step's batch is still to come; the trainer tells
        self.parts: list[Tensor] = []  # how often the parts of a step use each code
        # State of training only: kept in the run's state/, not in the model's file. Summed over all processes.
        self.register_buffer("usage", torch.zeros(config.num_codes, dtype=torch.long), persistent=False)
        self.register_buffer("share", torch.zeros(config.num_codes), persistent=False)

    @property
    def quantiser(self) -> "VectorCodes | FiniteScalars":
        return self.fsq if self.config.kind == "fsq" else self.vq

    @property
    def started(self) -> bool:
        """Codes are given out."""
        return self.quantiser.started

    def normalise(self, latents: Tensor) -> Tensor:
        """Zero mean and unit variance over the latent's entries: quantisation then sees direction, not size."""
        latents = latents if latents.dtype == torch.float64 else latents.float()
        return F.layer_norm(latents, latents.shape[-1:])

    def forward(
        self, latents: Float[Tensor, "*S L"]
    ) -> tuple[Float[Tensor, "*S L"], Int[Tensor, "*S"] | None, Float[Tensor, ""]]:
        """Returns quantised latents (straight-through), codes (None before the start) and the codebook's own loss."""
        with exactly(latents):
            latents = self.normalise(latents)
            quantised, codes, loss = self.quantiser.quantise(
                latents.flatten(0, -2), self.progress, len(latents), self.more
            )
            quantised = quantised.reshape(latents.shape)
            if codes is None:
                return quantised, None, loss
            if self.training:
                self.count(codes)
            return quantised, codes.reshape(latents.shape[:-1]), loss

    @torch.no_grad()
    def count(self, codes: Int[Tensor, "M"]) -> None:
        counts = torch.zeros_like(self.usage).scatter_add_(0, codes, torch.ones_like(codes))
        if num_processes() > 1:
            dist.all_reduce(counts)
        self.usage += counts
        self.parts.append(counts)
        if self.more:
            return
        counts = torch.stack(self.parts).sum(0)
        self.parts.clear()
        now = counts / counts.sum()
        self.share.copy_(torch.where(self.share.any(), self.share.lerp(now.to(self.share), 1 - self.config.decay), now))

    def begin_step(self) -> None:
        """Forgets the parts of a step that was cut."""
        self.more = False
        self.parts.clear()
        if self.config.kind == "vq":
            self.vq.parts.clear()

    def forget(self) -> None:
        """Back to before the start: codes will be found anew, in the latents of the training to come."""
        self.quantiser.forget()
        self.share.zero_()

    def reset_usage(self) -> None:
        """Counts the use of the codes anew."""
        self.usage.zero_()

    @torch.no_grad()
    def nearest(self, latents: Float[Tensor, "*S L"]) -> Int[Tensor, "*S"]:
        with exactly(latents):
            flat = self.normalise(latents).flatten(0, -2)
            return self.quantiser.nearest(flat).reshape(latents.shape[:-1])

    @torch.no_grad()
    def margin(self, latents: Float[Tensor, "*S L"]) -> Float[Tensor, "*S"]:
        """1 - d1 / d2 of the distances to the nearest two codes: 0 between them, 1 on one; nan of a fixed grid."""
        if self.config.kind == "fsq":
            return torch.full(latents.shape[:-1], torch.nan, device=latents.device)
        with exactly(latents):
            flat = self.vq.white(self.normalise(latents).flatten(0, -2))
            nearest = torch.cdist(flat, self.vq.codebook.to(flat.dtype)).topk(2, largest=False).values
            return (1 - nearest[:, 0] / nearest[:, 1].clamp_min(1e-12)).reshape(latents.shape[:-1])

    @torch.no_grad()
    def lookup(self, codes: Int[Tensor, "*S"]) -> Float[Tensor, "*S L"]:
        with exactly(codes):
            return self.quantiser.lookup(codes)

    @property
    def vectors(self) -> Float[Tensor, "K L"]:
        """What `lookup` gives for each code."""
        return self.lookup(torch.arange(self.config.num_codes, device=self.usage.device))

    def logs(self) -> dict[str, Tensor]:
        """Perplexity exp(H) of the moving usage: all codes used alike gives their number, collapse gives 1.

        Moving over many batches, so that it does not depend on the batch size; of the codes that were given out, so
        that codes revived in vain do not count. Empty where none have been given out yet.
        """
        if not self.share.any():
            return {}
        return {"perplexity": torch.special.entr(self.share.double()).sum().exp()}


def exactly(x: Tensor) -> torch.autocast:
    """No reduced precision: distances in bfloat16 choose other codes, and averages in it stand still."""
    return torch.autocast(x.device.type, enabled=False)
