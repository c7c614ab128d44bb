"""What the processes of one training run have in common, so that they compute what one process would.

Means over the whole batch where a loss is relative to one, and random numbers drawn for the whole batch, of which each
process takes its clips' rows: clip j of rank r is clip j * world_size + r of the batch (genie_datasets.clips.sampler).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

_together = False
_shared: torch.Generator | None = None
_part, _parts = 0, 1


def num_processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if num_processes() > 1 else 0


@contextmanager
def together(common_seed: int, own_seed: int, device: torch.device, part: int = 0, parts: int = 1) -> Iterator[None]:
    """A training step, which all processes take at once. Outside of it nothing here talks to the others.

    Seeds torch's generator with `own_seed`. Of several processes or parts, what is drawn for the whole batch comes from
    a generator of its own that starts at `common_seed`: what a single process would have been seeded with.

    part, parts: the step's batch is taken in so many parts, and this is the one of that number.
    """
    global _together, _shared, _part, _parts
    torch.manual_seed(own_seed)
    if num_processes() == parts == 1:
        yield
        return
    _together, _shared, _part, _parts = True, torch.Generator(device).manual_seed(common_seed), part, parts
    try:
        yield
    finally:
        _together, _shared, _part, _parts = False, None, 0, 1


@torch.no_grad()
def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of a value over all processes, without a gradient; the value itself where there is one process."""
    if not _together or num_processes() == 1:
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total / num_processes()


def rand_by_clip(num_clips: int, *shape: int, device: torch.device) -> Tensor:
    """Uniform numbers (num_clips, *shape) in [0, 1): this process' rows of those drawn for the whole batch, of the part
    that is being taken."""
    if not _together:
        return torch.rand(num_clips, *shape, device=device)
    every = num_processes()
    rows = torch.rand(_parts * every * num_clips, *shape, generator=_shared, device=device)
    return rows.chunk(_parts)[_part][rank() :: every]


@contextmanager
def drawn_alike(device: torch.device) -> Iterator[None]:
    """What torch's generator of `device` draws inside, all processes draw alike: in a training step as one process
    would, else from a seed of the first. All must come here at once."""
    if num_processes() == _parts == 1:
        yield
        return
    if not _together or _shared is None:
        seed = told_by_first(int(torch.randint(2**31, ())))
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            yield
        return
    on_gpu = device.type == "cuda"
    own = torch.cuda.get_rng_state(device) if on_gpu else torch.get_rng_state()
    put: Callable[[Tensor], None] = partial(torch.cuda.set_rng_state, device=device) if on_gpu else torch.set_rng_state
    put(_shared.get_state())
    try:
        yield
        _shared.set_state(torch.cuda.get_rng_state(device) if on_gpu else torch.get_rng_state())
    finally:
        put(own)


T = TypeVar("T")


def told_by_first(value: T) -> T:
    """The first process' plain value, in all."""
    if num_processes() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def of_all(value: T) -> list[T]:
    """Every process' plain value, in the order of the processes, in all."""
    if num_processes() == 1:
        return [value]
    every: list[T] = [value] * num_processes()
    dist.all_gather_object(every, value)
    return every


def gather_rows(rows: Tensor, num_clips: int) -> Tensor:
    """(R, L) rows of each process' clips, one clip after the other, as one process has them of the whole batch."""
    every = num_processes()
    if every == 1:
        return rows
    parts = [torch.empty_like(rows) for _ in range(every)]
    dist.all_gather(parts, rows.contiguous())
    clips = torch.stack(parts).unflatten(1, (num_clips, -1))
    return clips.transpose(0, 1).reshape(-1, rows.shape[-1])
