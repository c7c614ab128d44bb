"""Videos read in windows: those of several clips or episodes go through a model as one batch.

On a GPU a batch takes hardly longer than one window. On a CPU it must stay small: on one core, `nano-tabletop` reads 64
frames at once 1.1 times as fast as single windows of 16 frames, and 256 frames at once 0.7 times as fast.
"""

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from jaxtyping import UInt8

if TYPE_CHECKING:
    import torch

Video = TypeVar("Video", np.ndarray, "torch.Tensor")
Result = TypeVar("Result")

MOST_PIXELS = 2**22  # of a batch: 64 windows of 16 frames of 64x64 pixels, 12 MB
MOST_PIXELS_ON_CPU = 2**18  # 4 such windows


def frames_at_once(image_size: tuple[int, int], device: "torch.device | None" = None) -> int:
    """Frames of (H, W) pixels in the batch that `device` reads fastest. None: the largest on any device."""
    most = MOST_PIXELS_ON_CPU if device is not None and device.type == "cpu" else MOST_PIXELS
    return max(1, most // (image_size[0] * image_size[1]))


def read_transitions(
    config: Any,
    videos: Iterable[UInt8[np.ndarray, "L H W 3"]],
    read: Callable[[UInt8[np.ndarray, "B T H W 3"]], Sequence[np.ndarray]],
) -> Iterator[tuple[np.ndarray, ...]]:
    """Yields for each video, in order, the arrays (L-1, ...) that `read` returns for its transitions.

    Args:
        config: the model's; its `clip_length` and `image_size` are used.
        videos: at least 2 frames each. As many are held as make a batch.
        read: gets clips of at most `clip_length` frames, and returns arrays (B, T-1, ...).
    """

    def read_batch(windows: list[np.ndarray]) -> Iterable[tuple[np.ndarray, ...]]:
        return zip(*read(np.stack(windows)), strict=True)

    most = frames_at_once(config.image_size)
    for parts in read_windows(videos, read_batch, config.clip_length, overlap=1, most_frames=most):
        yield tuple(np.concatenate(part) for part in zip(*parts, strict=True))


def read_windows(
    videos: Iterable[Video],
    read: Callable[[list[Video]], Iterable[Result]],
    length: int,
    overlap: int,
    most_frames: int,
) -> Iterator[list[Result]]:
    """Yields for each video, in order, the results of its windows.

    Args:
        videos: arrays or tensors (L, ...), L > overlap. They are held until there are `most_frames`.
        read: gets windows of equal length, of one or several videos, and returns one result for each.
        length, overlap: a window has at most `length` frames and shares `overlap` of them with the next one.
        most_frames: the most that `read` gets at once, except that it always gets one window.
    """
    held: list[list[Video]] = []
    num_frames = 0
    for video in videos:
        starts = range(0, max(1, len(video) - overlap), length - overlap)
        held.append([video[start : start + length] for start in starts])
        num_frames += len(video)
        if num_frames >= most_frames:
            yield from _read(held, read, most_frames)
            held, num_frames = [], 0
    yield from _read(held, read, most_frames)


def _read(
    held: list[list[Video]], read: Callable[[list[Video]], Iterable[Result]], most_frames: int
) -> Iterator[list[Result]]:
    windows = [window for video in held for window in video]
    by_length = defaultdict(list)
    for number, window in enumerate(windows):
        by_length[len(window)].append(number)
    results: dict[int, Result] = {}
    for length, numbers in by_length.items():
        size = max(1, most_frames // length)
        for first in range(0, len(numbers), size):
            batch = numbers[first : first + size]
            results.update(zip(batch, read([windows[number] for number in batch]), strict=True))
    in_order = itertools.count()
    for video in held:
        yield [results[next(in_order)] for _ in video]
