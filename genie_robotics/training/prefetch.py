"""Batches of clips for training, read while the device computes."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from genie_datasets import ClipDataset, ReferencedClips
from genie_datasets.base.ordered_map import map_ahead


def iter_batches(
    clips: ClipDataset | ReferencedClips, batches: Iterable[list[int]], device: torch.device, workers: int = 0
) -> Iterator[Tensor]:
    """Yields the clips (B, T, H, W, 3) of each batch in order, in pinned memory if `device` is a GPU.

    workers: processes that read. With 0 a thread reads the next batch for a GPU, and nothing reads ahead for a CPU: a
    batch of a frame cache takes less than 0.1% of a step there.
    """
    on_gpu = device.type == "cuda"
    if on_gpu and not workers:
        return read_ahead(clips, batches, device)
    return iter(DataLoader(clips, sampler=batches, batch_size=None, num_workers=workers, pin_memory=on_gpu))


def read_ahead(
    clips: ClipDataset | ReferencedClips, batches: Iterable[list[int]], device: torch.device
) -> Iterator[Tensor]:
    """Yields the clips of each batch in pinned memory. A thread reads and pins the next batch meanwhile."""
    # Without set_device the thread would take memory on GPU 0, whichever GPU the rank has.
    with ThreadPoolExecutor(1, "clips", torch.cuda.set_device, (device,)) as thread:
        yield from map_ahead(thread, lambda batch: clips.batch(batch).pin_memory(), batches, num_ahead=2)
