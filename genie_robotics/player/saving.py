"""Encoding of played clips (MP4, GIF) and frames (PNG)."""

import io
from fractions import Fraction
from typing import Any

import av
import cv2
import numpy as np
from jaxtyping import UInt8

MIN_SIDE = 384  # pixels of the shorter side of a video
FPS = 6  # twice the control rate of RT-1's robot


def encode_video(frames: UInt8[np.ndarray, "L H W 3"], kind: str) -> bytes:
    """An "mp4" (H.264) or "gif", enlarged without interpolation."""
    scale = max(1, round(MIN_SIDE / min(frames.shape[1:3])))
    out = io.BytesIO()
    with av.open(out, "w", format=kind) as container:
        stream: Any = container.add_stream("libx264" if kind == "mp4" else "gif", rate=Fraction(FPS))
        stream.height, stream.width = (n * scale // 2 * 2 for n in frames.shape[1:3])
        stream.pix_fmt = "yuv420p" if kind == "mp4" else "rgb8"
        for frame in frames:
            large: Any = cv2.resize(frame, (stream.width, stream.height), interpolation=cv2.INTER_NEAREST)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(large, format="rgb24")))
        container.mux(stream.encode())
    return out.getvalue()


def encode_png(frame: UInt8[np.ndarray, "H W 3"]) -> bytes:
    """A PNG at low compression, which is fast; several are sent per second over a local connection."""
    return cv2.imencode(".png", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()
