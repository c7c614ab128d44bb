"""Fitting of images, and decoding at a fraction of the size."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genie_datasets.base.errors import UserError
from genie_datasets.base.fit import crop_box, fit_frames, parse_size
from genie_datasets.sources.decode import DamagedImage, decode_image, image_size

SIDE = st.integers(1, 90)


def test_images_of_the_right_size_are_unchanged():
    frames = np.random.default_rng(0).integers(0, 255, (2, 3, 8, 10, 3), dtype=np.uint8)
    assert fit_frames(frames, (8, 10)) is frames


def test_shrinking_averages_areas_of_the_center():
    frame = np.zeros((4, 8, 3), np.uint8)
    frame[:, 2:6] = np.arange(4)[:, None, None] * 40 + np.arange(4)[None, :, None] * 10
    frame[:, :2] = frame[:, 6:] = 255  # cropped
    expected = frame[:, 2:6].reshape(2, 2, 2, 2, 3).mean((1, 3))
    np.testing.assert_allclose(fit_frames(frame, (2, 2)), expected, atol=0.51)


def test_letterbox_keeps_everything_and_pads_with_black():
    frame = np.full((10, 20, 3), 200, np.uint8)
    out = fit_frames(frame, (10, 10), "letterbox")
    assert (out[3:7] == 200).all()
    assert (out[:2] == 0).all()
    assert (out[8:] == 0).all()


def test_enlarging_is_bilinear_and_stays_between_its_neighbors():
    frame = np.zeros((2, 2, 3), np.uint8)
    frame[:, 1] = 200
    row = fit_frames(frame, (8, 8))[4, :, 0].astype(int)
    assert row[0] == 0
    assert row[-1] == 200
    assert (np.diff(row) >= 0).all()
    assert len(set(row.tolist())) > 2


@given(SIDE, SIDE, SIDE, SIDE, st.sampled_from(["crop", "letterbox"]), st.integers(0, 255))
def test_any_size_fits_into_any_other(h0, w0, h, w, mode, level):
    out = fit_frames(np.full((2, h0, w0, 3), level, np.uint8), (h, w), mode)
    assert out.shape == (2, h, w, 3)
    values = set(np.unique(out).tolist())
    assert values <= ({level} if mode == "crop" else {0, level})
    top, left, height, width = crop_box(h0, w0, (h, w))
    assert top >= 0
    assert left >= 0
    assert top + height <= h0
    assert left + width <= w0


def test_wrong_input_is_refused():
    with pytest.raises(UserError, match="crop, letterbox"):
        fit_frames(np.zeros((4, 4, 3), np.uint8), (2, 2), "squash")
    with pytest.raises(ValueError, match="uint8"):
        fit_frames(np.zeros((4, 4, 3)), (2, 2))
    assert parse_size("64x80") == (64, 80)
    for text in ("64", "64x", "64x0", "axb", "64x64x3", "-1x4"):
        with pytest.raises(UserError, match="is not a size"):
            parse_size(text)


def test_decoding_small_is_close_to_decoding_whole(kit):
    image = kit.moving_square(1, 256, 320)[0]
    data = kit.jpeg(image)
    assert image_size(data) == (256, 320)
    small, whole = decode_image(data, (64, 64)), fit_frames(decode_image(data), (64, 64))
    error = np.mean((small.astype(float) - whole) ** 2)
    assert 10 * np.log10(255**2 / error) > 45
    assert decode_image(data, (200, 250)).shape == (200, 250, 3)
    assert decode_image(data, (512, 640)).shape == (512, 640, 3)


@pytest.mark.parametrize("data", [b"", b"GIF89a......", b"\xff\xd8\xff\xe0 no jpeg", b"\x89PNG\r\n\x1a\n no png"])
def test_bytes_that_are_not_an_image(data):
    with pytest.raises(DamagedImage):
        decode_image(data)


def test_a_cut_jpeg_is_damaged(kit):
    data = kit.jpeg(kit.moving_square(1, 64, 64)[0])
    for cut in (4, 40, len(data) // 2, len(data) - 30):
        for size in (None, (16, 16)):
            with pytest.raises(DamagedImage):
                decode_image(data[:cut], size)
