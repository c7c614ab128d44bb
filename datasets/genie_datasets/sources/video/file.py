"""One video file: its frames, their times, and how a player shows them. PyAV is imported when a video is opened."""

import itertools
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from genie_datasets.base.fit import Size, fit_frames, resize
from genie_datasets.sources.decode import MAX_PIXELS
from genie_datasets.sources.file_split import DamagedFile, Images
from genie_datasets.sources.frame_sizes import check_size

HDR = {16: "PQ", 18: "HLG"}  # transfer functions by their number in ITU-T H.273
FIRST_FRAMES = 2  # decoded by `probe`, to compare their times with those of their packets
INTRA = 1  # AV_PICTURE_TYPE_I
LIST_FORMATS = ("concat", "hls", "dash", "image2")  # formats that refer to other files
CUT_OFF = 0.1  # share of the stated duration that may be missing, at least 1 s
UNEVEN = 0.25  # share of the median by which an uneven interval differs from it
RIGHT_ANGLE = 0.0175  # sine of 1 degree: a turn this near to a right angle is one, as in FFmpeg


class DamagedVideo(DamagedFile):
    """The file is not a video, or is damaged; the message says why.

    is_temporary: the file could not be opened or read this time, so its content may be good.
    """

    def __init__(self, message: str, is_temporary: bool = False):
        super().__init__(message)
        self.is_temporary = is_temporary


@dataclass(frozen=True)
class Upright:
    """The rotation, mirroring and pixel aspect by which a player shows stored frames upright."""

    a: float = 1.0
    b: float = 0.0
    c: float = 0.0
    d: float = 1.0
    """A stored pixel (x, y) is shown at (a x + c y, b x + d y)."""
    aspect: float = 1.0
    """Width of a stored pixel divided by its height."""

    @classmethod
    def of(cls, frame: Any, aspect: float) -> "Upright":
        """Read from the first frame only: not every frame repeats the display matrix, and reading side data keeps a
        frame in memory until Python collects cycles."""
        for data in frame.side_data:
            if data.type.name == "DISPLAYMATRIX" and len(bytes(data)) >= 20:
                a, b, _, c, d = struct.unpack("=5i", bytes(data)[:20])
                across, down = float(np.hypot(a, b)), float(np.hypot(c, d))
                if across and down and a * d != b * c:
                    return cls(a / across, b / across, c / down, d / down, aspect)
        return cls(aspect=aspect)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """A stored frame (H, W, 3) uint8 as it is shown."""
        a, b, c, d = self.a, self.b, self.c, self.d
        if self.aspect != 1:
            image = resize(image, self._square(*image.shape[:2]))
        if abs(b) < RIGHT_ANGLE and abs(c) < RIGHT_ANGLE:
            return image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
        if abs(a) < RIGHT_ANGLE and abs(d) < RIGHT_ANGLE:
            return image.transpose(1, 0, 2)[:: -1 if b < 0 else 1, :: -1 if c < 0 else 1]
        # Any other angle: about the center, in a frame of the same size, as FFmpeg does it.
        height, width = image.shape[:2]
        x, y = (width - 1) / 2, (height - 1) / 2
        about = np.array([[a, c, x - a * x - c * y], [b, d, y - b * x - d * y]])
        return cv2.warpAffine(np.ascontiguousarray(image), about, (width, height), flags=cv2.INTER_LINEAR)

    def size(self, height: int, width: int) -> Size:
        """(height, width) of a frame as it is shown, from its stored size. Raises DamagedVideo."""
        height, width = self._square(height, width)
        if height * width > MAX_PIXELS:
            raise DamagedVideo(f"it claims {height}x{width} pixels")
        turned = abs(self.a) < RIGHT_ANGLE and abs(self.d) < RIGHT_ANGLE
        return (width, height) if turned else (height, width)

    def _square(self, height: int, width: int) -> Size:
        return height, max(1, round(width * self.aspect))


@dataclass(frozen=True, eq=False)
class VideoInfo:
    """The properties of a video file. Frame i is the i-th that a player shows."""

    num_frames: int
    rate: float
    """Frames per second stated by the container, often not the control rate of the robot. 0: not stated."""
    height: int
    """Height of the first frame as a player shows it: turned, mirrored, with square pixels."""
    width: int
    times: np.ndarray | None = None
    """(F,) seconds from the first frame, increasing. None: the container has no usable time stamps."""
    is_stamped: bool = True
    """True if decoded frames carry these times. Otherwise (as in AVI with B-frames) frames are counted."""
    start: float = 0.0
    """Time stamp of the first frame, seconds."""
    tick: float = 0.0
    """The unit of time of the container, to which time stamps are rounded, seconds."""
    uneven: float = 0.0
    """Share of the intervals between frames that differ from their median by more than a quarter."""
    upright: Upright = field(default_factory=Upright)
    notes: tuple[str, ...] = ()
    """Notes for the user, such as about a second video stream."""

    def nearest(self, seconds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n,) numbers of the frames nearest to these times, and (n,) their distances in seconds."""
        times = np.arange(self.num_frames) / (self.rate or 1.0) if self.times is None else np.asarray(self.times)
        right = np.minimum(np.searchsorted(times, seconds), len(times) - 1)
        left = np.maximum(right - 1, 0)
        ids = np.where(np.abs(times[left] - seconds) <= np.abs(times[right] - seconds), left, right)
        return ids, np.abs(times[ids] - seconds)

    def at_rate(self, hz: float) -> np.ndarray:
        """(n,) numbers of the frames that a player shows at 0, 1/hz, 2/hz, ... seconds."""
        assert self.times is not None
        times = np.asarray(self.times)
        # Half a tick more, because time stamps may have been rounded up.
        moments = np.arange(int(np.floor((times[-1] + self.tick / 2) * hz + 1e-9)) + 1) / hz
        return np.searchsorted(times, moments + self.tick / 2 + 1e-9, side="right") - 1


@contextmanager
def _opened(path: Path):
    import av

    try:
        # With the absolute path, or FFmpeg would read a name such as 12:30.mp4 as the address of a protocol.
        with av.open(f"file:{path.absolute()}", metadata_errors="replace") as container:
            if {*container.format.name.split(",")} & {*LIST_FORMATS}:
                raise DamagedVideo("it is a list of other files, or a picture")
            covers = [s for s in container.streams.video if s.disposition & type(s.disposition).attached_pic]
            streams = [s for s in container.streams.video if s not in covers]
            if not streams:
                raise DamagedVideo("it has no video stream")
            stream = streams[0]
            if stream.codec_context is None:
                raise DamagedVideo("its codec is unknown")
            if stream.width * stream.height > MAX_PIXELS:
                raise DamagedVideo(f"it claims {stream.height}x{stream.width} pixels")
            stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}  # a later frame may claim more
            stream.codec_context.thread_count = 1  # several files are decoded at once, each in one thread
            yield container, stream, len(streams)
    except (av.FFmpegError, OSError) as error:
        raise DamagedVideo(getattr(error, "strerror", None) or str(error), isinstance(error, OSError)) from None


def probe(path: Path) -> VideoInfo:
    """Counts the frames and reads their times; only the first two are decoded. Raises DamagedVideo."""
    with _opened(path) as (container, stream, num_streams):
        is_vp8 = stream.codec_context.name in ("vp8", "libvpx")
        stamps: list[int | None] = []
        order: list[int | None] = []
        firsts: list[Any] = []
        num_packets = 0
        for packet in container.demux(stream):
            if len(firsts) < FIRST_FRAMES:
                firsts += packet.decode()
            hidden = is_vp8 and packet.size > 0 and not bytes(packet)[0] & 0x10  # never shown
            num_packets += packet.size > 0
            if packet.size > 0 and not packet.is_discard and not hidden:
                stamps.append(packet.pts)
                order.append(packet.dts)
        rate, unit = float(stream.average_rate or 0), float(stream.time_base or 0)
        aspect = float(stream.sample_aspect_ratio or 1)
        if not stamps or not stream.width:
            raise DamagedVideo("it has no frames")
        if num_packets < stream.frames:
            raise DamagedVideo(f"it is cut off: {num_packets} frames of the {stream.frames} that it states")
        has_other = len(container.streams) > num_streams
        stated = 0.0 if has_other else float(container.duration or 0) / 1e6
    if not firsts:
        raise DamagedVideo("none of its frames can be decoded")
    frame = firsts[0]
    upright = Upright.of(frame, aspect)
    height, width = upright.size(frame.height, frame.width)
    notes = []
    if num_streams > 1:
        notes.append(f"has {num_streams} video streams: the first is read")
    if frame.color_trc in HDR:
        notes.append(f"is HDR video ({HDR[frame.color_trc]}): its colors are read without tone mapping")
    times, start = _times(stamps, unit)
    is_stamped = times is not None and are_consecutive(stamps, [frame.pts for frame in firsts[:FIRST_FRAMES]])
    if not is_stamped:  # frames are counted, so all must decode, or later ones would be shifted
        times, start = _times(order, unit)
        if (num := sum(1 for _ in _decode(path))) != len(stamps):
            raise DamagedVideo(f"its frames have no usable time stamps, and {num} of {len(stamps)} can be decoded")
    lasts = max(start, 0.0) + (float(times[-1]) if times is not None else stated) + (1 / rate if rate else 0.0)
    if stated - lasts > max(1, CUT_OFF * stated):
        notes.append(f"ends after {lasts:.1f} s but states {stated:.1f} s: it may be cut off")
    tick = unit if times is not None else 0.0
    uneven = unevenness(times, tick)
    return VideoInfo(len(stamps), rate, height, width, times, is_stamped, start, tick, uneven, upright, tuple(notes))


def unevenness(times: np.ndarray | None, tick: float) -> float:
    """`VideoInfo.uneven` of these times."""
    if times is None or len(times) < 3:
        return 0.0
    intervals = np.diff(times)
    median = float(np.median(intervals))
    return float((np.abs(intervals - median) > UNEVEN * median + tick).mean())


def are_consecutive(stamps: list[int | None], shown: list[int | None]) -> bool:
    """True if the time stamps of the decoded frames are consecutive among those of all packets."""
    order = sorted(stamp for stamp in stamps if stamp is not None)
    if any(stamp is None or stamp not in order for stamp in shown):
        return False
    places = [order.index(stamp) for stamp in shown if stamp is not None]
    return all(b == a + 1 for a, b in itertools.pairwise(places))


def _times(stamps: list[int | None], unit: float) -> tuple[np.ndarray | None, float]:
    """Seconds from the first frame, and the first time stamp; None if stamps are missing or repeated."""
    known = np.array([stamp for stamp in stamps if stamp is not None], np.int64)
    if len(known) < len(stamps) or not unit or len(np.unique(known)) < len(known):
        return None, 0.0
    known.sort()
    return (known - known[0]) * unit, float(known[0]) * unit


def probe_whole(path: Path) -> VideoInfo:
    """`probe`, with every frame decoded. Raises DamagedVideo."""
    info = probe(path)
    expected = 0
    for number, frame in numbered(path, info):
        check_frame(number, frame)
        if number != expected:
            break
        expected += 1
    if expected < info.num_frames:
        raise DamagedVideo(f"frame {expected} of {info.num_frames} cannot be decoded")
    return info


def check_frame(number: int, frame: Any) -> None:
    """Raises DamagedVideo if the decoder found damaged data and concealed it."""
    if frame.is_corrupt:
        raise DamagedVideo(f"the data of frame {number} are damaged")


def _decode(path: Path, seek: float | None = None) -> Iterator[Any]:
    """Yields the frames (av.VideoFrame) in order; seek: from the key frame before this time stamp on, in seconds."""
    with _opened(path) as (container, stream, _):
        if seek is not None:
            container.seek(int(seek / stream.time_base), stream=stream)
        yield from container.decode(stream)


def numbered(path: Path, info: VideoInfo, first: int = 0) -> Iterator[tuple[int, Any]]:
    """Yields (number, av.VideoFrame) from frame `first` on, in order. Raises DamagedVideo.

    Frames are identified by their time stamps: a frame that does not decode leaves a gap and shifts no other. A video
    without time stamps is decoded from its beginning and counted.
    """
    if info.times is None or not info.is_stamped:
        yield from ((number, frame) for number, frame in enumerate(_decode(path)) if number >= first)
        return
    times = np.asarray(info.times)
    for frame in (_seek(path, info, times, first) if first else None) or _decode(path):
        number = _number_of(frame, info, times)
        if number is not None and number >= first:
            yield number, frame


def _seek(path: Path, info: VideoInfo, times: np.ndarray, number: int) -> Iterator[Any] | None:
    """Frames from the key frame before frame `number` on; None if the container cannot seek to one."""
    frames = _decode(path, float(times[number]) + info.start - info.tick / 2)  # a little early: times are rounded
    try:
        frame = next(frames, None)
    except DamagedVideo:
        return None
    found = None if frame is None else _number_of(frame, info, times)
    # Beyond the frame, or at one that is complete only after several more (periodic intra refresh).
    if frame is None or found is None or found > number or frame.pict_type != INTRA:
        return None
    return itertools.chain([frame], frames)


def _number_of(frame: Any, info: VideoInfo, times: np.ndarray) -> int | None:
    if frame.pts is None:
        return None
    seconds = float(frame.pts) * info.tick - info.start
    number = int(np.searchsorted(times, seconds - info.tick / 2))
    return number if number < len(times) and abs(times[number] - seconds) < info.tick / 2 else None


def read_frames(path: Path, ids: np.ndarray, size: Size | None, mode: str, info: VideoInfo | None = None) -> np.ndarray:
    """Frames `ids` (any order, repeats allowed) as a player shows them, fitted to `size`: (n, H, W, 3) uint8.

    Holds its output and a few decoded frames in memory. Raises DamagedVideo; SizeChanges if frames have several sizes
    and `size` is None.
    """
    info = info or probe(path)
    ids = np.asarray(ids, np.int64)
    out = np.empty((len(ids), *(size or (info.height, info.width)), 3), np.uint8)
    for place, image in fitted(path, ids, size, mode, info):
        out[place] = image
    return out


def fitted(path: Path, ids: np.ndarray, size: Size | None, mode: str, info: VideoInfo) -> Images:
    """Yields (positions in `ids`, image (H, W, 3) uint8) of each wanted frame, in the order of the video."""
    from av.video.reformatter import VideoReformatter

    # One for all frames: the one per frame that `to_ndarray(format=...)` makes costs as much as decoding.
    reformatter = VideoReformatter()
    order = np.argsort(ids, kind="stable")
    wanted, begins = np.unique(ids[order], return_index=True)
    places = np.split(order, begins[1:])
    native = (info.height, info.width)
    at = 0
    for number, frame in numbered(path, info, int(wanted[0])) if len(wanted) else ():
        if number > wanted[at]:
            break
        if number < wanted[at]:
            continue
        check_frame(number, frame)
        image = info.upright(reformatter.reformat(frame, format="rgb24").to_ndarray())
        check_size(number, image.shape[:2], native, size, str(path.parent), str(path))
        yield places[at], image if size is None else fit_frames(image, size, mode)
        at += 1
        if at == len(wanted):
            return
    if at < len(wanted):
        raise DamagedVideo(f"frame {wanted[at]} of {info.num_frames} cannot be decoded")
