"""AdamW (the paper's), or Muon on the transformers' matrices and AdamW on the rest; and how their rates go."""

import math
from typing import Any

import torch
from torch import nn, optim

from genie_robotics.training.config import StageConfig
from genie_robotics.training.sharding import cut_like


class Optimizers:
    """One or two torch optimizers that step together under one schedule."""

    def __init__(self, module: nn.Module, config: StageConfig):
        matrices: list[nn.Parameter] = []
        rest: list[nn.Parameter] = []
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            in_block = ".blocks." in f".{name}" and parameter.ndim == 2 and ".modulation." not in name
            (matrices if in_block and config.matrix_rate else rest).append(parameter)
        adamw = optim.AdamW(
            rest,
            lr=config.learning_rate,
            betas=(config.beta1, config.beta2),
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.parts: list[optim.Optimizer] = [adamw]
        if matrices:
            self.parts.append(optim.Muon(matrices, lr=config.matrix_rate, weight_decay=config.weight_decay))
        self.peaks = [config.learning_rate, config.matrix_rate]
        self.parameters = [*rest, *matrices]

    def step(self, rate: float) -> None:
        """Takes a step at `rate` (0..1) of the peak learning rates."""
        for part, peak in zip(self.parts, self.peaks, strict=False):
            for group in part.param_groups:
                group["lr"] = peak * rate
            part.step()
            part.zero_grad(set_to_none=True)

    def state_dict(self) -> list[dict]:
        return [part.state_dict() for part in self.parts]

    def layout(self) -> list[dict]:
        """Like `state_dict`, the parameters in the place of their moments, which have their shapes."""
        return [{"state": dict(enumerate(part.param_groups[0]["params"]))} for part in self.parts]

    def load_state_dict(self, state: list[dict]) -> None:
        """Takes the moments; rates, betas and weight decay stay those of this run's options."""
        for part, values in zip(self.parts, state, strict=True):
            options = [{k: v for k, v in group.items() if k != "params"} for group in part.param_groups]
            part.load_state_dict(values)
            for parameter, moments in part.state.items():
                part.state[parameter] = {name: cut(moment, parameter) for name, moment in moments.items()}
            for group, mine in zip(part.param_groups, options, strict=True):
                group.update(mine)


def cut(moment: Any, parameter: torch.Tensor) -> Any:
    return cut_like(moment, parameter) if isinstance(moment, torch.Tensor) else moment


def rate_at(progress: float, step: int, config: StageConfig) -> float:
    """Share of the peak rate at `progress` (0..1) of a stage: a warm-up by steps, then cosine or plateau and decay."""
    warm = min(1.0, (step + 1) / max(1, config.warmup))
    if config.schedule == "cosine":
        left = (1 + math.cos(math.pi * progress)) / 2
    else:
        left = min(1.0, (1 - progress) / config.decay) if config.decay else 1.0
    return warm * (config.final_rate + (1 - config.final_rate) * left)
