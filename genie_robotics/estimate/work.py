"""Floating-point operations of training steps and of dreamt frames."""

import torch

from genie_robotics.estimate.flops import forward_flops, transformer_flops
from genie_robotics.genie import Genie
from genie_robotics.models.config import GenieConfig
from genie_robotics.models.layers.st_transformer import STBlock, STTransformer

BACKWARD = 2  # passes forward that one backward costs
PEAK = {"a100": 312, "h100": 989, "h200": 989, "l40s": 362, "rtx4090": 165}
"""Dense bfloat16 TFLOP/s of data sheets; training reaches a share of it."""
MEMORY = {"a100": 80, "h100": 80, "h200": 141, "l40s": 48, "rtx4090": 24}
"""GB of data sheets."""
FREE = 0.9
"""Of these, what is left beside the driver, the processes' exchange and what the allocator cannot use."""


def step_flops(
    config: GenieConfig, stage: str, batch_size: int, checkpoint_activations: bool = False, mode: str = "cotrain"
) -> float:
    """Of one optimizer step over the whole batch, with the frozen models that the stage reads."""
    with torch.device("meta"):
        genie = Genie(config)
    passes = 1 + BACKWARD + (1 if checkpoint_activations else 0)
    trained = ("latent_action", "dynamics") if stage == "joint" else (stage,)
    clip = sum(passes * forward_flops(genie, part) for part in trained)
    if stage == "joint" and mode == "end_to_end":  # without the latent actions' decoder
        clip += passes * (encoder_flops(genie, "latent_action") - forward_flops(genie, "latent_action"))
    if stage in ("dynamics", "joint"):
        clip += encoder_flops(genie, "tokenizer")
    if stage == "dynamics":
        clip += encoder_flops(genie, "latent_action")
    return clip * batch_size


def encoder_flops(genie: Genie, part: str) -> float:
    """Of one clip through the encoder alone."""
    component = getattr(genie, part)
    first = component.patch_in if part == "tokenizer" else component.encoder_in
    tokens = genie.config.clip_length * component.num_patches
    return transformer_flops(component.encoder, genie.config.clip_length) + 2 * first.weight.numel() * tokens


def frame_flops(config: GenieConfig) -> float:
    """Of one dreamt frame with a full window behind it: all MaskGIT steps, the pass that stores it, its decoding."""
    with torch.device("meta"):
        genie = Genie(config)
    c, dynamics, tokenizer = config.dynamics, genie.dynamics, genie.tokenizer
    steps = min(c.maskgit_steps, c.num_patches)
    guided = 2 if c.guidance != 1 else 1
    outside = sum(2 * layer.weight.numel() for layer in (dynamics.before_in,) if layer is not None) * c.num_patches
    one = one_frame_flops(dynamics.transformer, config.clip_length) + outside
    head = 2 * dynamics.head.weight.numel() * c.num_patches
    decoding = one_frame_flops(tokenizer.decoder, config.clip_length)
    decoding += 2 * tokenizer.num_patches * sum(m.weight.numel() for m in (tokenizer.from_latent, tokenizer.patch_out))
    return guided * steps * (one + head) + one + decoding


def one_frame_flops(transformer: STTransformer, num_frames: int) -> float:
    """Of one frame whose past is cached."""
    tokens = len(transformer.space)
    total = 0.0
    for block in transformer.blocks:
        assert isinstance(block, STBlock)  # for type checkers
        inner = block.spatial.num_heads * block.spatial.head_dim
        weights = sum(m.weight.numel() for m in block.modules() if isinstance(m, torch.nn.Linear))
        if block.modulation is not None:
            weights -= block.modulation.weight.numel()
            total += 2 * block.modulation.weight.numel()
        total += 2 * weights * tokens + 4 * tokens * tokens * inner
        if block.temporal is not None:
            total += 4 * tokens * num_frames * inner
    return total
