"""Pictures and clips from uploaded bytes. Sizes are read from headers and checked before decoding."""

import tempfile
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from genie_datasets.base.errors import UserError
from genie_datasets.sources.pictures import decode_picture
from genie_datasets.sources.video.file import DamagedVideo, probe, read_frames
from genie_robotics.player.limits import Limits
from genie_robotics.player.starts import sharp_start

Size = tuple[int, int]
Frame = UInt8[np.ndarray, "H W 3"]


def read_picture(data: bytes, size: Size, display: Size, limits: Limits) -> Frame:
    """A picture of any size, letterboxed to a start; raises UserError."""
    return sharp_start(decode_picture(data, "the upload", limits.upload_pixels), size, display, "letterbox")


def read_clip(
    data: bytes, size: Size, display: Size, mode: str, limits: Limits
) -> tuple[UInt8[np.ndarray, "L H W 3"], Frame]:
    """The frames of a video, fitted like those of training, and the first one as a start; raises UserError."""
    with tempfile.TemporaryDirectory(prefix="genie_upload.") as folder:
        path = Path(folder) / "clip"
        path.write_bytes(data)
        try:
            info = probe(path)
            if info.height * info.width > limits.upload_pixels:
                raise UserError(
                    f"the clip has {info.height}x{info.width} pixels per frame, expected at most "
                    f"{limits.upload_pixels:,}; upload a smaller one"
                )
            frames = read_frames(path, np.arange(min(info.num_frames, limits.upload_frames)), size, mode, info)
            is_larger = info.height > size[0] or info.width > size[1]
            first = read_frames(path, np.array([0]), display if is_larger else size, mode, info)[0]
        except DamagedVideo as error:
            raise UserError(f"the upload is not a readable video ({error}); upload MP4, MOV, WebM or GIF") from None
    if len(frames) < 2:
        raise UserError(f"a clip must have at least 2 frames, got {len(frames)}; upload a longer one")
    return frames, first
