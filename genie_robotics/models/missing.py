"""A placeholder for a part that a model was stored without."""

from typing import Any

from torch import nn

from genie_datasets.base.errors import UserError


class MissingModule(nn.Module):
    """Raises UserError with `reason` where it is used. Has no parameters, so that loading stays strict."""

    def __init__(self, reason: str):
        super().__init__()
        self.reason = reason

    def forward(self, *_: Any, **__: Any) -> Any:
        raise UserError(self.reason)

    encode = decode = forward
