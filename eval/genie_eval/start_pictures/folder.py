"""A user's own folder of pictures, with an optional file that says what the arm can reach in them.

`starts.json` in the folder maps patterns of file names to what is known; the first that matches counts:

    {"kitchen*.jpg": {"kind": "photo", "reach": [[0.3, 0.0], [1.0, 0.0], [1.0, 0.9], [0.3, 0.9]]},
     "*":            {"has_arm": false}}

reach: corners of an area, x and y as fractions of width and height of the picture as stored. Pixels outside of it
should not change (`scene_retention`); without it, retention is not measured. has_arm: commands are judged (default:
true). kind: group in the report (default: "own").
"""

import fnmatch
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool

from genie_datasets.base.errors import UserError, first_line
from genie_datasets.base.folders import find_files
from genie_datasets.sources.pictures import read_picture
from genie_eval.start_pictures.picture import StartPicture

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
MAX_PICTURES = 500
DESCRIPTION = "starts.json"
KEYS = ("kind", "has_arm", "reach")


def read_folder(folder: Path) -> list[StartPicture]:
    """The pictures of a folder, by name.

    Raises:
        UserError: no such folder, no picture in it, one that cannot be read, or a starts.json that is not as expected.
    """
    if not folder.is_dir():
        raise UserError(f"--starts {folder} is not a folder; pass a folder of pictures ({', '.join(SUFFIXES)})")
    files = find_files(folder, SUFFIXES)
    if not 0 < len(files) <= MAX_PICTURES:
        raise UserError(
            f"--starts {folder} holds {len(files) or 'no'} pictures; expected 1 to {MAX_PICTURES} files "
            f"({', '.join(SUFFIXES)}): pass another folder"
        )
    rules = read_description(folder / DESCRIPTION)
    return [_picture(file, str(file.relative_to(folder)), rules) for file in files]


def _picture(file: Path, name: str, rules: dict[str, dict[str, Any]]) -> StartPicture:
    picture = read_picture(file)
    known = next((rule for pattern, rule in rules.items() if fnmatch.fnmatch(name, pattern)), {})
    has_arm = known.get("has_arm", True)
    reach = None if "reach" not in known else polygon_mask(known["reach"], picture.shape[:2])
    if reach is None and not has_arm:
        reach = np.zeros(picture.shape[:2], bool)  # nothing in it moves
    return StartPicture(name, known.get("kind", "own"), picture, has_arm, reach)


def read_description(file: Path) -> dict[str, dict[str, Any]]:
    """The rules of a starts.json, checked; none if there is no such file.

    Raises:
        UserError: the file is not as expected.
    """
    if not file.exists():
        return {}
    remedy = 'expected {"PATTERN": {"kind": "photo", "has_arm": true, "reach": [[x, y], ...]}}: see eval/README.md'
    try:
        rules = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {file} ({first_line(error)}); {remedy}") from None
    if not isinstance(rules, dict) or not all(isinstance(rule, dict) for rule in rules.values()):
        raise UserError(f"{file} holds no object of objects; {remedy}")
    for pattern, rule in rules.items():
        unknown = sorted(set(rule) - set(KEYS))
        if unknown:
            raise UserError(f"{file} has an unknown key '{unknown[0]}' for '{pattern}'; {remedy}")
        if not isinstance(rule.get("has_arm", True), bool) or not isinstance(rule.get("kind", ""), str):
            raise UserError(f"{file}: has_arm of '{pattern}' must be true or false, and kind a text; {remedy}")
        if "reach" in rule:
            _check_polygon(rule["reach"], f"{file}: reach of '{pattern}'", remedy)
    return rules


def _check_polygon(corners: Any, where: str, remedy: str) -> None:
    try:
        found = np.asarray(corners, np.float64)
    except (TypeError, ValueError):
        found = np.zeros(0)
    if found.ndim != 2 or found.shape[1] != 2 or len(found) < 3 or not ((found >= 0) & (found <= 1)).all():
        raise UserError(f"{where} must be three or more corners [x, y] from 0 to 1; {remedy}")


def polygon_mask(corners: Any, size: tuple[int, int]) -> Bool[np.ndarray, "H W"]:
    """True inside of a polygon whose corners are fractions of width and height."""
    mask = np.zeros(size, np.uint8)
    cv2.fillPoly(mask, [np.rint(np.asarray(corners) * (size[1] - 1, size[0] - 1)).astype(np.int32)], 1)
    return mask.astype(bool)
