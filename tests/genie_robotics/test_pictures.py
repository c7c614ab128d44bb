"""`Genie.start` takes any picture: an array of any size, a PIL image of any mode, a file.

Each is seen as a viewer shows it, or refused in one line that names it.
"""

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from genie_datasets import fit_frames
from genie_datasets.base.errors import UserError
from genie_datasets.sources.pictures import as_array, decode_picture
from tests.genie_robotics.conftest import random_genie, tiny_config

Image = pytest.importorskip("PIL.Image")

QUADRANTS = np.zeros((40, 60, 3), np.uint8)
QUADRANTS[:20, :30], QUADRANTS[:20, 30:], QUADRANTS[20:, :30] = (250, 10, 20), (20, 240, 30), (30, 40, 230)
ORIENTATION = 0x112
TURNED = {1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: lambda a: np.rot90(np.fliplr(a)),
          6: lambda a: np.rot90(a, -1), 7: lambda a: np.rot90(np.flipud(a)), 8: np.rot90}  # fmt: skip


@pytest.fixture(scope="module")
def models():
    found = {}
    for fit in ("crop", "letterbox"):
        config = tiny_config()
        config.fit = fit
        found[fit] = random_genie(config)
    return found


def tokens(world) -> torch.Tensor:
    return world.state.tokens


@pytest.mark.parametrize("fit", ["crop", "letterbox"])
@pytest.mark.parametrize("kind", ["array", "tensor", "flipped twice", "PIL", "str", "Path"])
def test_a_picture_of_any_size_is_fitted_as_training_fitted_its_frames(models, tmp_path, fit, kind):
    picture = np.random.default_rng(0).integers(0, 256, (50, 30, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "a.png")
    given = {
        "array": picture,
        "tensor": torch.from_numpy(picture),
        "flipped twice": np.ascontiguousarray(picture[::-1])[::-1],
        "PIL": Image.fromarray(picture),
        "str": str(tmp_path / "a.png"),
        "Path": tmp_path / "a.png",
    }[kind]
    model = models[fit]
    fitted = fit_frames(picture, (16, 16), fit)
    assert torch.equal(tokens(model.start(given)), model.tokenize(fitted[None, None]))
    assert torch.equal(tokens(model.start(fitted)), model.tokenize(fitted[None, None]))


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (16, 16)])
def test_pictures_of_extreme_shapes(models, shape):
    for model in models.values():
        assert model.start(np.zeros((*shape, 3), np.uint8)).frame.shape == (16, 16, 3)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "RGBX", "P", "CMYK", "YCbCr", "HSV"])
def test_pil_images_in_color(mode):
    image = Image.fromarray(QUADRANTS)
    image = image.quantize(16) if mode == "P" else image.convert(mode)
    assert np.abs(as_array(image).astype(int) - QUADRANTS).max() <= 8  # these color spaces round


@pytest.mark.parametrize("mode", ["L", "LA", "1", "I;16", "I;16B"])
def test_pil_images_in_gray(mode):
    gray = np.repeat(np.array([[0, 255]], np.uint8), 4, axis=0)
    if mode.startswith("I;16"):
        image = Image.frombytes(mode, (2, 4), (gray * np.uint16(257)).astype(">u2" if "B" in mode else "<u2").tobytes())
    else:
        image = Image.fromarray(gray).convert(mode)
    assert (as_array(image) == gray[..., None].repeat(3, axis=-1)).all()


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pil_images_that_are_refused(mode):
    with pytest.raises(UserError, match="^the PIL image .*; .*pass "):
        as_array(Image.new(mode, (4, 4)))
    floats = Image.new("F", (4, 4), 0.5)
    assert as_array(Image.fromarray((255 * np.asarray(floats)).astype(np.uint8))).shape == (4, 4, 3)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
@pytest.mark.parametrize("kind", ["PIL", "png", "webp"])
def test_transparent_pixels_stand_on_white(tmp_path, mode, kind):
    rgba = np.zeros((8, 8, 4), np.uint8)
    rgba[:4, :, 3], rgba[4:, :4, 3] = 255, 128
    image = Image.fromarray(rgba)
    if mode == "P":  # one transparent entry
        image = Image.new("P", (8, 8), 1)
        image.putpalette([9, 9, 9, 0, 0, 0])
        image.paste(0, (0, 4, 8, 8))
        image.info["transparency"] = 0
    image = image if mode == "P" else image.convert(mode)
    if kind != "PIL":
        image.save(tmp_path / f"a.{kind}", **({"lossless": True} if kind == "webp" else {}))
    seen = as_array(image if kind == "PIL" else tmp_path / f"a.{kind}")
    assert (seen[:4] == 0).all()
    assert (seen[4:, 4:] == 255).all()
    if mode != "P":
        assert (np.abs(seen[4:, :4].astype(int) - 127) <= 1).all()


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
def test_exif_turns_a_picture_as_a_viewer_does(tmp_path, orientation, kind):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(QUADRANTS).save(tmp_path / f"a.{kind}", exif=exif, quality=95)
    for seen in (as_array(tmp_path / f"a.{kind}"), as_array(Image.open(tmp_path / f"a.{kind}"))):
        expected = TURNED[orientation](QUADRANTS)
        assert seen.shape == expected.shape
        assert np.abs(seen.astype(int) - expected).mean() < 6


def test_transparent_and_turned_by_exif_is_refused(tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    rgba = np.dstack([QUADRANTS, np.full((40, 60), 7, np.uint8)])
    for turned in (rgba, rgba[:40, :40]):  # a square one keeps its shape
        Image.fromarray(turned).save(tmp_path / "a.png", exif=exif)
        with pytest.raises(UserError, match="a.png has transparent pixels and is turned by EXIF; save it"):
            as_array(tmp_path / "a.png")


@pytest.mark.parametrize("kind", ["png", "jpg", "webp", "bmp", "gif", "tiff"])
def test_kinds_of_files(tmp_path, kind):
    Image.fromarray(QUADRANTS).save(tmp_path / f"a.{kind}")
    assert np.abs(as_array(tmp_path / f"a.{kind}").astype(int) - QUADRANTS).mean() < 6


def test_files_of_other_depths(tmp_path):
    cv2.imwrite(str(tmp_path / "deep.png"), QUADRANTS[..., ::-1].astype(np.uint16) * 257)
    assert (as_array(tmp_path / "deep.png") == QUADRANTS).all()
    Image.fromarray(QUADRANTS).convert("CMYK").save(tmp_path / "print.jpg", quality=95)
    assert np.abs(as_array(tmp_path / "print.jpg").astype(int) - QUADRANTS).mean() < 6


def claims(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims to be large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_files_that_are_refused_are_named(models, tmp_path):
    files = {
        "empty.png": b"",
        "text.jpg": b"no picture",
        "huge.png": claims(30_000, 30_000),
        "cut.png": cv2.imencode(".png", QUADRANTS)[1].tobytes()[:60],
        "drawing.svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    frames = [Image.fromarray(np.full((8, 8, 3), value, np.uint8)) for value in (0, 100, 200)]
    for kind in ("gif", "png", "webp"):
        frames[0].save(tmp_path / f"moves.{kind}", save_all=True, append_images=frames[1:])
    (tmp_path / "folder").mkdir()
    moving = ["moves.gif", "moves.png", "moves.webp"]
    for name in [*files, *moving, "missing.png", "folder", "missing/a.png", "null\0.png"]:
        with pytest.raises(UserError) as caught:
            models["crop"].start(tmp_path / name)
        message = str(caught.value)
        assert name.partition("\0")[0] in message
        assert "; " in message, "a remedy"
        assert "\n" not in message
    with pytest.raises(UserError, match=r"holds 3 pictures, expected one; .*such as PIL.Image.open\(path\)"):
        models["crop"].start(tmp_path / "moves.gif")
    assert (as_array(Image.open(tmp_path / "moves.gif")) == 0).all(), "the remedy: its first frame"


def test_a_damaged_pil_image_is_one_line(tmp_path):
    data = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(data, "png")
    (tmp_path / "cut.png").write_bytes(data.getvalue()[:500])
    with pytest.raises(UserError, match=r"the PIL image .*cut.png cannot be read"):
        as_array(Image.open(tmp_path / "cut.png"))


def test_a_huge_picture_is_refused_before_it_is_decoded():
    with pytest.raises(UserError, match="^it has 40x60 pixels; expected at most 2,399"):
        decode_picture(cv2.imencode(".png", QUADRANTS)[1].tobytes(), "it", 2399)
    assert decode_picture(cv2.imencode(".png", QUADRANTS)[1].tobytes(), "it", 2400).shape == (40, 60, 3)


def test_pil_is_not_imported():
    code = (
        "import sys, numpy as np; from genie_datasets.sources.pictures import as_array; "
        "as_array(np.zeros((2, 2, 3), np.uint8)); print('PIL' in sys.modules)"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, cwd=root)
    assert done.stdout.strip() == "False", done.stderr
