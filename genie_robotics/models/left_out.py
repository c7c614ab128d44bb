"""Models of which a part was left out: latent actions without their decoder, a judge without a world."""

from __future__ import annotations

from typing import Any

from torch import nn

from genie_datasets.base.errors import UserError
from genie_robotics.models.latent_action import LatentActionModel

NO_DECODER = (
    "this latent action model has no decoder, which serves training alone and was left out when it was exported: "
    "train one (genie-robotics train) to predict frames from latent actions"
)


class LeftOut(nn.Module):
    """Stands where a part was, and tells whoever uses it. Without parameters, so that loading stays strict."""

    def __init__(self, why: str):
        super().__init__()
        self.why = why

    def forward(self, *_: Any, **__: Any) -> Any:
        raise UserError(self.why)

    encode = decode = forward


def decoder_of(model: LatentActionModel) -> dict[str, nn.Module]:
    """What is "thrown away after training" (Genie section 2.1), more than half of the model, by its names there."""
    parts = {id(part) for part in model.decoder_parts()}
    return {name: part for name, part in model.named_children() if id(part) in parts}


def drop_decoder(model: LatentActionModel) -> None:
    for name in decoder_of(model):
        setattr(model, name, LeftOut(NO_DECODER))


def has_decoder(model: nn.Module) -> bool:
    return not any(isinstance(part, LeftOut) for part in model.children())
