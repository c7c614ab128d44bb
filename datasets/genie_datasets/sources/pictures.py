"""Pictures given by users as files, bytes or PIL images, read as (H, W, 3) uint8 RGB arrays.

A picture is turned as its EXIF entry says, transparent pixels get a white background, and 16 bits become 8.
"""

import io
import os
import sys
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from jaxtyping import UInt8

from genie_datasets.base.errors import UserError
from genie_datasets.sources.decode import MAX_PIXELS

Picture = UInt8[np.ndarray, "H W 3"]
MAX_BYTES = 1 << 28  # per file
FORMATS = "expected a JPEG, PNG, WebP, BMP or GIF file"
JPEG = b"\xff\xd8\xff"


def as_array(value: Any) -> Any:
    """A path or a PIL image as an array; anything else unchanged. Raises UserError."""
    if isinstance(value, str | os.PathLike):
        return read_picture(Path(value))
    pil = sys.modules.get("PIL.Image")  # imported already if `value` is a PIL image
    return from_pil(value) if pil is not None and isinstance(value, pil.Image) else value


def read_picture(path: Path, max_pixels: int = MAX_PIXELS) -> Picture:
    """The picture in a file. Raises UserError if it is missing, not a picture, an animation, or too large."""
    try:
        if path.is_dir():
            raise UserError(f"{path} is a folder; {FORMATS}")
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path} is larger than {MAX_BYTES:,} bytes, too large for a picture; {FORMATS}")
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read the picture {path} ({reason}); {FORMATS}") from None
    picture = decode_picture(data, str(path), max_pixels)
    try:
        num = cv2.imcount(str(path))
    except cv2.error:
        num = 1
    if num > 1:
        raise UserError(f"{path} holds {num} pictures, expected one; pass one of them, such as PIL.Image.open(path)")
    return picture


def decode_picture(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> Picture:
    """Decodes a picture, or the first of an animation, once the size in its header is checked. Raises UserError."""
    height, width = claimed_size(data, name)
    if height * width > max_pixels:
        raise UserError(f"{name} has {height}x{width} pixels; expected at most {max_pixels:,}; shrink the picture")
    bytes_ = np.frombuffer(data, np.uint8)
    try:
        image = cv2.imdecode(bytes_, cv2.IMREAD_COLOR)  # turned as EXIF says
        stored = None if data.startswith(JPEG) else cv2.imdecode(bytes_, cv2.IMREAD_UNCHANGED)  # as stored, with alpha
    except cv2.error:
        image = stored = None
    if image is None or image.shape[0] * image.shape[1] > max_pixels:
        raise UserError(f"{name} cannot be read as a picture; {FORMATS}")
    if stored is not None and stored.ndim == 3 and stored.shape[2] == 4:
        alpha = stored[..., 3:].astype(np.float32) / (255 if stored.dtype == np.uint8 else 65535)
        if alpha.min() < 1:
            if stored.shape[:2] != image.shape[:2] or (stored.dtype == np.uint8 and (stored[..., :3] != image).any()):
                raise UserError(f"{name} has transparent pixels and is turned by EXIF; save it without one of the two")
            image = (alpha * image + (1 - alpha) * 255).round().astype(np.uint8)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def claimed_size(data: bytes, name: str) -> tuple[int, int]:
    """(height, width) stated by the header. Raises UserError."""
    try:
        with av.open(io.BytesIO(data), metadata_errors="replace") as container:
            stream = container.streams.video[0]
            if stream.codec_context is not None and stream.width and stream.height:
                return stream.height, stream.width
    except (av.FFmpegError, OSError, IndexError, ValueError):
        pass
    raise UserError(f"{name} cannot be read as a picture; {FORMATS}")


def from_pil(image: Any) -> Picture:
    """The picture of a PIL image, the current one of an animation. Raises UserError."""
    from PIL import Image, ImageOps

    name = f"the PIL image {getattr(image, 'filename', '')}".strip()
    if image.width * image.height > MAX_PIXELS:
        raise UserError(
            f"{name} has {image.height}x{image.width} pixels; expected at most {MAX_PIXELS:,}; shrink the picture"
        )
    if image.mode in ("I", "F"):
        raise UserError(
            f"{name} has mode {image.mode}, whose range of values is unknown; scale it to 0 .. 255 and pass "
            "Image.fromarray(array.astype(np.uint8))"
        )
    try:
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I;16"):
            return np.stack([(np.asarray(image) >> 8).astype(np.uint8)] * 3, axis=-1)
        if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return np.array(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise UserError(f"{name} cannot be read as RGB ({error}); pass picture.convert('RGB')") from None
