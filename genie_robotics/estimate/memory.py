"""Memory of a training step, found by going through it with tensors that have a shape and no content.

Parameters, gradients and the optimizer's moments are counted. What the pass itself takes is the most that lives at once
during forward and backward under torch's FakeTensorMode, where every operation happens but the arithmetic: a model of
10 billion parameters takes seconds and no memory.
"""

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from genie_robotics.attention import attention_by
from genie_robotics.config import GenieConfig
from genie_robotics.genie import Genie
from genie_robotics.latent_action import shift_to_next_frame
from genie_robotics.st_transformer import STBlock
from genie_robotics.training.config import LoopConfig, StageConfig
from genie_robotics.training.optimizer import Optimizers
from genie_robotics.training.trainer import prepare
from genie_robotics.video_tokenizer import motion_weights

WHOLE = 4  # bytes of a number in float32, which weights, gradients and moments are kept in


@dataclass(frozen=True)
class StepMemory:
    """Bytes of one stage in one process."""

    weights: float
    gradients: float
    moments: float
    """AdamW's two, Muon's one, and the average of the weights where there is one."""
    frozen: float
    """Models that the stage reads and does not train."""
    fixed: float
    """Of the pass, whatever the batch: weights in bfloat16, mostly; of a model that is cut, the layers gathered."""
    per_clip: float
    """Of the pass, for each clip."""
    clips: float
    """Clips a step in this process."""

    @property
    def total(self) -> float:
        model = self.weights + self.gradients + self.moments + self.frozen
        return model + self.fixed + self.per_clip * self.clips


class Living(TorchDispatchMode):
    """Counts the bytes of tensors that are alive, and keeps the most there were."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.sizes: dict[int, int] = {}

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
    processes: int = 1,
    bfloat16: bool = True,
    on_gpu: bool = True,
    checkpoint_activations: bool = False,
    cut: bool = False,
) -> StepMemory:
    """Of one process among `processes`, which share the batch.

    Args:
        stage: tokenizer, latent_action, dynamics, or joint (the last two at once).
        on_gpu: with the attention that a GPU takes; else with that of a CPU.
        cut: what is trained is cut over the processes (`--sharding full`); else each holds the whole model.
    """
    parts = ("latent_action", "dynamics") if stage == "joint" else (stage,)
    with torch.device("meta"):
        genie = Genie(config)
        optimizers = Optimizers(nn.ModuleList([getattr(genie, part) for part in parts]), training)
    muon = sum(p.numel() for p in optimizers.parts[1].param_groups[0]["params"]) if len(optimizers.parts) > 1 else 0
    trained = sum(p.numel() for part in parts for p in getattr(genie, part).parameters())
    others = {"dynamics": ("tokenizer", "latent_action"), "joint": ("tokenizer",)}.get(stage, ())
    frozen = sum(p.numel() for other in others for p in getattr(genie, other).parameters())
    averaged = trained if training.ema else 0
    one, two = (
        sum(pass_bytes(config, part, clips, bfloat16, on_gpu, checkpoint_activations) for part in parts)
        for clips in (1, 2)
    )
    per_clip = two - one
    share = processes if cut else 1
    fixed = max(0.0, one - per_clip - WHOLE * trained)  # its gradients are counted above
    if cut:
        fixed = gathered([getattr(genie, part) for part in parts], 2 if bfloat16 else WHOLE)
    return StepMemory(
        weights=WHOLE * trained / share,
        gradients=WHOLE * trained / share,
        moments=WHOLE * (2 * (trained - muon) + muon + averaged) / share,
        frozen=WHOLE * frozen,
        fixed=fixed,
        per_clip=per_clip,
        clips=training.batch_size / processes,
    )


def gathered(components: list[nn.Module], number: int) -> float:
    """Of a model that is cut layer by layer (training.sharding): two layers at once, as one computes while the next
    arrives, and what belongs to no layer. number: bytes of one in a layer."""
    layers = [
        sum(p.numel() for p in layer.parameters())
        for component in components
        for block in component.modules()
        if isinstance(block, STBlock)
        for layer in (block.spatial, block.temporal, block.ffw, block.modulation)
        if layer is not None
    ]
    every = sum(p.numel() for component in components for p in component.parameters())
    return 2 * number * max(layers) + WHOLE * (every - sum(layers))


def pass_bytes(
    config: GenieConfig, part: str, clips: int, bfloat16: bool = True, on_gpu: bool = True, checkpoint: bool = False
) -> int:
    """The most that lives at once in one forward and backward pass of a component, its weights apart."""
    with FakeTensorMode():
        component = getattr(Genie(config), part).train()
        prepare(component, LoopConfig(checkpoint_activations=checkpoint))
        alive = Living()
        with alive, attention_by("fused" if on_gpu else None):
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                loss = LOSSES[part](component, config, clips)
            loss.backward()
    return alive.most


def tokenizer_loss(component: Any, config: GenieConfig, clips: int) -> Tensor:
    frames = torch.rand(clips, config.clip_length, *config.image_size, 3)
    error = (component.pixels(component.latents(frames)) - frames).square()
    return (error * motion_weights(frames, component.config.motion_weight)).mean()


def latent_action_loss(component: Any, config: GenieConfig, clips: int) -> Tensor:
    frames = torch.rand(clips, config.clip_length, *config.image_size, 3)
    prediction = component.predict(frames[:, :-1], component.latents(frames))
    return (prediction - frames[:, 1:]).square().mean()


def dynamics_loss(component: Any, config: GenieConfig, clips: int) -> Tensor:
    """With as many tokens masked as are on average: which they are needs content, which there is none of."""
    c = config.dynamics
    tokens = torch.randint(0, c.num_tokens, (clips, c.clip_length, c.num_patches))
    actions = shift_to_next_frame(torch.randn(clips, c.clip_length - 1, c.action_dim))
    before = component.a_frame_earlier(tokens) if component.before_in is not None else None
    x, _ = component.hidden(tokens, actions, None, before)
    masked = int((1 + c.min_mask_rate) / 2 * clips * (c.clip_length - 1) * c.num_patches)
    return F.cross_entropy(component.head(x.flatten(0, 2)[:masked]).float(), tokens.flatten()[:masked])


LOSSES: dict[str, Callable[[Any, GenieConfig, int], Tensor]] = {
    "tokenizer": tokenizer_loss,
    "latent_action": latent_action_loss,
    "dynamics": dynamics_loss,
}
"""Each component's loss without its codebook and without what depends on content; the same tensors otherwise."""
