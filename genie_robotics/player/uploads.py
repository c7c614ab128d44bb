"""Bytes that a browser sends -> pictures. Sizes are read from headers and refused before anything is decoded."""

import tempfile
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from genie_datasets.base.errors import UserError
from genie_datasets.base.fit import fit_frames
from genie_datasets.sources.pictures import decode_picture
from genie_datasets.sources.video.file import DamagedVideo, probe, read_frames
from genie_robotics.player.limits import Limits

Frame = UInt8[np.ndarray, "H W 3"]


def picture(data: bytes, size: tuple[int, int], limits: Limits) -> Frame:
    """A photo, drawing or rendering of any size, whole: letterboxed to the model's size. Raises UserError."""
    return fit_frames(decode_picture(data, "the upload", limits.upload_pixels), size, "letterbox")


def clip(data: bytes, size: tuple[int, int], mode: str, limits: Limits) -> UInt8[np.ndarray, "L H W 3"]:
    """The frames of an uploaded video, fitted as training's were. Raises UserError."""
    with tempfile.TemporaryDirectory(prefix="genie_upload.") as folder:
        path = Path(folder) / "clip"
        path.write_bytes(data)
        try:
            info = probe(path)
            if info.height * info.width > limits.upload_pixels:
                raise UserError(
                    f"the clip has {info.height}x{info.width} pixels: give one of at most {limits.upload_pixels:,}"
                )
            frames = read_frames(path, np.arange(min(info.num_frames, limits.upload_frames)), size, mode, info)
        except DamagedVideo as error:
            raise UserError(f"that is no video that can be read ({error}): give MP4, MOV, WebM or GIF") from None
    if len(frames) < 2:
        raise UserError("a clip needs at least two frames, for an action lies between two")
    return frames
