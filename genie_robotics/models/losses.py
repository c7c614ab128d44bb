"""Parts of the components' losses."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from genie_robotics.models.distributed import mean_over_processes

Logs = dict[str, Tensor]
"""Named scalars for the log, detached; they become numbers only when they are printed."""


def motion_weights(frames: Float[Tensor, "B T H W 3"], strength: float) -> Tensor | float:
    """Loss weights of pixels, mean about 1, that favor what moves: robots are small in front of still tables."""
    if not strength:
        return 1.0
    change = (frames[:, 1:] - frames[:, :-1]).abs().mean(-1, keepdim=True)
    change = F.avg_pool2d(change.flatten(0, 1).permute(0, 3, 1, 2), 5, stride=1, padding=2)
    change = change.permute(0, 2, 3, 1).reshape(*frames[:, 1:, ..., :1].shape)
    change = torch.cat([change[:, :1], change], dim=1)
    weight = 1 + strength * change / mean_over_processes(change.mean()).clamp_min(1e-6)
    return weight / (1 + strength)
