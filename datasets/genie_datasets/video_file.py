"""One video file: how many frames it holds, and those frames. PyAV is imported only when a video is opened."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from genie_datasets.fit import Size, fit_frames


class DamagedVideo(ValueError):
    """The file is no video, or stops being one; the message says why."""


@dataclass(frozen=True)
class VideoInfo:
    num_frames: int
    rate: float  # frames a second as the container states it: often not the robot's rate
    height: int
    width: int


@contextmanager
def _opened(path: Path):
    import av

    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise DamagedVideo("no video stream")
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1  # files are decoded side by side, one thread each
            yield container, stream
    except (av.FFmpegError, OSError) as error:
        raise DamagedVideo(getattr(error, "strerror", None) or str(error)) from None


def probe(path: Path) -> VideoInfo:
    """Count the frames without decoding them; raises DamagedVideo."""
    with _opened(path) as (container, stream):
        count = sum(packet.size > 0 and not packet.is_discard for packet in container.demux(stream))
        rate = float(stream.average_rate or 0)
        if not count or not stream.width:
            raise DamagedVideo("no frames")
        return VideoInfo(count, rate, stream.height, stream.width)


def images(path: Path) -> Iterator[np.ndarray]:
    """Yield the frames in order, (H, W, 3) uint8 RGB; raises DamagedVideo."""
    with _opened(path) as (container, stream):
        for frame in container.decode(stream):
            yield frame.to_ndarray(format="rgb24")


def read_frames(path: Path, ids: np.ndarray, size: Size | None, mode: str) -> np.ndarray:
    """Frames `ids` (any order, repeats allowed), fitted to `size`: (n, H, W, 3) uint8; raises DamagedVideo.

    Decodes from the beginning up to the last frame asked, and keeps only those asked.
    """
    wanted = set(ids.tolist())
    last = max(wanted)
    kept: dict[int, np.ndarray] = {}
    for number, image in enumerate(images(path)):
        if number in wanted:
            kept[number] = image if size is None else fit_frames(image, size, mode)
        if number == last:
            return np.stack([kept[n] for n in ids.tolist()])
    raise DamagedVideo(f"only {number + 1 if kept or last else 0} of its frames can be decoded")
