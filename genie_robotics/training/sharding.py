"""`--sharding full`: weights, gradients and moments are sharded across ranks by torch's FSDP2 (`fully_shard`).

A layer's weights are gathered when it computes and freed afterwards. Checkpoints are written in shards
(sharded_checkpoint.py); the components in the run folder are complete.
"""

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from genie_datasets.base.errors import UserError
from genie_robotics.models.config import GenieConfig
from genie_robotics.models.distributed import num_processes
from genie_robotics.models.layers.st_transformer import STBlock
from genie_robotics.training.config import StageConfig


def check_sharding(model: GenieConfig, config: StageConfig, stage: str, processes: int, labels: bool) -> None:
    """Raises UserError if the stage cannot be trained sharded."""
    if processes == 1:
        raise UserError("--sharding full needs several processes; start them with torchrun")
    if config.muon_learning_rate:
        option = f"--training.{stage.replace('_', '-')}.muon-learning-rate 0"
        raise UserError(f"--sharding full cannot be combined with Muon, which needs whole matrices; pass {option}")
    if model.latent_action.frame_space == "tokens":
        raise UserError("--sharding full needs --latent-action.frame-space pixels, got tokens")
    if labels:
        raise UserError("--sharding full cannot be combined with --labels; leave one of them out")


def shard(module: nn.Module, precision: torch.dtype, device: torch.device) -> None:
    """Shards a stage's parameters layer by layer; buffers (of quantizers) stay complete in every process.

    A model on the CPU moves to `device` layer by layer, sharded, so that no GPU ever holds it whole. The blocks'
    matrices are gathered in `precision`, because autocast would keep a copy of each for the backward pass; norms and
    the first and last layers are gathered in their own precision.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    low = precision if precision != torch.float32 else None
    mesh = init_device_mesh(device.type, (num_processes(),))
    policy = MixedPrecisionPolicy(param_dtype=low, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for part in list(module.modules()):
        if isinstance(part, STBlock):
            for layer in part.layers():
                fully_shard(layer, mesh=mesh, mp_policy=policy)
    fully_shard(module, mesh=mesh)


def is_sharded(module: nn.Module) -> bool:
    return any(isinstance(parameter, DTensor) for parameter in module.parameters())


def full_tensor(tensor: Tensor) -> Tensor:
    """The complete tensor of a shard. All processes must call it at once."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def full_state(module: nn.Module, keep: bool) -> dict[str, Tensor]:
    """A module's complete state on the CPU of the processes that `keep` it; others hold one complete tensor at a time.
    All processes must call it at once."""
    found = {}
    for name, value in module.state_dict().items():
        tensor = full_tensor(value)
        if keep:
            found[name] = tensor.cpu()
    return found


def shard_like(value: Tensor, parameter: Tensor) -> Tensor:
    """`value` (equal in every process) sharded like `parameter`; unchanged if the parameter is not sharded or has
    another shape, or if the value is sharded already."""
    if isinstance(value, DTensor) or not isinstance(parameter, DTensor) or value.shape != parameter.shape:
        return value
    return distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)


@torch.no_grad()
def load_sharded(module: nn.Module, values: dict[str, Tensor]) -> None:
    """`module.load_state_dict(values)` for complete values and a module whose parameters may be sharded."""
    own = module.state_dict()
    module.load_state_dict({name: shard_like(value, own[name]) for name, value in values.items()})
