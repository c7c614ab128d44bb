"""One process or many (`torchrun`): ranks, device and precision, chosen once and said aloud."""

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn

from genie_datasets.base.errors import UserError
from genie_robotics.models.quantizers.codebook import Codebook


@dataclass(frozen=True)
class Setup:
    rank: int
    world_size: int
    device: torch.device
    precision: torch.dtype
    reason: str
    """Why this device and precision."""

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def autocast(self) -> AbstractContextManager:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == torch.bfloat16)

    def wrap(self, module: nn.Module) -> nn.Module:
        if self.world_size == 1:
            return module
        idle = any(isinstance(part, Codebook) and part.config.hold for part in module.modules())
        return nn.parallel.DistributedDataParallel(module, find_unused_parameters=idle, gradient_as_bucket_view=True)

    @contextmanager
    def exchange(self, module: nn.Module, now: bool) -> Iterator[None]:
        """The processes' gradients are summed in this backward pass, or (DDP) only in one that follows."""
        if isinstance(module, nn.parallel.DistributedDataParallel) and not now:
            with module.no_sync():
                yield
        else:
            yield

    def broadcast(self, value: float) -> float:
        """Rank 0's value, on every rank: decisions that depend on the clock must be the same everywhere."""
        if self.world_size == 1:
            return value
        box = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.broadcast(box, src=0)
        return float(box)

    def first_prepares(self, work: Callable[[], object]) -> None:
        """Rank 0 does `work` and the others wait, however long it takes: a frame cache is made in hours, where the
        group's own limit is minutes (NCCL) so that a stuck training ends."""
        if self.world_size == 1:
            work()
            return
        group = dist.new_group(backend="gloo", timeout=timedelta(days=7))
        if self.is_main:
            work()
        dist.barrier(group)
        dist.destroy_process_group(group)

    def barrier(self) -> None:
        if self.world_size > 1:
            dist.barrier()


def set_up(device: str = "auto", precision: str = "auto") -> Setup:
    """Joins the process group that `torchrun` describes, if there is one.

    Raises:
        UserError: there is no such device or precision.
    """
    if precision not in ("auto", "bfloat16", "float32"):
        raise UserError(f"--precision must be auto, bfloat16 or float32, not {precision}")
    world_size, local = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("LOCAL_RANK", 0))
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise UserError(f"--device must be auto, cpu or cuda, not {device}") from None
    if chosen.type == "cuda":
        if not torch.cuda.is_available():
            raise UserError("--device cuda: torch sees no GPU here; --device cpu, or another build of torch (README)")
        visible = torch.cuda.device_count()
        if visible == 1 and "CUDA_VISIBLE_DEVICES" in os.environ:
            local = 0  # srun and its like show each process a GPU of its own
        number = local if chosen.index is None else chosen.index
        chosen = torch.device("cuda", number)
        if number >= visible:
            raise UserError(
                f"--device {chosen}: torch sees {visible} GPU(s) here; start as many processes on a machine as it has "
                "(torchrun --nproc-per-node)"
            )
        if number != local and world_size > 1:
            raise UserError(f"--device {device} would put all processes on one GPU: --device cuda gives each its own")
        torch.cuda.set_device(chosen)
    if world_size > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    if precision == "auto":
        fast = chosen.type == "cuda" or cpu_has_bfloat16()
        precision = "bfloat16" if fast else "float32"
        reason = f"{chosen}, {precision} ({'the device computes it natively' if fast else 'no native bfloat16 here'})"
    else:
        reason = f"{chosen}, {precision} (as asked)"
    rank = dist.get_rank() if world_size > 1 else 0
    return Setup(rank, world_size, chosen, getattr(torch, precision), reason)


@contextmanager
def process_group() -> Iterator[None]:
    """Leaves the group that `set_up` joined, all together where all went well.

    Raises:
        UserError: another process of the run is gone.
    """
    try:
        yield
        if dist.is_initialized():
            dist.barrier()
    except RuntimeError as error:
        lost = isinstance(error, dist.DistError) or any(word in str(error) for word in ("gloo", "NCCL", "by peer"))
        if not (dist.is_initialized() and lost):
            raise
        raise UserError(
            f"rank {os.environ.get('RANK', '?')}: another process of this run is gone (killed, out of memory, its "
            "machine lost?); the last checkpoint is whole: run the same command again"
        ) from None
    finally:
        if dist.is_initialized():
            gc.collect()  # what still holds the group would keep its threads alive into the interpreter's end
            dist.destroy_process_group()


def cpu_has_bfloat16() -> bool:
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
