"""Wall time and peak memory of a function."""

import ctypes
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

MATRIX = 2048  # side of the matrices whose product measures the throughput of the machine


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(work: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Median wall time of `work` after one unmeasured call."""
    times = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        work()
        synchronize(device)
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


def matrix_flops(device: torch.device, precision: torch.dtype, repeats: int = 15) -> float:
    """Floating-point operations per second of a square matrix product."""
    matrix = torch.randn(MATRIX, MATRIX, device=device).to(precision)
    return 2 * MATRIX**3 / seconds(lambda: matrix @ matrix, repeats, device)


def peak_bytes(work: Callable[[], object], device: torch.device) -> int | None:
    """Peak memory while `work` runs: of the GPU, or of this process (Linux); None if it cannot be measured."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        work()
        return torch.cuda.max_memory_allocated(device)
    clear, status = Path("/proc/self/clear_refs"), Path("/proc/self/status")
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # memory that earlier work freed must not hide new allocations
        clear.write_text("5")  # resets the high-water mark
    except OSError:
        return None
    work()
    mark = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return 1024 * int(mark.split()[1])


def memory_of(work: Callable[[], object], device: torch.device) -> int | None:
    """Peak memory of `work` beyond what is in use before it; None if it cannot be measured."""
    before = peak_bytes(lambda: None, device)
    peak = peak_bytes(work, device)
    return None if before is None or peak is None else peak - before
