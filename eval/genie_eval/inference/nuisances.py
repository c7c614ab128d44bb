"""Changes to a video that leave its actions as they were: light, colour, texture, camera, compression.

CONSISTENT nuisances change all frames of a trajectory alike, by one random draw: a person who looks at the clip says
that the same thing happened. SECOND_FRAME nuisances change the later frame of one transition: something did change, but
not the arm. Strengths are "plainly visible side by side, and no person would name another action"; none is ever drawn
so weak that it is no change. Lengths are for a picture 64 pixels high and grow with it.

(specification, level H.)
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, UInt8

Frames = UInt8[np.ndarray, "T H W 3"]
Pair = UInt8[np.ndarray, "2 H W 3"]
Nuisance = Callable[[Frames, np.random.Generator], Frames]
PairNuisance = Callable[[Pair, np.random.Generator], Pair]

HEIGHT = 64  # of the picture that lengths are given for
GAIN = (0.1, 0.22)  # log of the factor on all grey levels, either way: 0.80-0.90 or 1.11-1.25
GAMMA = (0.15, 0.3)  # log of the exponent, either way
WARMTH = (0.05, 0.12)  # red times 1 + w and blue times 1 - w, either way
HUE = (10.0, 25.0)  # degrees around the grey axis, either way
TEXTURE = (3.0, 7.0)  # SD of the pattern in grey levels
GRAIN = 1.0  # pixels; how far the pattern is smoothed
PATCH = (7, 12)  # pixels a side
OFFSET = 3  # pixels at most, in each direction, never none
ZOOM = (0.03, 0.08)  # share of the picture that is cut away
QUALITY = (45, 70)  # of JPEG
EXPOSURE = (0.08, 0.2)  # log of the step from one frame to the next, either way
JITTER = 3  # pixels, in at least one direction, whatever the size of the picture: the specification's shift
STRIDE = (3, 7)  # pixels that the distractor moves from one frame to the next


def scale(height: int) -> float:
    """What a length at 64 pixels is at this height."""
    return height / HEIGHT


def either(rng: np.random.Generator, bounds: tuple[float, float]) -> float:
    """A draw from `bounds`, with either sign."""
    return float(rng.uniform(*bounds) * rng.choice((-1.0, 1.0)))


def brightness(frames: Frames, rng: np.random.Generator) -> Frames:
    """More or less light."""
    return _by_table(frames, np.arange(256) * np.exp(either(rng, GAIN)))


def gamma(frames: Frames, rng: np.random.Generator) -> Frames:
    """Another camera curve: the middle tones lighter or darker."""
    return _by_table(frames, 255 * (np.arange(256) / 255) ** np.exp(either(rng, GAMMA)))


def warmth(frames: Frames, rng: np.random.Generator) -> Frames:
    """Warmer or colder light."""
    w = either(rng, WARMTH)
    return _by_table(frames, np.arange(256)[:, None] * np.array([1 + w, 1.0, 1 - w]))


def hue(frames: Frames, rng: np.random.Generator) -> Frames:
    """Every colour turned around the grey axis."""
    import cv2

    turn, _ = cv2.Rodrigues(np.radians(either(rng, HUE)) * np.ones(3) / np.sqrt(3))
    turned = frames.reshape(-1, 3).astype(np.float32) @ turn.T.astype(np.float32)
    return _bytes(turned).reshape(frames.shape)


def texture(frames: Frames, rng: np.random.Generator) -> Frames:
    """A fixed pattern over the whole picture, as of a dirty lens or another cloth."""
    import cv2

    height, width = frames.shape[1:3]
    pattern = cv2.GaussianBlur(rng.normal(size=(height, width)), (0, 0), GRAIN * scale(height))
    pattern *= rng.uniform(*TEXTURE) / pattern.std()
    return _bytes(frames + pattern[..., None].astype(np.float32))


def patch(frames: Frames, rng: np.random.Generator) -> Frames:
    """A coloured thing that stands at the border."""
    side, corner, _, colour = _draw_patch(frames.shape[1:3], rng)
    return _with_patch(frames, corner, side, colour)


def offset(frames: Frames, rng: np.random.Generator) -> Frames:
    """The camera turned a little: 1 to 3 pixels; the picture's edge is repeated."""
    reach = max(1, round(OFFSET * scale(frames.shape[1])))
    shift = np.zeros(2, int)
    while not shift.any():
        shift = rng.integers(-reach, reach + 1, size=2)
    return shifted(frames, *shift)


def zoom(frames: Frames, rng: np.random.Generator) -> Frames:
    """The camera a little nearer, and not quite centred."""
    import cv2

    height, width = frames.shape[1:3]
    cut = rng.uniform(*ZOOM)
    left, top = rng.uniform(0, cut, size=2) * [width, height]
    # From a pixel of the result to one of the source, pixel centres on whole numbers.
    grow = 1 - cut
    lens = np.array([[grow, 0, left + grow / 2 - 0.5], [0, grow, top + grow / 2 - 0.5]])
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.stack(
        [cv2.warpAffine(f, lens, (width, height), flags=how, borderMode=cv2.BORDER_REPLICATE) for f in frames]
    )


def jpeg(frames: Frames, rng: np.random.Generator) -> Frames:
    """Compressed, and plainly so."""
    return compressed(frames, int(rng.integers(QUALITY[0], QUALITY[1] + 1)))


def compressed(frames: Frames, quality: int) -> Frames:
    """Each frame through JPEG of that quality."""
    import cv2

    out = np.empty_like(frames)
    for t, frame in enumerate(frames):
        _, data = cv2.imencode(".jpg", frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
        assert decoded is not None  # it was encoded a line ago
        out[t] = decoded[..., ::-1]
    return out


CONSISTENT: dict[str, Nuisance] = {
    "brightness": brightness,
    "gamma": gamma,
    "warmth": warmth,
    "hue": hue,
    "texture": texture,
    "patch": patch,
    "offset": offset,
    "zoom": zoom,
    "jpeg": jpeg,
}


def jitter(pair: Pair, rng: np.random.Generator) -> Pair:
    """The camera jerks by 3 pixels between the two frames."""
    rows, columns = rng.choice([(r, c) for r in (-1, 0, 1) for c in (-1, 0, 1) if r or c])
    return np.stack([pair[0], shifted(pair[1:], rows * JITTER, columns * JITTER)[0]])


def exposure(pair: Pair, rng: np.random.Generator) -> Pair:
    """The camera opens or closes its iris between the two frames."""
    return np.stack([pair[0], _by_table(pair[1:], np.arange(256) * np.exp(either(rng, EXPOSURE)))[0]])


def moving_patch(pair: Pair, rng: np.random.Generator) -> Pair:
    """A coloured thing at the border moves along it between the two frames."""
    shape = pair.shape[1:3]
    side, corner, along, colour = _draw_patch(shape, rng)
    stride = max(1, round(rng.integers(STRIDE[0], STRIDE[1] + 1) * scale(shape[0])))
    room = shape[along] - side
    later = corner.copy()
    later[along] = corner[along] + stride if corner[along] + stride <= room else max(0, corner[along] - stride)
    return np.concatenate([_with_patch(pair[:1], corner, side, colour), _with_patch(pair[1:], later, side, colour)])


SECOND_FRAME: dict[str, PairNuisance] = {"jitter": jitter, "exposure": exposure, "moving_patch": moving_patch}


def shifted(frames: Frames, rows: int, columns: int) -> Frames:
    """The picture moved down by `rows` and right by `columns` pixels, its edge repeated."""
    height, width = frames.shape[1:3]
    down = np.clip(np.arange(height) - rows, 0, height - 1)
    right = np.clip(np.arange(width) - columns, 0, width - 1)
    return frames[:, down][:, :, right]


def _draw_patch(shape: tuple[int, int], rng: np.random.Generator) -> tuple[int, np.ndarray, int, np.ndarray]:
    """Of a patch: side, top left corner (row, column) at one of the four borders, the axis of that border, colour."""
    side = max(2, round(rng.integers(PATCH[0], PATCH[1] + 1) * scale(shape[0])))
    room = np.array(shape) - side
    corner = rng.integers(0, room + 1)
    across = int(rng.integers(2))
    corner[across] = room[across] * int(rng.integers(2))
    return side, corner, 1 - across, rng.integers(20, 236, size=3)


def _with_patch(frames: Frames, corner: np.ndarray, side: int, colour: np.ndarray) -> Frames:
    out = frames.copy()
    out[:, corner[0] : corner[0] + side, corner[1] : corner[1] + side] = colour
    return out


def _by_table(frames: Frames, table: Float[np.ndarray, "256 *C"]) -> Frames:
    """Every grey level replaced by the table's entry, the same for all channels or (256, 3) for each."""
    table = _bytes(table)
    return table[frames] if table.ndim == 1 else np.stack([table[frames[..., c], c] for c in range(3)], axis=-1)


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
