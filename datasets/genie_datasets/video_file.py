"""One video file: how many frames it holds, and those frames. PyAV is imported only when a video is opened."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genie_datasets.decode import MOST_PIXELS
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
        with av.open(str(path), metadata_errors="replace") as container:
            if not container.streams.video:
                raise DamagedVideo("no video stream")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise DamagedVideo("a codec that is not known")
            if stream.width * stream.height > MOST_PIXELS:
                raise DamagedVideo(f"claims {stream.height}x{stream.width} pixels")
            stream.codec_context.options = {"max_pixels": str(MOST_PIXELS)}  # a later frame may claim more
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


def probe_whole(path: Path) -> VideoInfo:
    """`probe`, and every frame decoded; raises DamagedVideo."""
    info = probe(path)
    num = sum(1 for _ in decoded(path))
    if num < info.num_frames:
        raise DamagedVideo(f"only {num} of its {info.num_frames} frames can be decoded")
    return info


def decoded(path: Path, start: float = 0.0) -> Iterator[Any]:
    """Yield the frames (av.VideoFrame) in order from `start` seconds on; raises DamagedVideo.

    A later start is reached through the key frame before it; a frame belongs to it from half a frame earlier on.
    """
    with _opened(path) as (container, stream):
        if not start:
            yield from container.decode(stream)
            return
        beginning = (stream.start_time or 0) * stream.time_base
        container.seek(int((start + float(beginning)) / stream.time_base), stream=stream)
        slack = 0.5 / float(stream.average_rate or 1)
        for frame in container.decode(stream):
            if frame.time is None:
                raise DamagedVideo("its frames have no times, so that no episode can be found in it")
            if frame.time - float(beginning) > start - slack:
                yield frame


def read_frames(path: Path, ids: np.ndarray, size: Size | None, mode: str, start: float = 0.0) -> np.ndarray:
    """Frames `ids` (any order, repeats allowed), counted from `start` seconds, fitted to `size`: (n, H, W, 3) uint8.

    Decodes up to the last frame asked, and keeps only those asked. Raises DamagedVideo.
    """
    from av.video.reformatter import VideoReformatter

    # One for all frames: each frame's own, which `to_ndarray(format=...)` uses, costs as much as decoding it.
    reformatter = VideoReformatter()
    wanted = set(ids.tolist())
    last = max(wanted)
    kept: dict[int, np.ndarray] = {}
    seen = 0
    for number, frame in enumerate(decoded(path, start)):
        seen = number + 1
        if number in wanted:
            image = reformatter.reformat(frame, format="rgb24").to_ndarray()
            kept[number] = image if size is None else fit_frames(image, size, mode)
        if number == last:
            return np.stack([kept[n] for n in ids.tolist()])
    raise DamagedVideo(f"only {seen} of its frames can be decoded")
