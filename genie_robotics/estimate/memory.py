"""Memory of a training step, found by going through it with tensors that have a shape and no content.

Parameters, gradients and the optimizer's moments are counted. What the pass itself takes is the most that lives at once
during forward and backward under torch's FakeTensorMode, where every operation happens but the arithmetic: a model of
10 billion parameters takes seconds and no memory.
"""

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from genie_robotics.genie import Genie
from genie_robotics.models.config import GenieConfig
from genie_robotics.models.latent_action import shift_to_next_frame
from genie_robotics.models.layers.attention import attention_by
from genie_robotics.models.layers.st_transformer import STBlock
from genie_robotics.models.video_tokenizer import motion_weights
from genie_robotics.training.config import LoopConfig, StageConfig
from genie_robotics.training.optimizer import Optimizers
from genie_robotics.training.stages import build_stage
from genie_robotics.training.trainer import prepare

WHOLE = 4  # bytes of a number in float32, which weights, gradients and moments are kept in


@dataclass(frozen=True)
class StepMemory:
    """Bytes of one stage in one process, at the moment when it holds most."""

    weights: float
    gradients: float
    """Of several processes, those that are kept in buckets to be exchanged, and those of the parts before the last
    where a batch is taken in parts; of one process, what there is at that moment."""
    moments: float
    """AdamW's two, Muon's one, and the average of the weights where there is one."""
    frozen: float
    """Models that the stage reads and does not train."""
    fixed: float
    """Of the pass, whatever the batch: weights in bfloat16, mostly; of a model that is cut, the layers gathered."""
    per_clip: float
    """Of the pass, for one clip more than there are."""
    clips: int
    """Clips at once in this process: of a step, or of each part of it where there are several (`accumulate`)."""

    @property
    def total(self) -> float:
        model = self.weights + self.gradients + self.moments + self.frozen
        return model + self.fixed + self.per_clip * self.clips


class Living(TorchDispatchMode):
    """Counts the bytes of tensors that are alive, and keeps the most there were; `module`'s own are not counted."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.now = self.most = 0
        own = [*module.parameters(), *module.buffers()]
        self.sizes: dict[int, int] = {tensor.untyped_storage()._cdata: 0 for tensor in own}

    def meet(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self.sizes:
            self.sizes[key] = storage.nbytes()
            self.now += self.sizes[key]
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self.part, key)
        return tensor

    def part(self, key: int) -> None:
        self.now -= self.sizes.pop(key, 0)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        tree_map_only(Tensor, self.meet, out)
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
    cut: bool = False,
) -> StepMemory:
    """Of one process among `processes`, which share the batch.

    Args:
        stage: tokenizer, latent_action, dynamics, or joint (the last two at once, as `mode` has them).
        on_gpu: with the attention that a GPU takes; else with that of a CPU.
        cut: what is trained is cut over the processes (`--sharding full`); else each holds the whole model.
    """
    with torch.device("meta"):
        genie = Genie(config)
        module = build_stage(genie, stage, mode)
        optimizers = Optimizers(module, training)
    muon = sum(p.numel() for p in optimizers.parts[1].param_groups[0]["params"]) if len(optimizers.parts) > 1 else 0
    held = sum(p.numel() for p in module.parameters())
    trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
    frozen = sum(p.numel() for other in FROZEN.get(stage, ()) for p in getattr(genie, other).parameters())
    averaged = held if training.ema else 0
    clips = training.batch_size // (processes * training.accumulate)
    make = partial(
        pass_bytes, config, stage, mode=mode, bfloat16=bfloat16, on_gpu=on_gpu, checkpoint=checkpoint_activations,
    )  # fmt: skip
    alone = processes == 1
    most = make(clips, gradients=alone, low=cut)
    work = make(clips, gradients=False, low=cut) if alone else most
    more, fewer = (clips, clips - 1) if clips > 1 else (2, 1)
    slope = make(more, gradients=False, low=cut) - make(fewer, gradients=False, low=cut)
    per_clip = min(slope, work / clips)
    share = processes if cut else 1
    gradients = float(most - work) if alone else WHOLE * trained / share
    if training.accumulate > 1 and not cut:  # DDP's of the parts that are not exchanged are no views of its buckets
        gradients = float(WHOLE * trained * (1 if alone else 2))
    gathers = gathered(module, 2 if bfloat16 else WHOLE) if cut else 0
    return StepMemory(
        weights=WHOLE * held / share,
        gradients=gradients,
        moments=WHOLE * (2 * (trained - muon) + muon + averaged) / share,
        frozen=WHOLE * frozen,
        fixed=gathers + work - per_clip * clips,
        per_clip=per_clip,
        clips=clips,
    )


def gathered(module: nn.Module, number: int) -> float:
    """Of a model that is cut layer by layer (training.sharding): two layers at once, as one computes while the next
    arrives, and what belongs to no layer. number: bytes of one in a layer."""
    layers = [
        sum(p.numel() for p in layer.parameters())
        for block in module.modules()
        if isinstance(block, STBlock)
        for layer in block.layers()
    ]
    return 2 * number * max(layers) + WHOLE * (sum(p.numel() for p in module.parameters()) - sum(layers))


def pass_bytes(
    config: GenieConfig,
    stage: str,
    clips: int,
    *,
    mode: str = "cotrain",
    bfloat16: bool = True,
    on_gpu: bool = True,
    checkpoint: bool = False,
    gradients: bool = True,
    low: bool = False,
) -> int:
    """The most that lives at once in one forward and backward pass of a stage, its weights apart.

    Args:
        gradients: those of the weights stay, as in one process; else each goes at once: it is counted elsewhere.
        low: the layers' weights are bfloat16 already, as of a model that is cut, and autocast makes no copies.
    """
    with FakeTensorMode():
        genie = Genie(config)
        module = build_stage(genie, stage, mode)
        prepare(module, LoopConfig(checkpoint_activations=checkpoint))
        if low and bfloat16:
            for block in module.modules():
                for layer in block.layers() if isinstance(block, STBlock) else ():
                    in_bfloat16(layer)
        if not gradients:
            for parameter in module.parameters():
                if parameter.requires_grad:
                    parameter.register_post_accumulate_grad_hook(let_go)
        alive = Living(genie)
        with alive, attention_by("fused" if on_gpu else None):
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                loss = LOSSES[stage](genie, mode, clips)
            loss.backward()
    return alive.most


def in_bfloat16(layer: nn.Module) -> None:
    """As `layer.bfloat16()`, which tensors without content do not take."""
    for part in layer.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            setattr(part, name, nn.Parameter(parameter.detach().bfloat16(), parameter.requires_grad))


def let_go(parameter: Tensor) -> None:
    parameter.grad = None


def frames_of(config: GenieConfig, clips: int) -> Tensor:
    return torch.rand(clips, config.clip_length, *config.image_size, 3)


def tokenizer_loss(genie: Genie, mode: str, clips: int) -> Tensor:
    frames, tokenizer = frames_of(genie.config, clips), genie.tokenizer
    error = (tokenizer.pixels(tokenizer.latents(frames)) - frames).square()
    return (error * motion_weights(frames, tokenizer.config.motion_weight)).mean()


def latent_action_loss(genie: Genie, mode: str, clips: int) -> Tensor:
    frames = frames_of(genie.config, clips)
    return explained(genie, frames, genie.latent_action.latents(frames))


def explained(genie: Genie, frames: Tensor, actions: Tensor) -> Tensor:
    return (genie.latent_action.predict(frames[:, :-1], actions) - frames[:, 1:]).square().mean()


def dynamics_loss(genie: Genie, mode: str, clips: int) -> Tensor:
    frames = frames_of(genie.config, clips)
    with torch.no_grad():
        genie.tokenizer.latents(frames)
        actions = genie.latent_action.latents(frames)
    return filled_in(genie, actions, clips)


def filled_in(genie: Genie, actions: Tensor, clips: int) -> Tensor:
    """With as many tokens masked as are on average: which they are needs content, which there is none of."""
    c, dynamics = genie.config.dynamics, genie.dynamics
    tokens = torch.randint(0, c.num_tokens, (clips, c.clip_length, c.num_patches))
    x = dynamics.filled(tokens, dynamics.draw_mask(tokens), shift_to_next_frame(actions))
    masked = int((1 + c.min_mask_rate) / 2 * clips * (c.clip_length - 1) * c.num_patches)
    return F.cross_entropy(dynamics.head(x.flatten(0, 2)[:masked]).float(), tokens.flatten()[:masked])


def joint_loss(genie: Genie, mode: str, clips: int) -> Tensor:
    frames = frames_of(genie.config, clips)
    with torch.no_grad():
        genie.tokenizer.latents(frames)
    actions = genie.latent_action.latents(frames)
    if mode == "end_to_end":
        return filled_in(genie, actions, clips)
    loss = explained(genie, frames, actions)
    return loss + filled_in(genie, actions if mode == "warmup" else actions.detach(), clips)


LOSSES: dict[str, Callable[[Genie, str, int], Tensor]] = {
    "tokenizer": tokenizer_loss,
    "latent_action": latent_action_loss,
    "dynamics": dynamics_loss,
    "joint": joint_loss,
}
"""Each stage's loss without codebooks and without what depends on content; the same tensors otherwise."""

FROZEN = {"dynamics": ("tokenizer", "latent_action"), "joint": ("tokenizer",)}
"""What a stage reads and does not train."""
