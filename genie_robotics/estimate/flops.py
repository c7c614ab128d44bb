"""Floating-point operations of training steps and of dreamed frames, counted from the layers of the models."""

import torch

from genie_robotics.genie import Genie
from genie_robotics.models.config import GenieConfig
from genie_robotics.models.layers.st_transformer import STBlock, STTransformer
from genie_robotics.models.video_tokenizer import ReferenceTokenizer
from genie_robotics.training.stages import STAGES

BACKWARD = 2  # cost of a backward pass in forward passes


def step_flops(
    config: GenieConfig, stage: str, batch_size: int, checkpoint_activations: bool = False, mode: str = "cotrain"
) -> float:
    """Operations of one optimizer step over the whole batch, with the frozen models that the stage reads."""
    with torch.device("meta"):
        genie = Genie(config)
    passes = 1 + BACKWARD + (1 if checkpoint_activations else 0)
    kind = STAGES[stage]
    clip = sum(passes * forward_flops(genie, part) for part in kind.trains)
    if "latent_action" in kind.trains and mode == "end_to_end":  # which does not use its decoder
        clip += passes * (encoder_flops(genie, "latent_action") - forward_flops(genie, "latent_action"))
    clip += sum(encoder_flops(genie, part) for part in kind.reads(config, mode))
    if "dynamics" in kind.trains and genie.tokenizer.uses_reference:  # which reads the frames that tokens show
        clip += forward_flops(genie, "tokenizer") - encoder_flops(genie, "tokenizer")
    return clip * batch_size


def frame_flops(config: GenieConfig) -> float:
    """Operations of one dreamed frame after a full window: MaskGIT steps, the pass that fills the cache, decoding."""
    with torch.device("meta"):
        genie = Genie(config)
    dynamics, tokenizer, num_patches = genie.dynamics, genie.tokenizer, config.dynamics.num_patches
    steps = min(config.dynamics.maskgit_steps, num_patches)
    hidden = transformer_flops(dynamics.transformer, config.clip_length, new_frames=1)
    if dynamics.prev_frame_in is not None:
        hidden += 2 * dynamics.prev_frame_in.weight.numel() * num_patches
    if dynamics.context_in is not None:
        hidden += 2 * dynamics.context_in.weight.numel() * num_patches
    head = 2 * dynamics.head.weight.numel() * num_patches
    decoding = transformer_flops(tokenizer.decoder, config.clip_length if tokenizer.temporal else 1, new_frames=1)
    layers = [tokenizer.from_latent, tokenizer.patch_out]
    if isinstance(tokenizer, ReferenceTokenizer):
        layers.append(tokenizer.reference_in)
    decoding += 2 * tokenizer.num_patches * sum(layer.weight.numel() for layer in layers)
    return steps * (hidden + head) + hidden + decoding


def forward_flops(genie: Genie, component: str) -> float:
    """Operations of one clip's forward pass through a component: matrix products of blocks, patches and heads."""
    model = getattr(genie, component)
    length = genie.config.clip_length
    total = 0.0
    for name, module in model.named_modules():
        if isinstance(module, STTransformer):
            num_frames = length - 1 if (component, name) == ("latent_action", "decoder") else length
            total += transformer_flops(module, num_frames)
    num_patches = model.config.num_patches if component == "dynamics" else model.num_patches
    outside = [(n, m) for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and ".blocks." not in f".{n}"]
    for name, layer in outside:
        if layer.weight.numel() > 32 * 32:  # smaller ones are per frame or of the quantizer
            num_frames = 1 if name == "reference_in" else length
            total += 2 * layer.weight.numel() * num_patches * num_frames
    return total


def encoder_flops(genie: Genie, component: str) -> float:
    """Operations of one clip's forward pass through the encoder of a component."""
    model = getattr(genie, component)
    first = model.patch_in if component == "tokenizer" else model.encoder_in
    tokens = genie.config.clip_length * model.num_patches
    return transformer_flops(model.encoder, genie.config.clip_length) + 2 * first.weight.numel() * tokens


def transformer_flops(transformer: STTransformer, num_frames: int, new_frames: int | None = None) -> float:
    """Operations for the last `new_frames` (default: all) of `num_frames`; the others are cached."""
    new_frames = num_frames if new_frames is None else new_frames
    num_patches = len(transformer.space)
    tokens = new_frames * num_patches
    total = 0.0
    for block in transformer.blocks:
        assert isinstance(block, STBlock)  # for type checkers
        weights = sum(m.weight.numel() for m in block.modules() if isinstance(m, torch.nn.Linear))
        if block.modulation is not None:  # once per frame, not per token
            weights -= block.modulation.weight.numel()
            total += 2 * block.modulation.weight.numel() * new_frames
        inner = block.spatial.num_heads * block.spatial.head_dim
        total += 2 * weights * tokens + 4 * tokens * num_patches * inner
        if block.temporal is not None:
            total += 4 * tokens * num_frames * inner
    return total
