"""One thread for small models on a CPU.

A small model gains little from several threads, and if another process uses a core, every operation waits for the
thread that lost it: next to one busy process on two cores, a step of `nano-tabletop` took 7,859 ms with two threads and
207 ms with one (medians of 30).
"""

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from genie_datasets.base.cores import num_cores

SMALL = 20_000_000  # parameters
CHOSEN = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")  # environment variables that users set


@contextmanager
def threads_for(*models: Any) -> Iterator[None]:
    """Computes with one thread inside the block if the models are small and on a CPU.

    models: modules, counted together, or other objects, which count as small.

    A number that the user chose stays: by OMP_NUM_THREADS or MKL_NUM_THREADS, or by torch.set_num_threads with another
    number than torch's default. Other threads keep their number, except one that first uses torch during the block.
    """
    before = torch.get_num_threads()
    if (
        before == 1
        or any(name in os.environ for name in CHOSEN)
        or before not in default_threads()
        or not small(*models)
    ):
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def small(*models: Any) -> bool:
    """True if all are on a CPU and have few parameters together."""
    parameters = [parameter for model in models if isinstance(model, nn.Module) for parameter in model.parameters()]
    on_cpu = not parameters or parameters[0].device.type == "cpu"
    return on_cpu and sum(parameter.numel() for parameter in parameters) < SMALL


@functools.cache
def default_threads() -> frozenset[int]:
    """Thread counts that torch chooses by default: the cores of this process, or its physical cores (MKL builds)."""
    numbers = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(num_cores())
    physical = set()
    for number in numbers:
        try:
            siblings = Path(f"/sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list").read_text()
        except OSError:
            siblings = str(number)
        physical.add(siblings.strip())
    return frozenset({len(numbers), len(physical)})
