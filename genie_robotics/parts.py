"""Models of which a part was left out: latent actions without their decoder, a judge without a world."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from genie_datasets.errors import UserError
from genie_robotics.config import GenieConfig
from genie_robotics.genie import Genie
from genie_robotics.latent_action import LatentActionModel

NO_DECODER = (
    "this latent action model has no decoder, which serves training alone and was left out when it was exported: "
    "train one (genie-robotics train) to predict frames from latent actions"
)
ALONE = (
    "this is a latent action model alone, made to judge other models' dreams, and cannot play; give the world's folder"
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


class ActionReader(Genie):
    """A Genie with its latent action model alone: it infers actions and cannot play."""

    def __init__(self, config: GenieConfig):
        nn.Module.__init__(self)
        self.config = config = config.resolved()
        if config.latent_action.input == "tokens":
            raise UserError("a latent action model that reads tokens cannot do without its tokenizer: keep the whole")
        self.latent_action = LatentActionModel(config.latent_action)
        for name in ("tokenizer", "dynamics"):
            setattr(self, name, LeftOut(ALONE))

    def save_pretrained(self, run: str | Path) -> None:
        from genie_robotics.run_folder import save_component, save_config

        save_config(self.config, Path(run), components=["latent_action"])
        save_component(self, "latent_action", Path(run))

    @property
    def device(self) -> torch.device:
        return self.latent_action.encoder_in.weight.device
