"""`--sharding full`: weights, gradients and moments are cut over the processes, by torch's FSDP2 (`fully_shard`).

A layer's weights are gathered when it computes and let go of afterwards. Checkpoints are written in pieces
(genie_robotics.training.sharded_checkpoint); what a stage leaves in the run folder is whole.
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
    """Raises UserError where the stage cannot be trained so."""
    if processes == 1:
        raise UserError("--sharding full cuts the model over several processes: start them with torchrun")
    if config.matrix_rate:
        option = f"--training.{stage.replace('_', '-')}.matrix-rate 0"
        raise UserError(f"--sharding full goes with AdamW alone (Muon needs whole matrices): {option}")
    if model.latent_action.input == "tokens":
        raise UserError("--sharding full needs a latent action model that reads pixels: --latent-action.input pixels")
    if labels:
        raise UserError("--sharding full does not go with --labels: leave one of them out")


def shard(module: nn.Module, precision: torch.dtype, device: torch.device) -> None:
    """Cuts a stage's parameters, layer by layer; buffers (codebooks) stay whole in every process.

    A model on the CPU goes to `device` layer by layer, cut: no GPU ever holds it whole.

    The blocks' matrices are gathered in `precision`: else autocast would keep a copy of each for the backward pass.
    What is left, norms and the ends of the model, is gathered as it is.
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


def whole(tensor: Tensor) -> Tensor:
    """Uncut. All processes must ask at once."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def whole_state(module: nn.Module, keep: bool) -> dict[str, Tensor]:
    """A module's state, uncut, on the CPU of those processes that `keep` it. One tensor at a time is whole elsewhere.
    All processes must ask at once."""
    found = {}
    for name, value in module.state_dict().items():
        tensor = whole(value)
        if keep:
            found[name] = tensor.cpu()
    return found


def cut_like(value: Tensor, parameter: Tensor) -> Tensor:
    """`value`, the same in every process, cut as `parameter` is; as it is where that is whole or of another shape, and
    where it is cut already."""
    if isinstance(value, DTensor) or not isinstance(parameter, DTensor) or value.shape != parameter.shape:
        return value
    return distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)


@torch.no_grad()
def load_cut(module: nn.Module, values: dict[str, Tensor]) -> None:
    """`module.load_state_dict(values)` where the module's parameters may be cut and the values are whole."""
    own = module.state_dict()
    module.load_state_dict({name: cut_like(value, own[name]) for name, value in values.items()})
