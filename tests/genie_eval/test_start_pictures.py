"""The start set is always the same; a user's own folder is read, or refused in one line."""

import json

import cv2
import numpy as np
import pytest

from genie_datasets.base.errors import UserError
from genie_eval.start_pictures.drawn import DRAWINGS, NUMBER, draw, start_set
from genie_eval.start_pictures.folder import MAX_PICTURES, polygon_mask, read_folder
from genie_eval.start_pictures.picture import StartPicture, fit_starts


def test_the_start_set_is_always_the_same():
    assert NUMBER == 24
    for drawing in (0, 6, 11, 15, 16):  # crayon, cartoon, collage, chalk, pencil
        first, again = (DRAWINGS[drawing].make(drawing) for _ in range(2))
        assert (first.picture == again.picture).all()
        assert (first.reach == again.reach).all()
    first = draw(17)
    draw.cache_clear()
    assert (first.picture == draw(17).picture).all()  # a render


def test_pictures_are_of_many_kinds_and_say_what_may_be_measured():
    pictures = start_set()
    assert len({picture.name for picture in pictures}) == 24
    assert {picture.kind for picture in pictures} == {"crayon", "cartoon", "collage", "sketch", "render", "landscape"}
    for picture in pictures:
        assert picture.picture.dtype == np.uint8
        assert picture.picture.shape[:2] == picture.reach.shape
        assert picture.picture.std() > 15
        assert picture.has_arm == (picture.kind != "landscape")
        assert picture.has_arm == picture.reach.any()
        assert (~picture.reach).mean() > 0.15  # enough is left that must not change
    few = start_set(6)
    assert len(few) == 6
    assert len({picture.kind for picture in few}) >= 4
    assert few[0] is pictures[0]


@pytest.mark.parametrize("mode", ["crop", "letterbox"])
@pytest.mark.parametrize("size", [(64, 64), (48, 80)])
def test_pictures_and_masks_are_fitted_alike(mode, size):
    picture = np.zeros((90, 120, 3), np.uint8)
    reach = np.zeros((90, 120), bool)
    picture[30:70, 20:80], reach[30:70, 20:80] = 255, True
    fitted = fit_starts([StartPicture("a", "b", picture, True, reach)], size, mode)
    bright = fitted.frames[0].max(axis=-1) > 0
    assert not (bright & fitted.still[0]).any()
    assert fitted.still[0].any()
    unknown = fit_starts([StartPicture("a", "b", picture)], size, mode)
    assert not unknown.still.any()
    assert (
        unknown.fingerprint
        != fitted.fingerprint
        == fit_starts([StartPicture("c", "d", picture, True, reach)], size, mode).fingerprint
    )


def save(folder, *names, side=20):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / name), np.full((side, 2 * side, 3), 90, np.uint8))


def test_a_folder_of_pictures_with_what_is_known_of_them(tmp_path):
    save(tmp_path, "kitchen1.png", "kitchen2.jpg", "more/field.png")
    rules = {
        "kitchen1*": {"kind": "photo", "reach": [[0.5, 0], [1, 0], [1, 1], [0.5, 1]]},
        "more/*": {"has_arm": False},
    }
    (tmp_path / "starts.json").write_text(json.dumps(rules))
    first, second, field = read_folder(tmp_path)
    assert (first.name, first.kind, first.has_arm) == ("kitchen1.png", "photo", True)
    assert first.reach[:, 25:].all()
    assert not first.reach[:, :15].any()
    assert (second.kind, second.reach) == ("own", None)
    assert not field.has_arm
    assert not field.reach.any()  # nothing in it moves


def test_polygon_of_the_whole_picture():
    assert polygon_mask([[0, 0], [1, 0], [1, 1], [0, 1]], (7, 9)).all()


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ("no json", "cannot read"),
        ("[]", "holds no object of objects"),
        ('{"*": 3}', "holds no object of objects"),
        ('{"*": {"arm": true}}', "unknown key 'arm' for '*'"),
        ('{"*": {"has_arm": 1}}', "has_arm of '*' must be true or false"),
        ('{"*": {"reach": [[0, 0], [1, 1]]}}', "three or more corners"),
        ('{"*": {"reach": [[0, 0], [200, 0], [0, 200]]}}', "from 0 to 1"),
        ('{"*": {"reach": "all"}}', "three or more corners"),
    ],
)
def test_a_wrong_starts_json_is_one_line_with_the_remedy(rules, expected, tmp_path):
    save(tmp_path, "a.png")
    (tmp_path / "starts.json").write_text(rules)
    with pytest.raises(UserError, match='expected {"PATTERN"') as error:
        read_folder(tmp_path)
    assert expected in str(error.value)
    assert "starts.json" in str(error.value)


def test_folders_that_cannot_be_read_are_one_line(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="is not a folder; pass a folder of pictures"):
        read_folder(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no pictures; expected 1 to 500 files"):
        read_folder(tmp_path)
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    with pytest.raises(UserError, match="broken.png cannot be read as a picture"):
        read_folder(tmp_path)
    (tmp_path / "broken.png").unlink()
    save(tmp_path, "a.png", "b.png")
    monkeypatch.setattr("genie_eval.start_pictures.folder.MAX_PICTURES", 1)
    with pytest.raises(UserError, match="holds 2 pictures; expected 1 to 1 files"):
        read_folder(tmp_path)
    assert MAX_PICTURES == 500


def test_real_first_frames_stay_outside_of_the_repository(realdata, tmp_path):
    from tools.real_starts import REPOSITORY, main

    main(realdata, tmp_path / "real")
    pictures = read_folder(tmp_path / "real")
    assert {picture.kind for picture in pictures} == {"RT-1 photo", "Bridge photo"}
    fitted = fit_starts(pictures, (64, 64), "crop")
    assert (fitted.still.mean(axis=(1, 2)) > 0.1).all()
    with pytest.raises(UserError, match="inside of the repository"):
        main(realdata, REPOSITORY / "docs" / "real")
    with pytest.raises(UserError, match="expected the folders rt1_page and bridge_page"):
        main(tmp_path, tmp_path / "other")
