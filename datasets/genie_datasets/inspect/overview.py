"""An overview of a source: figures per split, and a contact sheet of its episodes."""

from pathlib import Path

import cv2
import numpy as np

from genie_datasets.sources.split import Source, Split

SAMPLE = 20  # episodes that are read where all would take too long
TILE_HEIGHT = 96  # pixels
COLUMNS = 8
LABEL_HEIGHT = 18


def summary(source: Source) -> dict[str, dict]:
    """{split: {"episodes", "frames", "hz", "height", "width"}}, which `data inspect --json` prints.

    The size is that of the first frame as a player shows it; "other_sizes" are those of a sample of the episodes.
    """
    result = {}
    for name, split in source.splits.items():
        height, width = split.image_size
        sizes = {split.size_of(episode) for episode in spaced(split.num_episodes, SAMPLE)} - {(height, width)}
        result[name] = {
            "episodes": split.num_episodes,
            "frames": int(split.num_frames.sum()),
            "hz": float(np.median(split.hz)),
            "height": int(height),
            "width": int(width),
            **({"other_sizes": [list(map(int, size)) for size in sorted(sizes)]} if sizes else {}),
        }
    return result


def spaced(n: int, max_count: int) -> list[int]:
    """At most `max_count` of range(n), evenly spaced, with the first and the last."""
    return np.unique(np.linspace(0, n - 1, min(n, max_count)).round().astype(int)).tolist()


def contact_sheet(split: Split, rows: int = 6, title: str = "") -> np.ndarray:
    """A picture (H, W, 3) uint8 with one row per episode, of frames in order, and labels above the rows."""
    native = split.image_size
    height, width = TILE_HEIGHT, max(32, min(200, round(TILE_HEIGHT * native[1] / native[0])))
    strips = [_label(title, COLUMNS * (width + 2))] if title else []
    for episode in spaced(split.num_episodes, rows):
        ids = np.array(spaced(int(split.num_frames[episode]), COLUMNS))
        frames = split.frames(episode, ids, (height, width), "letterbox")
        strip = np.full((height + 2, COLUMNS * (width + 2), 3), 255, np.uint8)
        for column, frame in enumerate(frames):
            left = column * (width + 2)
            strip[:height, left : left + width] = frame
        text = f"{split.episode_name(episode)}  {split.num_frames[episode]} frames  {split.instruction(episode)}"
        strips += [_label(text, strip.shape[1]), strip]
    return np.concatenate(strips)


def write_contact_sheet(split: Split, path: Path, title: str) -> None:
    """Writes `contact_sheet` as PNG."""
    cv2.imwrite(str(path), cv2.cvtColor(contact_sheet(split, title=title), cv2.COLOR_RGB2BGR))


def _label(text: str, width: int) -> np.ndarray:
    strip = np.full((LABEL_HEIGHT, width, 3), 255, np.uint8)
    ascii_text = text.encode("ascii", "replace").decode()
    cv2.putText(strip, ascii_text, (3, LABEL_HEIGHT - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    return strip
