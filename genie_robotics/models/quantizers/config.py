"""Configuration of a codebook."""

from dataclasses import dataclass
from typing import Literal

from genie_robotics.models.quantizers.fsq import chosen_levels


@dataclass
class CodebookConfig:
    num_codes: int = 8
    latent_dim: int = 32
    """Width of a code (Genie tables 5 and 7: 32 for both codebooks)."""
    kind: Literal["vq", "fsq"] = "vq"
    """'vq' follows the latents (paper); 'fsq' rounds them to a fixed grid, which cannot collapse as vectors do."""
    levels: tuple[int, ...] = ()
    """fsq: levels of each number; their product is num_codes. Empty: chosen from num_codes."""
    commitment: float = 0.25
    """The rest is for vq alone."""
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
    whiten: float = 0.0
    """Distances are measured with the latents' directions made alike in spread (whitening.py), those under
    this share of the widest excepted; 0 measures latents as they come (paper)."""
    hold: bool = False
    """Once quantisation has started the codes stand still and nothing passes through them to the encoder: it has
    learnt without the bottleneck, and the decoder learns to read the codes. Otherwise straight-through (paper)."""

    def __post_init__(self) -> None:
        if self.kind not in ("vq", "fsq"):
            raise ValueError(f"kind must be vq or fsq, not {self.kind!r}")
        if not (0 <= self.decay < 1 and self.commitment >= 0 and self.revive_below >= 0 and self.start_after >= 0):
            raise ValueError("decay must be in [0, 1), commitment, revive_below and start_after 0 or more")
        if not 0 <= self.whiten < float("inf"):
            raise ValueError(f"whiten must be 0 or more, not {self.whiten}")
        if self.kind == "fsq" and (self.whiten or self.hold):
            raise ValueError("whiten and hold are for kind vq: FSQ's grid is fixed, and learnt through")
        if self.kind == "fsq":
            chosen_levels(self.num_codes, self.levels)
        elif self.levels:
            raise ValueError("levels are for kind fsq; leave them out, or choose that kind")
