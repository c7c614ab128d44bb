"""State that the processes of a training run share, so that together they compute what one process would.

Means over the whole batch where a loss is relative to one, and random numbers that are drawn for the whole batch, of
which each process takes the rows of its clips: clip j of rank r is clip j * world_size + r of the batch
(genie_datasets.clips.sampler).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Step:
    """A training step that is being computed."""

    shared: torch.Generator | None
    """Draws what is drawn for the whole batch; None if one process has it all."""
    updates_state: bool


_step: Step | None = None


def num_processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if num_processes() > 1 else 0


@contextmanager
def step_context(shared_seed: int, own_seed: int, device: torch.device, updates_state: bool = True) -> Iterator[None]:
    """A training step (or one micro-batch of it), which all processes take at once.

    Outside of it the functions below do not communicate, except `same_random_draws`.

    own_seed: seeds torch's generator.
    shared_seed: with several processes, seeds the generator of what is drawn for the whole batch.
    updates_state: False for all but the last micro-batch of a step: quantizers update their state once per step, from
        the last micro-batch.
    """
    global _step
    torch.manual_seed(own_seed)
    shared = torch.Generator(device).manual_seed(shared_seed) if num_processes() > 1 else None
    _step = Step(shared, updates_state)
    try:
        yield
    finally:
        _step = None


def updates_state() -> bool:
    """True if quantizers may update their state now."""
    return _step is None or _step.updates_state


@torch.no_grad()
def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of a value over all processes, without a gradient; the value itself outside of a step of several."""
    if _step is None or num_processes() == 1:
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total / num_processes()


def rand_per_clip(num_clips: int, *shape: int, device: torch.device) -> Tensor:
    """Uniform numbers (num_clips, *shape) in [0, 1): the rows of this process' clips."""
    if _step is None or _step.shared is None:
        return torch.rand(num_clips, *shape, device=device)
    every = num_processes()
    return torch.rand(every * num_clips, *shape, generator=_step.shared, device=device)[rank() :: every]


@contextmanager
def same_random_draws(device: torch.device) -> Iterator[None]:
    """All processes draw the same from torch's generator of `device` inside. All must enter at once.

    In a training step they draw what one process would, otherwise from a seed of rank 0.
    """
    if num_processes() == 1:
        yield
        return
    if _step is None or _step.shared is None:
        seed = broadcast_object(int(torch.randint(2**31, ())))
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            yield
        return
    on_gpu = device.type == "cuda"
    own = torch.cuda.get_rng_state(device) if on_gpu else torch.get_rng_state()
    put: Callable[[Tensor], None] = partial(torch.cuda.set_rng_state, device=device) if on_gpu else torch.set_rng_state
    put(_step.shared.get_state())
    try:
        yield
        _step.shared.set_state(torch.cuda.get_rng_state(device) if on_gpu else torch.get_rng_state())
    finally:
        put(own)


T = TypeVar("T")


def broadcast_object(value: T) -> T:
    """Rank 0's plain value, in all processes."""
    if num_processes() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def all_gather_object(value: T) -> list[T]:
    """Every process' plain value in the order of ranks, in all processes."""
    if num_processes() == 1:
        return [value]
    every: list[T] = [value] * num_processes()
    dist.all_gather_object(every, value)
    return every


def gather_rows(rows: Tensor, num_clips: int) -> Tensor:
    """Rows (R, L) of the clips of all processes, in the order that one process would have them.

    rows: this process' rows, one clip after the other.
    """
    every = num_processes()
    if every == 1:
        return rows
    gathered = [torch.empty_like(rows) for _ in range(every)]
    dist.all_gather(gathered, rows.contiguous())
    clips = torch.stack(gathered).unflatten(1, (num_clips, -1))
    return clips.transpose(0, 1).reshape(-1, rows.shape[-1])


def rows_of_all(rows: Tensor, chosen: Tensor, num_clips: int) -> Tensor:
    """The rows `chosen` of `gather_rows(rows, num_clips)`, without sending the others."""
    every = num_processes()
    if every == 1:
        return rows[chosen]
    per_clip = len(rows) // num_clips
    clip, within = chosen // per_clip, chosen % per_clip
    own = (clip % every == rank()).unsqueeze(-1)  # clip j of rank r is clip j * world_size + r
    found = torch.where(own, rows[(clip // every * per_clip + within)], 0)
    dist.all_reduce(found)
    return found
