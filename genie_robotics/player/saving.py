"""Encoding of played clips (MP4, GIF) and frames (PNG)."""

import io

import cv2
import numpy as np
from jaxtyping import UInt8

from genie_datasets.base.encode_video import encode_frames

MIN_SIDE = 384  # pixels of the shorter side of a video
FPS = 6  # twice the control rate of RT-1's robot


def encode_video(frames: UInt8[np.ndarray, "L H W 3"], kind: str) -> bytes:
    """An "mp4" (H.264) or "gif", enlarged without interpolation."""
    scale = max(1, round(MIN_SIDE / min(frames.shape[1:3])))
    height, width = (n * scale // 2 * 2 for n in frames.shape[1:3])
    out = io.BytesIO()
    enlarged = (cv2.resize(frame, (width, height), interpolation=cv2.INTER_NEAREST) for frame in frames)
    encode_frames(out, enlarged, FPS, kind=kind)
    return out.getvalue()


def encode_png(frame: UInt8[np.ndarray, "H W 3"]) -> bytes:
    """A PNG at low compression, which is fast; several are sent per second over a local connection."""
    return cv2.imencode(".png", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()
