"""Nuisances: changes to a video that leave its actions as they are, in light, color, texture, camera, compression.

(Level H.) CONSISTENT nuisances change all frames of a trajectory in the same way, by one random draw: a viewer would
say that the same thing happened. SECOND_FRAME nuisances change the later frame of one transition: something did change,
but not the arm. Strengths are clearly visible side by side and would not make a viewer name another action; none is so
weak that it changes nothing. Lengths are for a picture of 64 pixels in height and grow with it.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, UInt8

Frames = UInt8[np.ndarray, "T H W 3"]
Pair = UInt8[np.ndarray, "2 H W 3"]
Nuisance = Callable[[Frames, np.random.Generator], Frames]
PairNuisance = Callable[[Pair, np.random.Generator], Pair]

HEIGHT = 64  # pixels; height of the picture that lengths are given for
GAIN = (0.1, 0.22)  # log of the factor on all gray levels, with either sign: 0.80-0.90 or 1.11-1.25
GAMMA = (0.15, 0.3)  # log of the exponent, with either sign
WARMTH = (0.05, 0.12)  # red times 1 + w and blue times 1 - w, with either sign
HUE = (10.0, 25.0)  # degrees around the gray axis, with either sign
TEXTURE = (3.0, 7.0)  # SD of the pattern, in gray levels
GRAIN = 1.0  # pixels; smoothing of the pattern
PATCH = (7, 12)  # pixels; side of the patch
OFFSET = 3  # pixels; largest offset in each direction
ZOOM = (0.03, 0.08)  # share of the picture that is cropped
QUALITY = (45, 70)  # of JPEG
EXPOSURE = (0.08, 0.2)  # log of the step from one frame to the next, with either sign
JITTER = 3  # pixels, in at least one direction, at any size of the picture
STRIDE = (3, 7)  # pixels; motion of the distractor from one frame to the next


def scale(height: int) -> float:
    """Factor on lengths at this height of the picture."""
    return height / HEIGHT


def either(rng: np.random.Generator, bounds: tuple[float, float]) -> float:
    """Random draw from `bounds`, with a random sign."""
    return float(rng.uniform(*bounds) * rng.choice((-1.0, 1.0)))


def brightness(frames: Frames, rng: np.random.Generator) -> Frames:
    """Brighter or darker light."""
    return _by_table(frames, np.arange(256) * np.exp(either(rng, GAIN)))


def gamma(frames: Frames, rng: np.random.Generator) -> Frames:
    """Another gamma curve: lighter or darker mid-tones."""
    return _by_table(frames, 255 * (np.arange(256) / 255) ** np.exp(either(rng, GAMMA)))


def warmth(frames: Frames, rng: np.random.Generator) -> Frames:
    """Warmer or colder light."""
    w = either(rng, WARMTH)
    return _by_table(frames, np.arange(256)[:, None] * np.array([1 + w, 1.0, 1 - w]))


def hue(frames: Frames, rng: np.random.Generator) -> Frames:
    """All colors rotated around the gray axis."""
    import cv2

    turn, _ = cv2.Rodrigues(np.radians(either(rng, HUE)) * np.ones(3) / np.sqrt(3))
    turned = frames.reshape(-1, 3).astype(np.float32) @ turn.T.astype(np.float32)
    return _bytes(turned).reshape(frames.shape)


def texture(frames: Frames, rng: np.random.Generator) -> Frames:
    """A fixed pattern over the whole picture, as from a dirty lens."""
    import cv2

    height, width = frames.shape[1:3]
    pattern = cv2.GaussianBlur(rng.normal(size=(height, width)), (0, 0), GRAIN * scale(height))
    pattern *= rng.uniform(*TEXTURE) / pattern.std()
    return _bytes(frames + pattern[..., None].astype(np.float32))


def patch(frames: Frames, rng: np.random.Generator) -> Frames:
    """A static colored patch at the border."""
    side, corner, _, color = _draw_patch(frames.shape[1:3], rng)
    return _with_patch(frames, corner, side, color)


def offset(frames: Frames, rng: np.random.Generator) -> Frames:
    """A camera offset of 1 to 3 pixels; the edge of the picture is repeated."""
    reach = max(1, round(OFFSET * scale(frames.shape[1])))
    shift = np.zeros(2, int)
    while not shift.any():
        shift = rng.integers(-reach, reach + 1, size=2)
    return shifted(frames, *shift)


def zoom(frames: Frames, rng: np.random.Generator) -> Frames:
    """A camera a little nearer and slightly off center."""
    import cv2

    height, width = frames.shape[1:3]
    cut = rng.uniform(*ZOOM)
    left, top = rng.uniform(0, cut, size=2) * [width, height]
    # From a pixel of the result to one of the source, pixel centers at integers.
    grow = 1 - cut
    lens = np.array([[grow, 0, left + grow / 2 - 0.5], [0, grow, top + grow / 2 - 0.5]])
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.stack(
        [cv2.warpAffine(f, lens, (width, height), flags=how, borderMode=cv2.BORDER_REPLICATE) for f in frames]
    )


def jpeg(frames: Frames, rng: np.random.Generator) -> Frames:
    """Visible JPEG compression."""
    return compressed(frames, int(rng.integers(QUALITY[0], QUALITY[1] + 1)))


def compressed(frames: Frames, quality: int) -> Frames:
    """Frames after JPEG compression at this quality."""
    import cv2

    out = np.empty_like(frames)
    for t, frame in enumerate(frames):
        _, data = cv2.imencode(".jpg", frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
        assert decoded is not None
        out[t] = decoded[..., ::-1]
    return out


CONSISTENT: dict[str, Nuisance] = {
    change.__name__: change for change in (brightness, gamma, warmth, hue, texture, patch, offset, zoom, jpeg)
}


def jitter(pair: Pair, rng: np.random.Generator) -> Pair:
    """A camera jerk of 3 pixels between the two frames."""
    rows, columns = rng.choice([(r, c) for r in (-1, 0, 1) for c in (-1, 0, 1) if r or c])
    return np.stack([pair[0], shifted(pair[1:], rows * JITTER, columns * JITTER)[0]])


def exposure(pair: Pair, rng: np.random.Generator) -> Pair:
    """An exposure step between the two frames."""
    return np.stack([pair[0], _by_table(pair[1:], np.arange(256) * np.exp(either(rng, EXPOSURE)))[0]])


def moving_patch(pair: Pair, rng: np.random.Generator) -> Pair:
    """A colored patch at the border that moves along it between the two frames."""
    shape = pair.shape[1:3]
    side, corner, along, color = _draw_patch(shape, rng)
    stride = max(1, round(rng.integers(STRIDE[0], STRIDE[1] + 1) * scale(shape[0])))
    room = shape[along] - side
    later = corner.copy()
    later[along] = corner[along] + stride if corner[along] + stride <= room else max(0, corner[along] - stride)
    return np.concatenate([_with_patch(pair[:1], corner, side, color), _with_patch(pair[1:], later, side, color)])


SECOND_FRAME: dict[str, PairNuisance] = {"jitter": jitter, "exposure": exposure, "moving_patch": moving_patch}


def shifted(frames: Frames, rows: int, columns: int) -> Frames:
    """Frames shifted down by `rows` and right by `columns` pixels, with repeated edges."""
    height, width = frames.shape[1:3]
    down = np.clip(np.arange(height) - rows, 0, height - 1)
    right = np.clip(np.arange(width) - columns, 0, width - 1)
    return frames[:, down][:, :, right]


def _draw_patch(shape: tuple[int, int], rng: np.random.Generator) -> tuple[int, np.ndarray, int, np.ndarray]:
    """Random patch: side, top left corner (row, column) at one of the four borders, axis of that border, color."""
    side = max(2, round(rng.integers(PATCH[0], PATCH[1] + 1) * scale(shape[0])))
    room = np.array(shape) - side
    corner = rng.integers(0, room + 1)
    across = int(rng.integers(2))
    corner[across] = room[across] * int(rng.integers(2))
    return side, corner, 1 - across, rng.integers(20, 236, size=3)


def _with_patch(frames: Frames, corner: np.ndarray, side: int, color: np.ndarray) -> Frames:
    out = frames.copy()
    out[:, corner[0] : corner[0] + side, corner[1] : corner[1] + side] = color
    return out


def _by_table(frames: Frames, table: Float[np.ndarray, "256 *C"]) -> Frames:
    """Replaces every gray level by its entry in the table: (256,) for all channels, or (256, 3) for each."""
    table = _bytes(table)
    return table[frames] if table.ndim == 1 else np.stack([table[frames[..., c], c] for c in range(3)], axis=-1)


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
