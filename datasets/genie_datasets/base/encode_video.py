"""Writes videos."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import UInt8


def encode_frames(
    out: Path | IO[bytes],
    frames: Iterable[UInt8[np.ndarray, "H W 3"]],
    hz: float,
    codec_options: dict[str, str] | None = None,
    kind: str = "mp4",
    container_options: dict[str, str] | None = None,
) -> None:
    """Writes frames of one size as H.264 (kind "mp4", of even height and width) or as a "gif".

    codec_options: of the encoder, such as {"crf": "18"}. container_options: of the file, such as
        {"movflags": "+faststart"}. Raises OSError.
    """
    import av

    is_gif = kind == "gif"
    with av.open(str(out) if isinstance(out, Path) else out, "w", format=kind, options=container_options) as container:
        stream: Any = container.add_stream("gif" if is_gif else "libx264", rate=Fraction(hz).limit_denominator(1000))
        stream.options, stream.pix_fmt = codec_options or {}, "rgb8" if is_gif else "yuv420p"
        for frame in frames:
            if not stream.codec_context.is_open:
                stream.height, stream.width = frame.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())
