"""Frames that show their number as a bar code, and videos of them with every variation that containers allow.

The upper half shows the number as ten black or white bars; the lower half is red on the left and blue on the right. So
frames in a wrong order, at a wrong time, turned, or with swapped colors are detected.
"""

import struct
from fractions import Fraction
from pathlib import Path

import numpy as np

BITS = 10
HEIGHT, WIDTH = 64, 80
ONE = 0x10000  # 1.0 in a display matrix


def frame(number: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    image = np.full((height, width, 3), 40, np.uint8)
    for bit in range(BITS):
        left, right = bit * width // BITS, (bit + 1) * width // BITS
        image[: height // 2, left:right] = 255 if number >> bit & 1 else 0
    image[height // 2 :, : width // 2] = (220, 30, 30)
    image[height // 2 :, width // 2 :] = (30, 30, 220)
    return image


def numbers(frames: np.ndarray) -> list[int]:
    """The numbers of frames (n, H, W, 3). Raises AssertionError if one is turned or has other colors."""
    return [number(image) for image in frames]


def number(image: np.ndarray) -> int:
    height, width = image.shape[:2]
    found = 0
    for bit in range(BITS):
        left, right = bit * width // BITS, (bit + 1) * width // BITS
        margin = max(1, (right - left) // 4)
        found |= int(image[height // 8 : height * 3 // 8, left + margin : right - margin].mean() > 128) << bit
    below = image[height * 5 // 8 : height * 7 // 8].astype(int)
    left, right = below[:, width // 8 : width * 3 // 8], below[:, width * 5 // 8 : width * 7 // 8]
    assert left[..., 0].mean() > 150 > 100 > left[..., 2].mean(), "not red on the left: turned, mirrored or swapped"
    assert right[..., 2].mean() > 150 > 100 > right[..., 0].mean(), "not blue on the right"
    return found


def write(
    path: Path,
    length: int = 24,
    rate: Fraction | int = 10,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    pts: list[int] | None = None,
    unit: Fraction | None = None,
    shown: str = "upright",
    aspect: Fraction = Fraction(1),
    first: int = 0,
    shape: tuple[int, int] = (HEIGHT, WIDTH),
    **more,
) -> Path:
    """A video of frames first, first + 1, ...

    pts: time stamps in `unit` seconds. shown: how a player turns the stored pixels, one of TURNS; they are stored so
    that it shows them upright. aspect: width of a stored pixel divided by its height.
    """
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    height, full = stored(frame(0, *shape), shown).shape[:2]
    width = round(full / aspect) // 2 * 2
    with av.open(str(path), "w", **more) as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        if codec == "mjpeg":
            stream.pix_fmt = "yuvj420p"
        if aspect != 1:
            stream.codec_context.sample_aspect_ratio = aspect
        if unit:
            stream.codec_context.time_base = unit
        for n in range(length):
            image = stored(frame((first + n) % (1 << BITS), *shape), shown)
            columns = (np.arange(width) * image.shape[1] / width).astype(int)
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(image[:, columns]), format="rgb24")
            if pts is not None:
                picture.pts, picture.time_base = pts[n], unit
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    if shown != "upright":
        turn(path, shown)
    return path


# What a player does to stored pixels, as a display matrix (a, b, c, d): (x, y) is shown at (a x + c y, b x + d y).
TURNS = {
    "upright": (1, 0, 0, 1),
    "right": (0, 1, -1, 0),
    "around": (-1, 0, 0, -1),
    "left": (0, -1, 1, 0),
    "mirrored": (-1, 0, 0, 1),
    "upside down": (1, 0, 0, -1),
    "transposed": (0, 1, 1, 0),
    "across": (0, -1, -1, 0),
}


def stored(image: np.ndarray, shown: str) -> np.ndarray:
    """The stored pixels that a player with this rotation shows as `image`."""
    a, b, c, d = TURNS[shown]
    height, width = image.shape[:2]
    y, x = np.indices((height, width) if a or d else (width, height))
    to_x, to_y = a * x + c * y, b * x + d * y
    return image[to_y - to_y.min(), to_x - to_x.min()]


def turn(path: Path, shown: str | tuple[float, float, float, float]) -> None:
    """Writes a display matrix into the header of an mp4."""
    a, b, c, d = (round(ONE * value) for value in (TURNS[shown] if isinstance(shown, str) else shown))
    data = path.read_bytes()
    identity = struct.pack(">9i", ONE, 0, 0, 0, ONE, 0, 0, 0, 0x40000000)
    at = data.index(identity, data.index(b"tkhd"))
    matrix = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 0x40000000)
    path.write_bytes(data[:at] + matrix + data[at + 36 :])
