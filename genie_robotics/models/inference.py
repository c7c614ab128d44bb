"""How models compute without a gradient: number of threads and precision, chosen in one place."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from genie_robotics.models.precision import inference_autocast
from genie_robotics.models.threads import threads_for


@contextmanager
def inference(device: torch.device, *models: nn.Module) -> Iterator[None]:
    """One thread for small models on a CPU, and bfloat16 on a GPU that computes it natively."""
    with threads_for(*models), inference_autocast(device):
        yield
