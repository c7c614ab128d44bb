"""One process or several (`torchrun`): rank, device and precision of this process."""

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
from genie_robotics.models.precision import native_precision
from genie_robotics.models.quantizers import Quantizer


@dataclass(frozen=True)
class Setup:
    """The place of this process in the run, and what it computes with."""

    rank: int
    world_size: int
    device: torch.device
    precision: torch.dtype
    reason: str
    """Device and precision in words, with the reason for them."""

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def autocast(self) -> AbstractContextManager:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == torch.bfloat16)

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module as DistributedDataParallel, if there are several processes."""
        if self.world_size == 1:
            return module
        freezes = any(isinstance(part, Quantizer) and part.config.vq.freeze_after_init for part in module.modules())
        return nn.parallel.DistributedDataParallel(module, find_unused_parameters=freezes, gradient_as_bucket_view=True)

    @contextmanager
    def sync_gradients(self, module: nn.Module, now: bool) -> Iterator[None]:
        """In this block DDP sums gradients across ranks in every backward pass; now=False leaves it to a later one."""
        if isinstance(module, nn.parallel.DistributedDataParallel) and not now:
            with module.no_sync():
                yield
        else:
            yield

    def broadcast(self, value: float) -> float:
        """The value of rank 0, on every rank: decisions that depend on the clock must be the same everywhere."""
        if self.world_size == 1:
            return value
        box = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.broadcast(box, src=0)
        return float(box)

    def prepare_on_main(self, work: Callable[[], object]) -> None:
        """Rank 0 does `work` while the others wait, up to seven days.

        A frame cache can take hours to make. The timeout of the run's own group is minutes, so that a stuck training
        ends.
        """
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
    """Chooses device and precision, and joins the process group of `torchrun`, if there is one.

    Raises:
        UserError: the device or precision is unknown or not available.
    """
    if precision not in ("auto", "bfloat16", "float32"):
        raise UserError(f"--precision must be auto, bfloat16 or float32, got {precision}")
    world_size = int(os.environ.get("WORLD_SIZE", 1))
    chosen = choose_device(device, world_size)
    if world_size > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    why = "as requested"
    if precision == "auto":
        native = native_precision(chosen)
        precision = str(native).removeprefix("torch.")
        why = "native on this device" if native == torch.bfloat16 else "no native bfloat16 on this device"
    rank = dist.get_rank() if world_size > 1 else 0
    return Setup(rank, world_size, chosen, getattr(torch, precision), f"{chosen}, {precision} ({why})")


def choose_device(name: str, world_size: int) -> torch.device:
    """The device of this process, which becomes torch's current one if it is a GPU; raises UserError."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"--device must be auto, cpu or cuda, got {name}") from None
    if device.type != "cuda":
        return device
    if not torch.cuda.is_available():
        raise UserError("--device cuda: torch sees no GPU; pass --device cpu, or install torch with CUDA (see README)")
    local_rank, num_gpus = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
    if num_gpus == 1 and "CUDA_VISIBLE_DEVICES" in os.environ:
        local_rank = 0  # a launcher such as srun shows each process its own GPU
    index = local_rank if device.index is None else device.index
    device = torch.device("cuda", index)
    if index >= num_gpus:
        raise UserError(
            f"--device {device}: torch sees {num_gpus} GPU(s) on this machine; start at most as many processes "
            "(torchrun --nproc-per-node)"
        )
    if index != local_rank and world_size > 1:
        raise UserError(f"--device {name} would put all processes on one GPU; pass --device cuda to give each its own")
    torch.cuda.set_device(device)
    return device


@contextmanager
def process_group() -> Iterator[None]:
    """Leaves the group that `set_up` joined when the block ends; without an error, all processes leave together.

    Raises:
        UserError: another process of the run has ended.
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
            f"rank {os.environ.get('RANK', '?')}: another process of this run has ended (killed, out of memory, or its "
            "machine lost); the last checkpoint is complete: rerun the command to continue"
        ) from None
    finally:
        if dist.is_initialized():
            gc.collect()  # objects that still hold the group would keep its threads alive until the interpreter ends
            dist.destroy_process_group()
