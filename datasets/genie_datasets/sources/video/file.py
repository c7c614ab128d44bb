"""One video file: its frames, when each is shown, and how. PyAV is imported only when a video is opened."""

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
from genie_datasets.sources.decode import MOST_PIXELS
from genie_datasets.sources.frame_sizes import check_size

HDR = {16: "PQ", 18: "HLG"}  # transfer functions, by their number in ITU-T H.273
FIRSTS = 2  # frames that are decoded to see whether they carry the times of their packets
INTRA = 1  # AV_PICTURE_TYPE_I
LISTS = ("concat", "hls", "dash", "image2")  # demuxers that read other files
CUT_OFF = 0.1  # share of the stated duration that may be missing, and at least a second
UNEVEN = 0.25  # by how much of the median an interval differs that counts as uneven
RIGHT_ANGLE = 0.0175  # sine of one degree: turns nearer to a right angle are right angles, as in FFmpeg


class DamagedVideo(ValueError):
    """The file is no video, or stops being one; the message says why.

    is_passing: the file could not be opened or read this time, which says nothing of its content.
    """

    def __init__(self, message: str, is_passing: bool = False):
        super().__init__(message)
        self.is_passing = is_passing


@dataclass(frozen=True)
class Upright:
    """How stored pixels become what a player shows."""

    a: float = 1.0
    b: float = 0.0
    c: float = 0.0
    d: float = 1.0
    """A stored pixel (x, y) is shown at (a x + c y, b x + d y)."""
    aspect: float = 1.0
    """Width of a stored pixel divided by its height."""

    @classmethod
    def of(cls, frame: Any, aspect: float) -> "Upright":
        """Asked of the first frame alone: a message in the stream is not repeated with every frame, and asking for side
        data keeps a frame alive until Python looks for cycles."""
        for data in frame.side_data:
            if data.type.name == "DISPLAYMATRIX" and len(bytes(data)) >= 20:
                a, b, _, c, d = struct.unpack("=5i", bytes(data)[:20])
                across, down = float(np.hypot(a, b)), float(np.hypot(c, d))
                if across and down and a * d != b * c:
                    return cls(a / across, b / across, c / down, d / down, aspect)
        return cls(aspect=aspect)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 as stored -> as shown."""
        a, b, c, d = self.a, self.b, self.c, self.d
        if self.aspect != 1:
            image = resize(image, self._square(*image.shape[:2]))
        if abs(b) < RIGHT_ANGLE and abs(c) < RIGHT_ANGLE:
            return image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
        if abs(a) < RIGHT_ANGLE and abs(d) < RIGHT_ANGLE:
            return image.transpose(1, 0, 2)[:: -1 if b < 0 else 1, :: -1 if c < 0 else 1]
        # Any other angle: about the middle, in a picture of the same size, as FFmpeg turns it.
        height, width = image.shape[:2]
        x, y = (width - 1) / 2, (height - 1) / 2
        about = np.array([[a, c, x - a * x - c * y], [b, d, y - b * x - d * y]])
        return cv2.warpAffine(np.ascontiguousarray(image), about, (width, height), flags=cv2.INTER_LINEAR)

    def size(self, height: int, width: int) -> Size:
        """(height, width) shown of a stored size. Raises DamagedVideo."""
        height, width = self._square(height, width)
        if height * width > MOST_PIXELS:
            raise DamagedVideo(f"claims {height}x{width} pixels")
        turned = abs(self.a) < RIGHT_ANGLE and abs(self.d) < RIGHT_ANGLE
        return (width, height) if turned else (height, width)

    def _square(self, height: int, width: int) -> Size:
        return height, max(1, round(width * self.aspect))


@dataclass(frozen=True, eq=False)
class VideoInfo:
    """A video file. Frame i is the i-th that a player shows."""

    num_frames: int
    rate: float
    """Frames per second as the container states it: often not the robot's rate. 0: not stated."""
    height: int
    """Height of the first frame as a player shows it: turned, mirrored, with square pixels."""
    width: int
    times: np.ndarray | None = None
    """(F,) seconds from the first frame, rising. None: the container has no usable time stamps."""
    is_stamped: bool = True
    """True if decoded frames carry these times. Else (AVI with B-frames, for one) frames are counted."""
    start: float = 0.0
    """Time stamp of the first frame, seconds."""
    tick: float = 0.0
    """The container's unit of time, seconds: time stamps are rounded to it."""
    uneven: float = 0.0
    """Share of the intervals between frames that differ from the median by more than a quarter of it."""
    upright: Upright = field(default_factory=Upright)
    notes: tuple[str, ...] = ()
    """Notes for the user, such as on a second video stream."""

    def nearest(self, seconds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n,) numbers of the frames nearest to these times, and (n,) how far each is, in seconds."""
        times = np.arange(self.num_frames) / (self.rate or 1.0) if self.times is None else np.asarray(self.times)
        right = np.minimum(np.searchsorted(times, seconds), len(times) - 1)
        left = np.maximum(right - 1, 0)
        ids = np.where(np.abs(times[left] - seconds) <= np.abs(times[right] - seconds), left, right)
        return ids, np.abs(times[ids] - seconds)

    def at_rate(self, hz: float) -> np.ndarray:
        """(n,) numbers of the frames that a player shows at 0, 1/hz, 2/hz, ... seconds."""
        assert self.times is not None
        times = np.asarray(self.times)
        # Half a tick: a time stamp that was rounded up still belongs to its moment.
        moments = np.arange(int(np.floor((times[-1] + self.tick / 2) * hz + 1e-9)) + 1) / hz
        return np.searchsorted(times, moments + self.tick / 2 + 1e-9, side="right") - 1


@contextmanager
def _opened(path: Path):
    import av

    try:
        # The absolute path of a file, or a name such as 12:30.mp4 would be an address of a protocol.
        with av.open(f"file:{path.absolute()}", metadata_errors="replace") as container:
            if {*container.format.name.split(",")} & {*LISTS}:
                raise DamagedVideo("a list of other files, or a picture")
            pictures = [s for s in container.streams.video if s.disposition & type(s.disposition).attached_pic]
            streams = [s for s in container.streams.video if s not in pictures]  # cover art is no video
            if not streams:
                raise DamagedVideo("no video stream")
            stream = streams[0]
            if stream.codec_context is None:
                raise DamagedVideo("a codec that is not known")
            if stream.width * stream.height > MOST_PIXELS:
                raise DamagedVideo(f"claims {stream.height}x{stream.width} pixels")
            stream.codec_context.options = {"max_pixels": str(MOST_PIXELS)}  # a later frame may claim more
            stream.codec_context.thread_count = 1  # files are decoded side by side, one thread each
            yield container, stream, len(streams)
    except (av.FFmpegError, OSError) as error:
        raise DamagedVideo(getattr(error, "strerror", None) or str(error), isinstance(error, OSError)) from None


def probe(path: Path) -> VideoInfo:
    """Count the frames and read their times; only the first few are decoded. Raises DamagedVideo."""
    with _opened(path) as (container, stream, num_streams):
        is_vp8 = stream.codec_context.name in ("vp8", "libvpx")
        stamps: list[int | None] = []
        order: list[int | None] = []
        firsts: list[Any] = []
        num_packets = 0
        for packet in container.demux(stream):
            if len(firsts) < FIRSTS:
                firsts += packet.decode()
            hidden = is_vp8 and packet.size > 0 and not bytes(packet)[0] & 0x10  # a frame that is never shown
            num_packets += packet.size > 0
            if packet.size > 0 and not packet.is_discard and not hidden:
                stamps.append(packet.pts)
                order.append(packet.dts)
        rate, unit = float(stream.average_rate or 0), float(stream.time_base or 0)
        aspect = float(stream.sample_aspect_ratio or 1)
        if not stamps or not stream.width:
            raise DamagedVideo("no frames")
        if num_packets < stream.frames:
            raise DamagedVideo(f"cut off: {num_packets} of the {stream.frames} frames that it states")
        has_other = len(container.streams) > num_streams
        stated = 0.0 if has_other else float(container.duration or 0) / 1e6
    if not firsts:
        raise DamagedVideo("no frame of it can be decoded")
    frame = firsts[0]
    upright = Upright.of(frame, aspect)
    height, width = upright.size(frame.height, frame.width)
    notes = []
    if num_streams > 1:
        notes.append(f"has {num_streams} video streams, of which the first is read")
    if frame.color_trc in HDR:
        notes.append(f"is HDR video ({HDR[frame.color_trc]}), whose colors are read without tone mapping")
    times, start = _times(stamps, unit)
    is_stamped = times is not None and follow(stamps, [frame.pts for frame in firsts[:FIRSTS]])
    if not is_stamped:  # frames are counted: all of them must decode, or later ones would be shifted
        times, start = _times(order, unit)
        if (num := sum(1 for _ in _decode(path))) != len(stamps):
            raise DamagedVideo(f"its frames have no usable time stamps, and {num} of {len(stamps)} can be decoded")
    lasts = max(start, 0.0) + (float(times[-1]) if times is not None else stated) + (1 / rate if rate else 0.0)
    if stated - lasts > max(1, CUT_OFF * stated):
        notes.append(f"ends after {lasts:.1f} s where it states {stated:.1f} s: it may be cut off")
    tick = unit if times is not None else 0.0
    share = unevenness(times, tick)
    return VideoInfo(len(stamps), rate, height, width, times, is_stamped, start, tick, share, upright, tuple(notes))


def unevenness(times: np.ndarray | None, tick: float) -> float:
    if times is None or len(times) < 3:
        return 0.0
    intervals = np.diff(times)
    median = float(np.median(intervals))
    return float((np.abs(intervals - median) > UNEVEN * median + tick).mean())


def follow(stamps: list[int | None], shown: list[int | None]) -> bool:
    """True if the time stamps of decoded frames follow one another among those of all packets."""
    order = sorted(stamp for stamp in stamps if stamp is not None)
    if any(stamp is None or stamp not in order for stamp in shown):
        return False
    places = [order.index(stamp) for stamp in shown if stamp is not None]
    return all(b == a + 1 for a, b in itertools.pairwise(places))


def _times(stamps: list[int | None], unit: float) -> tuple[np.ndarray | None, float]:
    """Seconds from the first frame, and the first time stamp; None where stamps are missing or repeated."""
    known = np.array([stamp for stamp in stamps if stamp is not None], np.int64)
    if len(known) < len(stamps) or not unit or len(np.unique(known)) < len(known):
        return None, 0.0
    known.sort()
    return (known - known[0]) * unit, float(known[0]) * unit


def probe_whole(path: Path) -> VideoInfo:
    """`probe`, and every frame decoded; raises DamagedVideo."""
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
    """Raises DamagedVideo where the decoder met damaged data and painted over it."""
    if frame.is_corrupt:
        raise DamagedVideo(f"the data of frame {number} are damaged")


def _decode(path: Path, seek: float | None = None) -> Iterator[Any]:
    """The frames (av.VideoFrame) in order; seek: from the key frame before this time stamp (seconds) on."""
    with _opened(path) as (container, stream, _):
        if seek is not None:
            container.seek(int(seek / stream.time_base), stream=stream)
        yield from container.decode(stream)


def numbered(path: Path, info: VideoInfo, first: int = 0) -> Iterator[tuple[int, Any]]:
    """Yield (number, av.VideoFrame) from frame `first` on, in order. Raises DamagedVideo.

    Frames are known by their time stamps, so frames that do not decode leave a gap instead of shifting all others. A
    video without time stamps is decoded from its beginning and counted.
    """
    if info.times is None or not info.is_stamped:
        for number, frame in enumerate(_decode(path)):
            if number >= first:
                yield number, frame
        return
    times = np.asarray(info.times)
    if first:
        # A little early: time stamps are rounded.
        decoded = _decode(path, float(times[first]) + info.start - info.tick / 2)
        began = False
        try:
            for frame in decoded:
                found = _number_of(frame, info, times)
                # Too far, or to a place from which a picture only builds up (periodic intra refresh).
                if not began and (found is None or found > first or frame.pict_type != INTRA):
                    break
                began = True
                if found is not None and found >= first:
                    yield found, frame
        except DamagedVideo:  # a container in which nothing can be found by its time
            if began:
                raise
        if began:
            return
    for frame in _decode(path):
        found = _number_of(frame, info, times)
        if found is not None and found >= first:
            yield found, frame


def _number_of(frame: Any, info: VideoInfo, times: np.ndarray) -> int | None:
    if frame.pts is None:
        return None
    seconds = float(frame.pts) * info.tick - info.start
    number = int(np.searchsorted(times, seconds - info.tick / 2))
    return number if number < len(times) and abs(times[number] - seconds) < info.tick / 2 else None


def read_frames(path: Path, ids: np.ndarray, size: Size | None, mode: str, info: VideoInfo | None = None) -> np.ndarray:
    """Frames `ids` (any order, repeats allowed) as a player shows them, fitted to `size`: (n, H, W, 3) uint8.

    Holds its output and a few decoded frames in memory. Raises DamagedVideo; SizeChanges where frames have several
    sizes and `size` is None (with a size each is fitted, which is said once).
    """
    info = info or probe(path)
    ids = np.asarray(ids, np.int64)
    out = np.empty((len(ids), *(size or (info.height, info.width)), 3), np.uint8)
    for place, image in fitted(path, ids, size, mode, info):
        out[place] = image
    return out


def fitted(
    path: Path, ids: np.ndarray, size: Size | None, mode: str, info: VideoInfo
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (places in `ids`, image (H, W, 3) uint8) of each frame asked for, in the order of the video."""
    from av.video.reformatter import VideoReformatter

    # One for all frames: each frame's own, which `to_ndarray(format=...)` uses, costs as much as decoding it.
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
