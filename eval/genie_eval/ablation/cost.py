"""The cost of a variant: parameters, time per step, and memory per clip."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from genie_eval.ablation.plan import Plan
from genie_robotics.genie import Genie
from genie_robotics.health.doctor import some_clips
from genie_robotics.training.stages import STAGES

if TYPE_CHECKING:
    from genie_datasets import Split

CLIPS = 2  # clips of the step whose memory is counted


def step_cost(genie: Genie, plan: Plan, run: Path, split: "Split") -> dict[str, Any]:
    """{stage: {steps, batch_size, parameters, ms_a_step, saved_mb_a_clip}} of the stages that the plan trains itself.

    ms_a_step: milliseconds per step, median over training, so that a busy machine changes it little. Compare only
        trials that were trained under similar conditions.
    saved_mb_a_clip: MB per clip that a step keeps for the backward pass. This part of the memory grows with the batch,
        and it is the same on all machines of one kind.
    """
    clips = some_clips(split, plan.model, CLIPS).to(genie.device)
    costs = {}
    for stage in plan.stages:
        config = plan.training.stage(stage)
        costs[stage] = {
            "steps": config.steps,
            "batch_size": config.batch_size,
            "parameters": sum(genie.num_parameters()[name] for name in STAGES[stage].trains),
            "ms_a_step": step_time(run, stage, config.batch_size * plan.model.clip_length),
            "saved_mb_a_clip": saved_bytes(STAGES[stage](genie, plan.training.mode), clips) / len(clips) / 1e6,
        }
    genie.eval().requires_grad_(False)
    return costs


def step_time(run: Path, stage: str, frames: int) -> float | None:
    """Milliseconds per step of `frames` frames: median over metrics.jsonl without its first line, which includes the
    start."""
    speeds = []
    for line in (run / "metrics.jsonl").read_text().splitlines():
        entry = json.loads(line)
        if entry.get("stage") == stage and entry.get("frames_per_s"):
            speeds.append(entry["frames_per_s"])
    return float(1000 * frames / np.median(speeds[1:] or speeds)) if speeds else None


def saved_bytes(module: torch.nn.Module, clips: torch.Tensor) -> int:
    """Bytes of all tensors that a forward pass keeps for its backward pass, without parameters; each storage once."""
    parameters = {p.untyped_storage().data_ptr() for p in module.parameters()}
    sizes: dict[int, int] = {}
    kept: list[torch.Tensor] = []  # keeps the tensors alive, so that no address is used twice

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            sizes[storage.data_ptr()] = storage.nbytes()
            kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss, _ = module(clips)
    del loss
    return sum(sizes.values())
