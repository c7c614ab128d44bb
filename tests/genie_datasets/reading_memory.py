"""`python reading_memory.py SOURCE CLIPS` reads CLIPS clips with two loader workers and prints the anonymous resident
memory of all processes in MB, after a tenth of the clips and at the end."""

import os
import sys
from pathlib import Path

import torch

from genie_datasets import ClipDataset, EpochSampler, open_source
from genie_datasets.sources.frame_cache import FrameCache

BATCH = 50


def anonymous(pid: int | str = "self") -> int:
    """Bytes of memory of a process that are not mapped from a file."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def children() -> list[str]:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


def main(path: str, num_clips: str) -> None:
    source = FrameCache.open(path) if (Path(path) / "cache.json").exists() else open_source(path).split("train")
    clips = ClipDataset(source, 8, size=(8, 8))
    loader = torch.utils.data.DataLoader(clips, batch_sampler=EpochSampler.of(clips, 0).batches(BATCH), num_workers=2)
    last = int(num_clips) // BATCH
    found = []
    for step, batch in enumerate(loader, 1):
        assert batch.shape == (BATCH, 8, 8, 8, 3)
        if step in (max(1, last // 10), last):
            found.append(sum(map(anonymous, ["self", *children()])) / 1e6)
        if step == last:
            break
    print(*found)


if __name__ == "__main__":
    main(*sys.argv[1:])
