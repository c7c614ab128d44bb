"""AdamW (paper), or Muon on the transformers' matrices and AdamW on the other weights; and their learning rates."""

import math
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn, optim

from genie_robotics.training.config import StageConfig
from genie_robotics.training.muon import Muon
from genie_robotics.training.sharding import shard_like


class Optimizers:
    """AdamW and, if asked for, Muon, that step together under one schedule.

    precision: type in which Muon orthogonalizes; best the one that the device computes natively.
    """

    def __init__(self, module: nn.Module, config: StageConfig, precision: torch.dtype = torch.float32):
        matrices: list[nn.Parameter] = []
        rest: list[nn.Parameter] = []
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            in_block = ".blocks." in f".{name}" and parameter.ndim == 2 and ".modulation." not in name
            (matrices if in_block and config.muon_learning_rate else rest).append(parameter)
        adamw = optim.AdamW(
            rest,
            lr=config.learning_rate,
            betas=(config.beta1, config.beta2),
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.optimizers: list[optim.Optimizer] = [adamw]
        if matrices:
            self.optimizers.append(Muon(matrices, config.muon_learning_rate, config.weight_decay, precision))
        self.peaks = [config.learning_rate, config.muon_learning_rate]
        self.parameters = [*rest, *matrices]

    def step(self, rate: float, finite: Bool[Tensor, ""] | None = None) -> None:
        """Takes a step at the fraction `rate` of the peak learning rates.

        finite: False leaves weights and moments as they are; read on the device, so that the CPU need not wait for it.
        """
        found_inf = None if finite is None else (~finite).float()
        for optimizer, peak in zip(self.optimizers, self.peaks, strict=False):
            for group in optimizer.param_groups:
                group["lr"] = peak * rate
            vars(optimizer).update(grad_scale=None, found_inf=found_inf)  # torch's interface for skipped steps
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> list[dict]:
        return [part.state_dict() for part in self.optimizers]

    def layout(self) -> list[dict]:
        """Like `state_dict`, with parameters in place of their moments, which have the same shapes."""
        return [{"state": dict(enumerate(part.param_groups[0]["params"]))} for part in self.optimizers]

    def load_state_dict(self, state: list[dict]) -> None:
        """Loads the moments; rates, betas and weight decay stay those of this run's options."""
        for part, values in zip(self.optimizers, state, strict=True):
            options = [{k: v for k, v in group.items() if k != "params"} for group in part.param_groups]
            part.load_state_dict(values)
            for parameter, moments in part.state.items():
                part.state[parameter] = {name: cut(moment, parameter) for name, moment in moments.items()}
            for group, mine in zip(part.param_groups, options, strict=True):
                group.update(mine)


def cut(moment: Any, parameter: torch.Tensor) -> Any:
    return shard_like(moment, parameter) if isinstance(moment, torch.Tensor) else moment


def rate_at(progress: float, step: int, config: StageConfig) -> float:
    """Fraction of the peak rate at `progress` (0 .. 1) of a stage: warm-up, then cosine or plateau and decay."""
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    if config.schedule == "cosine":
        left = (1 + math.cos(math.pi * progress)) / 2
    else:
        left = min(1.0, (1 - progress) / config.decay) if config.decay else 1.0
    return warm * (config.final_rate + (1 - config.final_rate) * left)
