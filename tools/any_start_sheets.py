"""Contact sheets of the start set for docs/any_start.md: `python -m tools.any_start_sheets RUN FOLDER [STARTS]`.

start_set.jpg               the start set, and below each picture what the world shows of it (step 0)
any_start_NUMBER.jpg        one picture: rows are actions, columns are steps of a dream that repeats the action

STARTS: a folder of pictures instead of the start set.
"""

import sys
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from genie_eval.dreams.windows import first_frames
from genie_eval.start_pictures.drawn import start_set
from genie_eval.start_pictures.folder import read_folder
from genie_eval.start_pictures.picture import FittedStarts, fit_starts
from genie_robotics import Genie

STEPS = (0, 1, 4, 16, 64, 180)
TILE, GAP, LABEL = 96, 3, 18  # pixels
QUALITY, MAX_BYTES = 82, 300_000


def main(run: str, folder: Path, starts_folder: Path | None = None) -> None:
    genie = Genie.from_pretrained(run)
    height, width = genie.config.image_size
    pictures = start_set() if starts_folder is None else read_folder(starts_folder)
    starts = fit_starts(pictures, (height, width), genie.config.fit)
    folder.mkdir(parents=True, exist_ok=True)
    save(overview(genie, starts), folder / "start_set.jpg")
    number = genie.config.num_actions
    codes = np.repeat(np.arange(number)[:, None], STEPS[-1], axis=1)
    for i in range(len(starts)):
        prompts = np.repeat(starts.frames[i][None, None], number, axis=0)
        shown = np.repeat(first_frames(genie, starts.frames[i : i + 1], 0)[None], number, axis=0)
        dream = np.concatenate([shown, genie.generate(prompts, codes, seed=0).numpy()], axis=1)
        save(sheet(np.concatenate([prompts, dream[:, list(STEPS)]], axis=1)), folder / f"any_start_{i:02}.jpg")


def overview(genie: Genie, starts: FittedStarts, columns: int = 8) -> Image.Image:
    """The start pictures in rows, with step 0 below each."""
    shown = first_frames(genie, starts.frames, 0)
    rows = []
    for begin in range(0, len(starts), columns):
        for frames in (starts.frames, shown):
            row = [tile(frame) for frame in frames[begin : begin + columns]]
            row += [np.full_like(row[0], 255)] * (columns - len(row))
            rows.append(np.concatenate(row, axis=1))
        rows.append(np.full((2 * GAP, rows[-1].shape[1], 3), 255, np.uint8))
    return Image.fromarray(np.concatenate(rows))


def sheet(frames: UInt8[np.ndarray, "K t H W 3"]) -> Image.Image:
    """Rows: actions. Columns: the start picture, then the steps."""
    rows = [np.concatenate([tile(frame) for frame in row], axis=1) for row in frames]
    joined = np.pad(np.concatenate(rows), ((LABEL, 0), (2 * LABEL, 0), (0, 0)), constant_values=255)
    image = Image.fromarray(joined)
    draw, size = ImageDraw.Draw(image), rows[0].shape
    titles = ["picture", *(f"step {step}" for step in STEPS)]
    for column, title in enumerate(titles):
        draw.text((2 * LABEL + column * size[1] // len(titles) + 3, 3), title, fill="black")
    for code in range(len(rows)):
        draw.text((3, LABEL + code * size[0] + size[0] // 2 - 6), str(code), fill="black")
    return image


def tile(frame: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "h w 3"]:
    width = round(TILE * frame.shape[1] / frame.shape[0])
    enlarged = Image.fromarray(frame).resize((width, TILE), Image.Resampling.BICUBIC)
    return np.pad(np.asarray(enlarged), ((0, GAP), (0, GAP), (0, 0)), constant_values=255)


def save(image: Image.Image, path: Path) -> None:
    """Writes a JPEG of at most MAX_BYTES."""
    for quality in range(QUALITY, 20, -8):
        image.save(path, quality=quality, optimize=True)
        if path.stat().st_size <= MAX_BYTES:
            break


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]) if len(sys.argv) > 3 else None)
