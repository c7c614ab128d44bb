"""Frames of a video have the order, times and orientation in which a player shows them, in every container."""

import shutil
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genie_datasets import open_source
from genie_datasets.base.errors import UserError
from genie_datasets.sources.video.file import read_frames
from tests.genie_datasets.conftest import examples
from tests.genie_datasets.numbered import HEIGHT, TURNS, WIDTH, frame, numbers, stored, turn, write

KINDS = {
    # suffix and codec -> options that change the order or the kind of what is stored
    (".mp4", "libx264"): [{"bf": "0"}, {"bf": "3", "g": "250"}, {"bf": "2", "g": "2"}, {"g": "1"}],
    (".mov", "libx264"): [{"bf": "3", "b-pyramid": "normal"}, {"x264-params": "open-gop=1:keyint=8"}],
    (".mkv", "libx264"): [{"bf": "3"}, {"bf": "0", "g": "5"}],
    (".mkv", "ffv1"): [{}],
    (".mp4", "mpeg4"): [{}, {"bf": "2"}],
    (".avi", "mjpeg"): [{}],
    (".avi", "mpeg4"): [{}, {"bf": "2"}],
    (".avi", "libx264"): [{"bf": "3"}, {"bf": "0"}],
    (".webm", "libvpx"): [{}, {"auto-alt-ref": "1", "lag-in-frames": "16", "deadline": "good", "b": "60k"}],
    (".webm", "libvpx-vp9"): [{"deadline": "realtime", "cpu-used": "8"}, {"auto-alt-ref": "1", "lag-in-frames": "12"}],
}
CASES = [(suffix, codec, options) for (suffix, codec), several in KINDS.items() for options in several]


def read(path: Path, **more):
    (split,) = open_source(path, **more).splits.values()
    return split


@settings(max_examples=examples(40), suppress_health_check=list(HealthCheck))
@given(st.sampled_from(CASES), st.integers(1, 40), st.sampled_from([3, 10, 30, Fraction(30000, 1001)]), st.data())
def test_every_container_gives_its_frames_in_order(tmp_path_factory, case, length, rate, data):
    suffix, codec, options = case
    shown = data.draw(st.sampled_from(sorted(TURNS)) if suffix == ".mp4" and codec == "libx264" else st.just("upright"))
    aspect = data.draw(st.sampled_from([Fraction(1), Fraction(1), Fraction(2), Fraction(4, 3), Fraction(1, 2)]))
    aspect = aspect if suffix in (".mp4", ".mkv") and codec == "libx264" else Fraction(1)
    ids = data.draw(st.lists(st.integers(0, length - 1), min_size=1, max_size=12))
    folder = tmp_path_factory.mktemp("video")
    write(folder / f"a{suffix}", length, rate, codec, options, shown=shown, aspect=aspect)
    split = read(folder, hz=3)
    assert split.num_frames.tolist() == [length]
    assert split.hz.tolist() == [3]
    whole = split.frames(0)
    assert numbers(whole) == list(range(length))
    height, width = whole.shape[1:3]
    assert (height, width) == split.image_size
    assert abs(width / height - WIDTH / HEIGHT) < 0.06
    np.testing.assert_array_equal(split.frames(0, np.array(ids)), whole[ids])
    np.testing.assert_array_equal(np.concatenate(list(split.frame_blocks(0))), whole)
    fitted = split.frames(0, None, (HEIGHT, WIDTH))
    assert numbers(fitted) == list(range(length))
    np.testing.assert_array_equal(split.frames(0, np.array(ids), (HEIGHT, WIDTH)), fitted[ids])
    large = read(folder, hz=3)
    large.size_of = lambda episode: (10**5, 10**5)  # too large to keep: decoded from the key frame before
    np.testing.assert_array_equal(large.frames(0, np.array(ids), (HEIGHT, WIDTH)), fitted[ids])
    shutil.rmtree(folder)


@settings(max_examples=examples(20), suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.sampled_from([1, 1, 1, 1, 2, 3, 10, 50]), min_size=3, max_size=40),
    st.sampled_from([1, 2, 3, 5, 7.5, 10, 30]),
    st.integers(0, 500),
)
def test_uneven_time_stamps_are_noted_and_resampled_by_the_clock(tmp_path_factory, capsys, gaps, hz, offset):
    """gaps: hundredths of a second from each frame to the next; offset: time stamp of the first."""
    folder = tmp_path_factory.mktemp("uneven")
    pts = [offset, *(offset + np.cumsum(gaps)).tolist()]
    write(folder / "a.mkv", len(pts), 100, "ffv1", pts=pts, unit=Fraction(1, 100))
    capsys.readouterr()
    declared = read(folder, hz=3)
    said = capsys.readouterr().err
    median = np.median(gaps)
    uneven = np.mean([abs(gap - median) > 0.25 * median + 0.001 for gap in gaps])
    assert ("uneven time stamps" in said) == (uneven > 0)
    if uneven:
        assert f"{uneven:.1%} of its intervals" in said
    assert numbers(declared.frames(0)) == list(range(len(pts)))
    resampled = read(folder, resample=hz)
    assert "uneven" not in capsys.readouterr().err
    assert resampled.hz.tolist() == [hz]
    times = (np.array(pts) - offset) / 100
    moments = np.arange(int(np.floor(times[-1] * hz + 1e-6)) + 1) / hz
    expected = [int(np.flatnonzero(times <= moment + 1e-3)[-1]) for moment in moments]
    assert numbers(resampled.frames(0)) == expected
    assert resampled.num_frames.tolist() == [len(expected)]
    assert resampled.fingerprint != declared.fingerprint
    shutil.rmtree(folder)


def test_a_pause_of_five_seconds(tmp_path, capsys):
    gaps = [1] * 30 + [3] * 10 + [150] + [3] * 10
    write(tmp_path / "a.mp4", len(gaps) + 1, 30, pts=[0, *np.cumsum(gaps).tolist()], unit=Fraction(1, 30))
    read(tmp_path, hz=10)
    assert "uneven time stamps" in capsys.readouterr().err
    frames = numbers(read(tmp_path, resample=10).frames(0))
    assert frames[:4] == [0, 3, 6, 9]
    assert frames.count(40) == 50, "the frame before the pause is shown for five seconds"


@pytest.mark.parametrize("shown", sorted(TURNS))
def test_a_turned_video_is_read_as_a_player_shows_it(tmp_path, shown):
    write(tmp_path / "a.mp4", 5, shown=shown)
    split = read(tmp_path, hz=3)
    assert split.image_size == (HEIGHT, WIDTH)
    assert numbers(split.frames(0)) == list(range(5))


def test_the_inspector_prints_the_size_shown(tmp_path, capsys):
    from genie_datasets.commands import main

    write(tmp_path / "a.mp4", 20, shown="right")
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert (container.streams.video[0].height, container.streams.video[0].width) == (WIDTH, HEIGHT)
    assert main(["inspect", str(tmp_path), "--hz", "3"]) == 0
    assert f"of {HEIGHT}x{WIDTH} at 3 Hz" in capsys.readouterr().out


@pytest.mark.parametrize("degrees", [10, 45, 200])
def test_any_other_angle_turns_about_the_center(tmp_path, degrees):
    """FFmpeg's rotate filter also keeps the size and fills with black."""
    from scipy import ndimage

    write(tmp_path / "a.mp4", 3)
    upright = read(tmp_path, hz=3).frames(0)[0]
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    turn(tmp_path / "a.mp4", (cos, sin, -sin, cos))
    found = read(tmp_path, hz=3).frames(0)[0]
    assert found.shape == upright.shape
    clockwise, other = (ndimage.rotate(upright, -sign * degrees, reshape=False, order=1) for sign in (1, -1))
    assert np.abs(found.astype(int) - clockwise).mean() < 8
    assert np.abs(found.astype(int) - other).mean() > 16


def test_a_matrix_that_squeezes_to_nothing_is_ignored(tmp_path):
    write(tmp_path / "a.mp4", 3)
    turn(tmp_path / "a.mp4", (0, 0, 0, 0))
    assert numbers(read(tmp_path, hz=3).frames(0)) == [0, 1, 2]


def test_stored_pixels_are_the_inverse_of_what_is_shown():
    """Compares the generator of these tests with numpy."""
    image = frame(5)
    np.testing.assert_array_equal(stored(image, "right"), np.rot90(image, 1))  # a player turns it back, clockwise
    np.testing.assert_array_equal(stored(image, "left"), np.rot90(image, -1))
    np.testing.assert_array_equal(stored(image, "mirrored"), image[:, ::-1])


def add_video_stream(container, length, first, size=(HEIGHT, WIDTH)):
    stream = container.add_stream("libx264", rate=10)
    stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
    return stream, [frame(first + n, *size) for n in range(length)]


def test_a_second_stream_is_noted_and_cover_art_is_skipped(tmp_path, capsys):
    with av.open(str(tmp_path / "two.mkv"), "w") as container:
        streams = [add_video_stream(container, 8, first) for first in (0, 500)]
        for n in range(8):
            for stream, images in streams:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(images[n], format="rgb24")))
        for stream, _ in streams:
            container.mux(stream.encode())
    assert numbers(read(tmp_path, hz=3).frames(0)) == list(range(8))
    assert "two.mkv has 2 video streams: the first is read" in capsys.readouterr().err
    (tmp_path / "two.mkv").unlink()
    with av.open(str(tmp_path / "cover.mp4"), "w") as container:
        cover = container.add_stream("mjpeg", rate=1)
        cover.height, cover.width, cover.pix_fmt = 32, 32, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        stream, images = add_video_stream(container, 8, 0)
        container.mux(cover.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
        container.mux(cover.encode())
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    split = read(tmp_path, hz=3)
    assert numbers(split.frames(0)) == list(range(8))
    assert "streams" not in capsys.readouterr().err


def cut_without_key_frame(source: Path, out: Path, packets: int) -> None:
    with av.open(str(source)) as whole, av.open(str(out), "w") as cut:
        stream = whole.streams.video[0]
        copy = cut.add_stream_from_template(stream)
        for n, packet in enumerate(packet for packet in whole.demux(stream) if packet.dts is not None):
            if n >= packets:
                packet.stream = copy
                cut.mux(packet)


def test_frames_that_do_not_decode_leave_a_gap_and_shift_nothing(tmp_path):
    write(tmp_path / "whole.mp4", 40, options={"g": "20", "bf": "0"})
    folder = tmp_path / "cut"
    folder.mkdir()
    cut_without_key_frame(tmp_path / "whole.mp4", folder / "a.mp4", 7)
    split = read(folder, hz=3)
    assert split.num_frames.tolist() == [33]
    with pytest.raises(UserError, match=r"a\.mp4 cannot be read as video \(frame 0 of 33 cannot be decoded\)"):
        split.frames(0)
    late = read_frames(split.files[0], np.arange(13, 33), None, "crop", split.infos[0])
    assert numbers(late) == list(range(20, 40))


def write_two_sizes(path: Path) -> None:
    small, large = (HEIGHT, WIDTH), (2 * HEIGHT, 2 * WIDTH)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.height, stream.width, stream.pix_fmt = *small, "yuvj420p"
        for n in range(20):
            size = small if n < 12 else large
            encoder = av.CodecContext.create("mjpeg", "w")
            encoder.height, encoder.width, encoder.pix_fmt = *size, "yuvj420p"
            encoder.time_base = Fraction(1, 10)
            picture = av.VideoFrame.from_ndarray(frame(n, *size), format="rgb24").reformat(format="yuvj420p")
            picture.pts, picture.time_base = n, Fraction(1, 10)
            for packet in (*encoder.encode(picture), *encoder.encode()):
                packet.stream, packet.pts, packet.dts, packet.time_base = stream, n, n, Fraction(1, 10)
                container.mux(packet)


def test_several_sizes_are_fitted_and_noted_once_or_refused(tmp_path, capsys):
    write_two_sizes(tmp_path / "a.avi")
    split = read(tmp_path, hz=3)
    with pytest.raises(UserError, match=r"a\.avi: frame 12 has 128x160 pixels, others 64x80; expected one size"):
        split.frames(0)
    capsys.readouterr()
    assert numbers(split.frames(0, None, (HEIGHT, WIDTH))) == list(range(20))
    assert numbers(read(tmp_path, hz=3).frames(0, None, (HEIGHT, WIDTH))) == list(range(20))
    said = [line for line in capsys.readouterr().err.splitlines() if "frame 12 has 128x160" in line]
    assert len(said) == 1
    assert "each frame is fitted to 64x80" in said[0]


@pytest.mark.parametrize("asked", [{"hz": 3, "resample": 3}, {"resample": 0}, {"resample": float("nan")}])
def test_impossible_rates(tmp_path, asked):
    write(tmp_path / "a.mp4", 5)
    with pytest.raises(UserError, match="--resample"):
        read(tmp_path, **asked)


def test_sources_that_cannot_be_resampled(rlds_dir, tmp_path):
    for name in ("clip.npy", "other.npy"):
        np.save(tmp_path / name, np.zeros((5, 8, 8, 3), np.uint8))
    for place in (rlds_dir, tmp_path):
        with pytest.raises(UserError, match="--resample cannot be used here: it is .* only video files are resampled"):
            open_source(place, resample=3)


def turn_back(path: Path) -> None:
    """Removes the rotation from the header of an mp4, so that only the stream states it."""
    upright = b"".join(int(x * 0x10000).to_bytes(4, "big", signed=True) for x in (1, 0))
    data = path.read_bytes()
    at = data.index(b"tkhd") + 4 + 40
    one, zero = upright[:4], upright[4:]
    path.write_bytes(data[:at] + one + zero * 3 + one + data[at + 20 :])


def test_a_rotation_in_the_stream_holds_for_all_frames(tmp_path):
    """The rotation in an H.264 stream is not repeated with every frame, nor in the second episode of a LeRobot file."""
    pytest.importorskip("pyarrow")
    from tests.genie_datasets.test_lerobot_frames import KEY, make

    expected = make(tmp_path / "set", [20, 20], version="v3.0")
    path = tmp_path / "set/videos" / KEY / "chunk-000/file-000.mp4"
    upside_down = write(tmp_path / "plain.mp4", 40, options={"g": "10"}, shown="around")
    turn_back(upside_down)
    with av.open(str(upside_down)) as source, av.open(str(path), "w") as out:
        stream = source.streams.video[0]
        copy = out.add_stream_from_template(stream)
        told = BitStreamFilterContext("h264_metadata=display_orientation=insert:rotate=180", stream)
        for packet in list(source.demux(stream)):
            for changed in told.filter(packet if packet.size else None):
                changed.stream = copy
                out.mux(changed)
    split = read(tmp_path / "set")
    for episode in range(2):
        assert numbers(split.frames(episode)) == expected[episode]
        assert numbers(np.concatenate(list(split.frame_blocks(episode)))) == expected[episode]


def test_intra_refresh_is_decoded_from_the_beginning(tmp_path):
    """Periodic intra refresh: after a frame flagged as key frame, pixels become right one column after another."""
    write(tmp_path / "a.mp4", 60, options={"x264-params": "intra-refresh=1:keyint=8:bframes=0"})
    split = read(tmp_path, hz=3)
    whole = split.frames(0)
    assert numbers(whole) == list(range(60))
    split.size_of = lambda episode: (10**5, 10**5)  # too large to keep
    for first in range(1, 60, 7):
        ids = np.arange(first, 60)
        np.testing.assert_array_equal(split.frames(0, ids, (HEIGHT, WIDTH)), whole[ids])


def test_a_video_that_is_cut_off_is_noted(tmp_path, capsys):
    whole = write(tmp_path / "whole.mp4", 60, options={"g": "5"}, container_options={"movflags": "faststart"})
    data, folder = whole.read_bytes(), tmp_path / "cut"
    folder.mkdir()
    with av.open(str(whole)) as container:
        ends = [packet.pos + packet.size for packet in container.demux(video=0) if packet.size]
    (folder / "a.mp4").write_bytes(data[: sorted(ends)[24]])
    with pytest.raises(UserError, match=r"a\.mp4 cannot be read .*cut off: 25 frames of the 60 that it states"):
        read(folder, hz=3)
    (folder / "a.mp4").unlink()
    webm = write(tmp_path / "whole.webm", 60, codec="libvpx", options={"g": "5"}).read_bytes()
    (folder / "a.webm").write_bytes(webm[: len(webm) // 2])
    assert read(folder, hz=3).num_frames[0] < 60
    assert "but states 6.0 s: it may be cut off" in capsys.readouterr().err


def test_most_damage_of_a_video_is_an_error(tmp_path):
    """Three flipped bits of H.264: the decoder marks concealed damage. A flip that decodes to valid data is not
    noticed, because containers have no checksums."""
    whole = write(tmp_path / "a.mp4", 60, options={"g": "10"}).read_bytes()
    right = read(tmp_path, hz=3).frames(0)
    rng, told, silent = np.random.default_rng(0), 0, 0
    for _ in range(examples(15)):
        data = bytearray(whole)
        for at in rng.integers(len(data) * 3 // 20, len(data) * 3 // 4, 3):
            data[at] ^= 1 << int(rng.integers(8))
        (tmp_path / "a.mp4").write_bytes(data)
        try:
            found = read(tmp_path, hz=3).frames(0)
        except UserError as error:
            told += "a.mp4 cannot be read as video" in str(error)
            continue
        silent += bool((np.abs(found.astype(int) - right).max(-1) > 40).mean((1, 2)).max() >= 0.05)
    print(f"{told} told, {silent} silent")
    assert told > 0.7 * examples(15)
    assert silent < 0.1 * examples(15)


def test_names_that_look_like_addresses(tmp_path, monkeypatch):
    for first, name in ((0, "g.mp4"), (500, "file:g.mp4"), (100, "2024-01-02T12:30:00/a.mp4")):
        write(tmp_path / name.replace("file:g", "other"), 5, first=first)
    (tmp_path / "other.mp4").rename(tmp_path / "file:g.mp4")
    monkeypatch.chdir(tmp_path)
    split = read(Path(), hz=3)
    assert [numbers(split.frames(e))[0] for e in range(3)] == [100, 500, 0]


def test_a_list_of_other_files_is_refused(tmp_path):
    write(tmp_path / "away.mkv", 5)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a.mp4").write_text(f"ffconcat version 1.0\nfile '{tmp_path}/away.mkv'\n")
    with pytest.raises(UserError, match=r"a\.mp4 cannot be read as video"):
        read(tmp_path / "data", hz=3)


def test_temporary_errors_are_not_cached(tmp_path, monkeypatch):
    write(tmp_path / "a.mp4", 5)
    original = av.open

    def no_descriptors(*args, **more):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(av, "open", no_descriptors)
    with pytest.raises(UserError, match="Too many open files.*: make it readable and rerun the command"):
        read(tmp_path, hz=3)
    monkeypatch.setattr(av, "open", original)
    assert read(tmp_path, hz=3).num_frames.tolist() == [5]


def test_a_video_that_changed_while_it_is_open(tmp_path):
    write(tmp_path / "a.mp4", 20)
    split = read(tmp_path, hz=3)
    write(tmp_path / "a.mp4", 30, first=300)
    with pytest.raises(UserError, match=r"a\.mp4 has changed since it was opened: rerun the command"):
        split.frames(0)


def test_a_rate_known_by_name_is_noted_if_the_file_states_another(tmp_path, capsys):
    write(tmp_path / "kuka_pick.mp4", 5, 30)
    write(tmp_path / "kukaracha.mp4", 5, 30)
    assert read(tmp_path).hz.tolist() == [10, 30]
    said = capsys.readouterr().err
    assert "assuming 10 Hz for " in said
    assert "kuka_pick.mp4, which is named like a known data set but states 30 frames/s: pass --hz" in said


def test_resampling_faster_than_the_video_is_noted(tmp_path, capsys):
    write(tmp_path / "a.mp4", 5)
    assert numbers(read(tmp_path, resample=20).frames(0)) == [0, 0, 1, 1, 2, 2, 3, 3, 4]
    assert "--resample 20 is faster than " in capsys.readouterr().err
