"""Configuration of the quantizers."""

from dataclasses import dataclass, field
from typing import Literal

from genie_robotics.models.quantizers.levels import chosen_levels


@dataclass
class VQConfig:
    """Vector quantization by moving averages."""

    commitment: float = 0.25
    """Weight of the commitment loss."""
    decay: float = 0.98
    """Decay of the moving averages that the codes follow."""
    quantize_after_steps: int = 300
    """Training steps before quantization starts."""
    quantize_after_fraction: float = 0.3
    """Fraction of the training after which quantization starts in any case."""
    dead_code_threshold: float = 0.15
    """A code used less than this fraction of 1 / num_codes is replaced by a latent of the batch; 0 replaces none."""
    num_remembered: int = 4096
    """Latents kept for the k-means that starts the codebook."""
    whiten: float = 0.0
    """Distances are measured on whitened latents; directions below this fraction of the widest stay small. 0 does not
    whiten (paper)."""
    freeze_after_init: bool = False
    """The codes stay at their k-means centers, and no gradient passes through them. Without it they keep following the
    latents, straight-through (paper)."""

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise ValueError(f"vq.decay must be at least 0 and below 1, got {self.decay}")
        for name in ("commitment", "dead_code_threshold", "quantize_after_steps"):
            if getattr(self, name) < 0:
                raise ValueError(f"vq.{name} must be at least 0, got {getattr(self, name)}")
        if not 0 <= self.whiten < float("inf"):
            raise ValueError(f"vq.whiten must be a finite number of at least 0, got {self.whiten}")


@dataclass
class FSQConfig:
    """Finite scalar quantization."""

    levels: tuple[int, ...] = ()
    """Levels of each number; their product is num_codes. Empty: chosen from num_codes."""


@dataclass
class QuantizerConfig:
    """Number and width of the codes, and which quantizer assigns them."""

    num_codes: int = 8
    """Codes of the codebook."""
    latent_dim: int = 32
    """Width of a code (Genie tables 5 and 7: 32)."""
    kind: Literal["vq", "fsq"] = "vq"
    """vq: codes follow the latents (paper); fsq: a fixed grid that cannot collapse."""
    vq: VQConfig = field(default_factory=VQConfig)
    fsq: FSQConfig = field(default_factory=FSQConfig)

    def __post_init__(self) -> None:
        if self.kind not in ("vq", "fsq"):
            raise ValueError(f"quantizer.kind must be vq or fsq, got {self.kind!r}")
        if self.kind == "fsq":
            chosen_levels(self.num_codes, self.fsq.levels)
        elif self.fsq.levels:
            raise ValueError("quantizer.fsq.levels needs quantizer.kind fsq")
