"""The interface of all quantizers.

A new quantizer is a subclass of `Quantizer`, an entry of `QUANTIZERS` (quantizers/__init__.py) and its own
configuration (config.py). Tokenizer, latent action model, dynamics and trainer use nothing but this interface.
"""

from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from genie_robotics.models.distributed import num_processes, updates_state
from genie_robotics.models.quantizers.config import QuantizerConfig

USAGE_DECAY = 0.98  # per step, of the moving usage


class Quantized(NamedTuple):
    """Result of a quantizer for latents (..., L)."""

    vectors: Float[Tensor, "*S L"]
    """Quantized latents; gradients pass straight through to the latents."""
    codes: Int[Tensor, "*S"] | None
    """None while latents are not quantized yet."""
    loss: Float[Tensor, ""]
    """The quantizer's own loss, such as the commitment."""


class HostCopy:
    """The value of a scalar tensor on the CPU, read from a GPU only after the tensor has changed."""

    def __init__(self) -> None:
        self.seen: tuple[Tensor, int] | None = None
        self.value = 0

    def of(self, tensor: Tensor) -> int:
        if torch.compiler.is_compiling():  # then it must be a constant; read before
            return self.value
        if self.seen is None or self.seen[0] is not tensor or self.seen[1] != tensor._version:
            self.value, self.seen = int(tensor), (tensor, tensor._version)
        return self.value

    def add_one(self, tensor: Tensor) -> None:
        """Adds 1 to both, without a read."""
        value = self.of(tensor)
        tensor += 1
        if not torch.compiler.is_compiling():
            self.value, self.seen = value + 1, (tensor, tensor._version)


class Quantizer(nn.Module):
    """Latents (..., L) to one of `num_codes` codes. Computes in float32 at least, also under autocast.

    Subclasses implement `quantize`, `nearest_code`, `vectors` and, where they have a state, `started` and `reset`.
    """

    usage: Tensor
    share: Tensor

    def __init__(self, config: QuantizerConfig):
        super().__init__()
        self.config = config
        self.num_codes = config.num_codes
        self.progress = 0.0
        """Fraction of the training that is done."""
        # State of training, kept in checkpoints and not in the model's file. Summed over all processes.
        self.register_buffer("usage", torch.zeros(config.num_codes, dtype=torch.long), persistent=False)
        self.register_buffer("share", torch.zeros(config.num_codes), persistent=False)

    @property
    def started(self) -> bool:
        """True if latents are assigned to codes."""
        return True

    @property
    def frozen(self) -> bool:
        """True if no gradient passes to the latents any more."""
        return False

    def prepare_step(self, progress: float) -> None:
        """Called before each training step; progress: the fraction of the training that is done."""
        self.progress = progress
        _ = self.started  # read now, because a compiled step cannot

    def quantize(self, latents: Float[Tensor, "M L"], num_clips: int) -> Quantized:
        """Quantizes normalized latents of `num_clips` clips, one clip after the other; in training also updates the
        quantizer's state."""
        raise NotImplementedError

    def nearest_code(self, latents: Float[Tensor, "M L"]) -> Int[Tensor, "M"]:
        """The code of each normalized latent."""
        raise NotImplementedError

    @property
    def vectors(self) -> Float[Tensor, "K L"]:
        """The vector of each code."""
        raise NotImplementedError

    def whiten(self, latents: Float[Tensor, "M L"]) -> Float[Tensor, "M L"]:
        """Normalized latents in the space in which distances to the codes are measured."""
        return latents

    def reset(self) -> None:
        """Forgets the codes, which are then found again in the training to come."""
        self.share.zero_()

    def reset_usage(self) -> None:
        """Sets the usage counts to zero."""
        self.usage.zero_()

    def normalize(self, latents: Float[Tensor, "*S L"]) -> Float[Tensor, "*S L"]:
        """Latents with mean 0 and variance 1 over their entries: codes depend on direction, not on size."""
        latents = latents if latents.dtype == torch.float64 else latents.float()
        return F.layer_norm(latents, latents.shape[-1:])

    def forward(self, latents: Float[Tensor, "B *S L"]) -> Quantized:
        """Quantizes the latents of B clips."""
        with full_precision(latents):
            latents = self.normalize(latents)
            vectors, codes, loss = self.quantize(latents.flatten(0, -2), len(latents))
            if codes is not None:
                if self.training:
                    self._count(codes)
                codes = codes.reshape(latents.shape[:-1])
            return Quantized(vectors.reshape(latents.shape), codes, loss)

    @torch.no_grad()
    def _count(self, codes: Int[Tensor, "M"]) -> None:
        counts = torch.zeros_like(self.usage).scatter_add_(0, codes, torch.ones_like(codes))
        if num_processes() > 1:
            dist.all_reduce(counts)
        self.usage += counts
        if not updates_state():
            return
        now = counts / counts.sum()
        self.share.copy_(torch.where(self.share.any(), self.share.lerp(now.to(self.share), 1 - USAGE_DECAY), now))

    @torch.no_grad()
    def nearest(self, latents: Float[Tensor, "*S L"]) -> Int[Tensor, "*S"]:
        """The code of each latent."""
        with full_precision(latents):
            flat = self.normalize(latents).flatten(0, -2)
            return self.nearest_code(flat).reshape(latents.shape[:-1])

    @torch.no_grad()
    def margin(self, latents: Float[Tensor, "*S L"]) -> Float[Tensor, "*S"]:
        """How clearly each latent belongs to its code, 0 (between two codes) .. 1 (on it); nan if there are no
        distances between codes."""
        return torch.full(latents.shape[:-1], torch.nan, device=latents.device)

    @torch.no_grad()
    def lookup(self, codes: Int[Tensor, "*S"]) -> Float[Tensor, "*S L"]:
        """The vector of each code."""
        with full_precision(codes):
            return F.embedding(codes, self.vectors)

    def logs(self) -> dict[str, Tensor]:
        """Perplexity exp(H) of the moving usage: num_codes if all codes are used equally, 1 after a collapse.

        Empty before the first codes.
        """
        if not self.started:
            return {}
        return {"perplexity": torch.special.entr(self.share.double()).sum().exp()}


def full_precision(x: Tensor) -> torch.autocast:
    """Switches autocast off: in bfloat16 distances choose other codes and averages stop moving."""
    return torch.autocast(x.device.type, enabled=False)
