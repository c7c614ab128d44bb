"""What a variant costs: parameters, milliseconds a step, and the memory of a step."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from genie_eval.ablation.plan import Plan
from genie_robotics.genie import Genie
from genie_robotics.health.doctor import some_clips
from genie_robotics.training.stages import TRAINED, build_stage

if TYPE_CHECKING:
    from genie_datasets import Split

CLIPS = 2  # of the step whose memory is counted


def step_cost(genie: Genie, plan: Plan, run: Path, split: "Split") -> dict[str, Any]:
    """{stage: {steps, batch_size, parameters, ms_a_step, saved_mb_a_clip}} of the stages that the plan trains itself.

    ms_a_step: median over training, so that it holds where the machine had other work for some of the time; compare it
    only between cells that were trained under like conditions. saved_mb_a_clip: bytes that a step keeps for the
    backward pass, a clip: the part of memory that grows with the batch, the same on every machine of one kind.
    """
    clips = some_clips(split, plan.model, CLIPS).to(genie.device)
    costs = {}
    for stage in plan.stages:
        config = plan.training.stage(stage)
        costs[stage] = {
            "steps": config.steps,
            "batch_size": config.batch_size,
            "parameters": sum(genie.num_parameters()[name] for name in TRAINED[stage]),
            "ms_a_step": ms_a_step(run, stage, config.batch_size * plan.model.clip_length),
            "saved_mb_a_clip": saved_bytes(build_stage(genie, stage, plan.training.mode), clips) / len(clips) / 1e6,
        }
    genie.eval().requires_grad_(False)
    return costs


def ms_a_step(run: Path, stage: str, frames: int) -> float | None:
    """Median over the lines of metrics.jsonl, without the first, which has the start in it."""
    speeds = []
    for line in (run / "metrics.jsonl").read_text().splitlines():
        entry = json.loads(line)
        if entry.get("stage") == stage and entry.get("frames_per_s"):
            speeds.append(entry["frames_per_s"])
    return float(1000 * frames / np.median(speeds[1:] or speeds)) if speeds else None


def saved_bytes(module: torch.nn.Module, clips: torch.Tensor) -> int:
    """Of all tensors that one forward pass keeps for its backward pass, parameters apart; each storage once."""
    parameters = {p.untyped_storage().data_ptr() for p in module.parameters()}
    sizes: dict[int, int] = {}
    kept: list[torch.Tensor] = []  # alive, so that no address is used twice

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
