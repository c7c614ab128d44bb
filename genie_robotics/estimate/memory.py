"""Memory of a training step, measured on tensors that have a shape and no content.

Parameters, gradients and optimizer state are counted. Activations are the peak of live memory during one forward and
backward pass under torch's FakeTensorMode, which runs every operation except its arithmetic: a model of 10 billion
parameters takes seconds and no memory.
"""

import weakref
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from genie_robotics.genie import Genie
from genie_robotics.models.config import GenieConfig
from genie_robotics.models.layers.attention import attention_by
from genie_robotics.models.layers.st_transformer import STBlock
from genie_robotics.models.quantizers import Quantized, Quantizer
from genie_robotics.training.config import LoopConfig, StageConfig
from genie_robotics.training.optimizer import Optimizers
from genie_robotics.training.stages import STAGES
from genie_robotics.training.trainer import prepare

FLOAT32, BFLOAT16 = 4, 2  # bytes; weights, gradients and moments are kept in float32


@dataclass(frozen=True)
class StepMemory:
    """Bytes of one process in one stage, at the peak of a training step."""

    weights: float
    gradients: float
    """One process: those alive at the peak. Several: the buckets in which they are exchanged. With micro-batches, also
    the accumulated ones."""
    moments: float
    """Two of AdamW, one of Muon, and the average of the weights if there is one."""
    frozen: float
    """Models that the stage reads and does not train."""
    fixed: float
    """Part of the pass that does not depend on the batch: bfloat16 weights mostly, and gathered layers if sharded."""
    per_clip: float
    """Bytes of the pass that one more clip adds."""
    clips: int
    """Clips per micro-batch in this process."""

    @property
    def total(self) -> float:
        model = self.weights + self.gradients + self.moments + self.frozen
        return model + self.fixed + self.per_clip * self.clips


class LiveMemory(TorchDispatchMode):
    """Counts the bytes of live tensors and keeps their peak; parameters and buffers of `module` are not counted."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.now = self.peak = 0
        own = [*module.parameters(), *module.buffers()]
        self.sizes: dict[int, int] = {tensor.untyped_storage()._cdata: 0 for tensor in own}

    def add(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self.sizes:
            self.sizes[key] = storage.nbytes()
            self.now += self.sizes[key]
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self.remove, key)
        return tensor

    def remove(self, key: int) -> None:
        self.now -= self.sizes.pop(key, 0)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        tree_map_only(Tensor, self.add, out)
        return out


def step_memory(
    config: GenieConfig,
    stage: str,
    training: StageConfig,
    *,
    mode: str = "cotrain",
    processes: int = 1,
    bfloat16: bool = True,
    on_gpu: bool = True,
    checkpoint_activations: bool = False,
    sharded: bool = False,
) -> StepMemory:
    """Memory of one of the `processes` that share the batch.

    Args:
        on_gpu: with the attention of a GPU, otherwise with that of a CPU.
        sharded: weights, gradients and optimizer state are sharded across the processes (`--sharding full`).
    """
    with torch.device("meta"):
        genie = Genie(config)
        module = STAGES[stage](genie, mode)
        optimizers = Optimizers(module, training).optimizers
    muon = sum(p.numel() for o in optimizers[1:] for p in o.param_groups[0]["params"])
    all_weights = sum(p.numel() for p in module.parameters())
    trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
    frozen = sum(p.numel() for other in STAGES[stage].reads(config, mode) for p in getattr(genie, other).parameters())
    averaged = all_weights if training.ema else 0
    clips = training.batch_size // (processes * training.micro_batches)
    measure = partial(
        pass_bytes, config, stage, mode=mode, bfloat16=bfloat16, on_gpu=on_gpu, checkpoint=checkpoint_activations,
        bfloat16_weights=sharded,
    )  # fmt: skip
    activations = measure(clips, keep_gradients=False)
    other = measure(clips - 1 if clips > 1 else 2, keep_gradients=False)
    slope = abs(activations - other)
    per_clip = min(slope, activations / clips)
    shards = processes if sharded else 1
    if training.micro_batches > 1 and not sharded:  # DDP accumulates outside of its buckets
        gradients = float(FLOAT32 * trained * (1 if processes == 1 else 2))
    elif processes == 1:
        gradients = float(measure(clips) - activations)
    else:
        gradients = FLOAT32 * trained / shards
    return StepMemory(
        weights=FLOAT32 * all_weights / shards,
        gradients=gradients,
        moments=FLOAT32 * (2 * (trained - muon) + muon + averaged) / shards,
        frozen=FLOAT32 * frozen,
        fixed=(gathered_bytes(module, bfloat16) if sharded else 0) + activations - per_clip * clips,
        per_clip=per_clip,
        clips=clips,
    )


def gathered_bytes(module: nn.Module, bfloat16: bool) -> float:
    """Weights that a sharded model gathers: two layers, as one computes while the next arrives, and those outside of
    layers."""
    layers = [
        sum(p.numel() for p in layer.parameters())
        for block in module.modules()
        if isinstance(block, STBlock)
        for layer in block.layers()
    ]
    outside = sum(p.numel() for p in module.parameters()) - sum(layers)
    return 2 * (BFLOAT16 if bfloat16 else FLOAT32) * max(layers) + FLOAT32 * outside


def pass_bytes(
    config: GenieConfig,
    stage: str,
    clips: int,
    *,
    mode: str = "cotrain",
    bfloat16: bool = True,
    on_gpu: bool = True,
    checkpoint: bool = False,
    keep_gradients: bool = True,
    bfloat16_weights: bool = False,
) -> int:
    """Peak of live memory in one forward and backward pass of a stage, without its weights.

    Args:
        keep_gradients: gradients of the weights stay until the end; otherwise each is freed at once.
        bfloat16_weights: the layers' weights are already bfloat16, as in a sharded model, so autocast makes no copies.
    """
    with FakeTensorMode():
        genie = Genie(config)
        for part in (genie.tokenizer, genie.latent_action):
            part.quantizer = NoQuantizer(part.config.quantizer)
        module = prepare(STAGES[stage](genie, mode), LoopConfig(checkpoint_activations=checkpoint))
        if bfloat16_weights and bfloat16:
            for block in module.modules():
                for layer in block.layers() if isinstance(block, STBlock) else ():
                    to_bfloat16(layer)
        if not keep_gradients:
            for parameter in module.parameters():
                if parameter.requires_grad:
                    parameter.register_post_accumulate_grad_hook(free_gradient)
        memory = LiveMemory(genie)
        with memory, attention_by("fused" if on_gpu else None):
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                frames = config.clip_length + STAGES[stage].has_reference(config)
                loss, _ = module(torch.empty(clips, frames, *config.image_size, 3, dtype=torch.uint8))
            loss.backward()
    return memory.peak


class NoQuantizer(Quantizer):
    """Passes latents through: codes depend on content, which the tensors do not have."""

    def quantize(self, latents: Tensor, num_clips: int) -> Quantized:
        return Quantized(latents, None, latents.new_zeros(()))

    def nearest_code(self, latents: Tensor) -> Tensor:
        return torch.zeros(len(latents), dtype=torch.long)

    @property
    def vectors(self) -> Tensor:
        return torch.zeros(self.num_codes, self.config.latent_dim)

    def logs(self) -> dict[str, Tensor]:
        return {}


def to_bfloat16(layer: nn.Module) -> None:
    """Like `layer.bfloat16()`, which does not accept tensors without content."""
    for part in layer.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            setattr(part, name, nn.Parameter(parameter.detach().bfloat16(), parameter.requires_grad))


def free_gradient(parameter: Tensor) -> None:
    parameter.grad = None
