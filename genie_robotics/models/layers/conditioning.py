"""Conditioning: how a frame's latent action enters a transformer.

A new way is a subclass of `Conditioning` and an entry of `CONDITIONINGS`.
"""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

ActionInput = Literal["add", "prepend", "adaln"]
"""Name of a conditioning, as in configurations."""


class Conditioning:
    """Added to every patch (Genie section 2.1)."""

    num_tokens: ClassVar[int] = 0
    """Tokens of a frame beside its patches."""
    in_blocks: ClassVar[bool] = False
    """True if the blocks scale and shift the input of their layers by the condition."""

    @staticmethod
    def enter(x: Float[Tensor, "B T N D"], condition: Float[Tensor, "B T D"]) -> Float[Tensor, "B T M D"]:
        """The transformer's input with the condition."""
        return x + condition.unsqueeze(2)


class Prepend(Conditioning):
    """A token before the frame's patches (found necessary by the Jasmine reproduction)."""

    num_tokens = 1

    @staticmethod
    def enter(x: Float[Tensor, "B T N D"], condition: Float[Tensor, "B T D"]) -> Float[Tensor, "B T M D"]:
        return torch.cat([condition.unsqueeze(2).to(x.dtype), x], dim=2)


class AdaLN(Conditioning):
    """Scales and shifts the input of every layer of every block (Peebles and Xie 2022)."""

    in_blocks = True

    @staticmethod
    def enter(x: Float[Tensor, "B T N D"], condition: Float[Tensor, "B T D"]) -> Float[Tensor, "B T M D"]:
        return x


CONDITIONINGS: dict[str, type[Conditioning]] = {"add": Conditioning, "prepend": Prepend, "adaln": AdaLN}


def check_action_input(name: str) -> None:
    """Raises ValueError if there is no such conditioning."""
    if name not in CONDITIONINGS:
        raise ValueError(f"action_input must be one of {', '.join(CONDITIONINGS)}, got {name!r}")
