"""Floating-point operations of the models, counted from their layers; the tests hold them against torch's counter."""

import torch

from genie_robotics.genie import Genie
from genie_robotics.models.layers.st_transformer import STBlock, STTransformer


def forward_flops(genie: Genie, stage: str) -> float:
    """Of one clip's forward pass through one component: matrix products of blocks, patches and heads."""
    component = getattr(genie, stage)
    length = genie.config.clip_length
    total = 0.0
    for name, module in component.named_modules():
        if isinstance(module, STTransformer):
            num_frames = length - 1 if (stage, name) == ("latent_action", "decoder") else length
            passes = 2 if stage == "dynamics" and genie.config.dynamics.past == "whole" else 1
            total += passes * transformer_flops(module, num_frames)
    num_patches = component.config.num_patches if stage == "dynamics" else component.num_patches
    outside = [m for n, m in component.named_modules() if isinstance(m, torch.nn.Linear) and ".blocks." not in f".{n}"]
    per_patch = [m for m in outside if m.in_features * m.out_features > 32 * 32]
    return total + sum(2 * m.weight.numel() for m in per_patch) * length * num_patches


def transformer_flops(transformer: STTransformer, num_frames: int) -> float:
    num_patches = len(transformer.space)
    tokens = num_frames * num_patches
    total = 0.0
    for block in transformer.blocks:
        assert isinstance(block, STBlock)  # for type checkers
        weights = sum(m.weight.numel() for m in block.modules() if isinstance(m, torch.nn.Linear))
        if block.modulation is not None:
            weights -= block.modulation.weight.numel()
            total += 2 * block.modulation.weight.numel() * num_frames
        seen = num_patches * (num_frames + 1) / 2 if block.full else num_patches  # full: causal over all frames
        inner = block.spatial.num_heads * block.spatial.head_dim
        total += 2 * weights * tokens + 4 * tokens * seen * inner
        if block.temporal is not None:
            total += 4 * tokens * num_frames * inner
    return total
