"""A moving average of the weights, kept beside the live ones and saved as the result of a stage."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from genie_robotics.training.sharding import cut_like


class Average:
    """The exponential moving average of the parameters that `module` trains.

    Early on the decay is min(decay, (1 + step) / (10 + step)), so that a short run is no average of its random start.
    A decay of 0 switches everything off: no memory is taken, and the weights stay what they are.

    torch's AveragedModel is not used whole: it copies the module with all it holds, frozen parts too, and its copy of
    the buffers fails where a buffer changes its size (the latents that a codebook remembers). Its averaging is.

    Buffers are not averaged: where the average is put in, a module keeps its live ones. They are the codebooks, which
    follow the live encoder within 1/(1 - .98) = 50 steps. The averaged encoder lags behind by more, but averaged
    vectors are worse: a code that was revived in between is then halfway between two meanings. On a toy tokenizer of 64
    codes, two seeds, four settings: live vectors under averaged weights cost 0 to 0.9 dB of PSNR against vectors
    estimated anew, averaged vectors up to 20 dB (docs/LOG.md).
    """

    def __init__(self, module: nn.Module, decay: float):
        if not 0 <= decay < 1:
            raise ValueError(f"the decay of the average must be at least 0 and below 1, not {decay}")
        self.decay = decay
        self.live = {n: p for n, p in module.named_parameters() if p.requires_grad} if decay else {}
        self.values = {name: p.detach().clone() for name, p in self.live.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes in the weights after optimizer step `step` (0, 1, ...)."""
        if self.values:
            decay = min(self.decay, (1 + step) / (10 + step))
            get_ema_multi_avg_fn(decay)(list(self.values.values()), [p.detach() for p in self.live.values()], step)

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        """Gives `module` the averaged weights, for good; `module` is the averaged one or built like it."""
        parameters = dict(module.named_parameters())
        for name, value in self.values.items():
            parameters[name].copy_(value)

    @contextmanager
    def applied(self, module: nn.Module) -> Iterator[None]:
        """The averaged weights inside the `with`, the live ones after it, to the bit."""
        parameters = dict(module.named_parameters())
        live = {name: parameters[name].detach().clone() for name in self.values}
        self.copy_to(module)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, value in live.items():
                    parameters[name].copy_(value)

    def state_dict(self) -> dict[str, Tensor]:
        return dict(self.values)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Raises ValueError where `state` is of other parameters, or of a run with the average switched on or off."""
        differing = sorted(state.keys() ^ self.values.keys())
        if differing:
            raise ValueError(f"the stored average is of other parameters ({differing[0]}); use the same ema as before")
        for name, value in self.values.items():
            value.copy_(cut_like(state[name], value))
