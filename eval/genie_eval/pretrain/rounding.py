"""What storing weights in 16 bits changes: measured on clips, and the format that changes least is taken."""

import copy
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from genie_robotics.genie import Genie
from genie_robotics.models.config import COMPONENTS
from genie_robotics.run_folder import in_range

FORMATS = {"float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Rounding:
    """The rounded model against the one it was made from."""

    codes: float
    """Share of latent actions that are another one."""
    tokens: float
    """Share of tokens that are another one."""
    psnr_lost: float
    """Reconstruction, dB."""

    @property
    def size(self) -> tuple[float, float, float]:
        """What is compared: tokens first, there are more of them."""
        return (self.tokens + self.codes, max(self.psnr_lost, 0.0), self.tokens)


def rounded(genie: Genie, dtype: torch.dtype) -> Genie:
    """A copy whose weights went through `dtype`, as a file stores them."""
    made = copy.deepcopy(genie)
    for name in COMPONENTS:
        part = getattr(made, name)
        part.load_state_dict({key: in_range(value, dtype) for key, value in part.state_dict().items()})
    return made


def measure_rounding(genie: Genie, dtype: torch.dtype, clips: UInt8[Tensor, "B T H W 3"]) -> Rounding:
    other = rounded(genie, dtype)
    tokens, codes = genie.tokenize(clips), genie.infer_actions(clips)
    other_tokens = other.tokenize(clips)
    lost = psnr(genie.detokenize(tokens), clips) - psnr(other.detokenize(other_tokens), clips)
    return Rounding(
        codes=(codes != other.infer_actions(clips)).double().mean().item(),
        tokens=(tokens != other_tokens).double().mean().item(),
        psnr_lost=lost,
    )


def choose_format(genie: Genie, clips: UInt8[Tensor, "B T H W 3"] | None) -> tuple[str, dict[str, Any]]:
    """The 16-bit format that changes the model least, and what each changes: {format: fields of Rounding}.

    Without clips to measure on it is float16, whose mantissa has three bits more.
    """
    if clips is None:
        return "float16", {}
    measured = {name: measure_rounding(genie, dtype, clips) for name, dtype in FORMATS.items()}
    best = min(measured, key=lambda name: measured[name].size)
    return best, {name: asdict(found) for name, found in measured.items()}


def psnr(shown: UInt8[Tensor, "*S"], true: UInt8[Tensor, "*S"]) -> float:
    """dB over all pixels."""
    error = (shown.double() - true.to(shown.device).double()).square().mean().clamp_min(1e-12)
    return (10 * torch.log10(255**2 / error)).item()
