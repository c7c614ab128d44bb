"""Dream, simulator and recording side by side, as a video and as a strip of images."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8

from genie_datasets.base.encode_video import encode_frames
from genie_eval.plotting import GRAY, code_color, figure
from genie_eval.report.pictures import show

PANEL = 256  # pixels of a panel's longer side
BAR, GAP = 28, 8  # pixels above and below the panels, and between them
MAX_COLUMNS = 10  # of the strip
BACKGROUND, TEXT, FAINT = (255, 255, 255), (31, 41, 51), (123, 135, 148)


@dataclass(frozen=True)
class Film:
    """n steps from one start. panels: title -> frames, all of one size; entry 0 is the start.

    drift: distance of the simulated end effector to the recorded one, cm; None if nothing was recorded.
    """

    panels: dict[str, UInt8[np.ndarray, "n+1 H W 3"]]
    codes: Int[np.ndarray, " n"]
    hz: float
    drift: Float[np.ndarray, " n+1"] | None = None


def write_video(path: Path, film: Film) -> None:
    """Writes an mp4 (H.264) of the panels side by side: one frame per step, at the robot's rate."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures = (compose(film, t) for t in range(len(film.codes) + 1))
    encode_frames(path, pictures, film.hz, {"crf": "16"}, container_options={"movflags": "+faststart"})


def compose(film: Film, t: int) -> UInt8[np.ndarray, "H W 3"]:
    """The image of step t: enlarged panels, titles above, step, code and drift below. Height and width are even."""
    import cv2

    height, width = next(iter(film.panels.values())).shape[1:3]
    scale = PANEL / max(height, width)
    h, w = 2 * round(height * scale / 2), 2 * round(width * scale / 2)
    canvas = np.full((h + 2 * BAR, len(film.panels) * (w + GAP) - GAP, 3), BACKGROUND, np.uint8)
    played = f"step {t} ({t / film.hz:.1f} s): code {film.codes[t - 1]}" if t else "start"
    below = {"dream": played}
    if film.drift is not None:
        below["simulator"] = f"{film.drift[t]:.1f} cm from recorded"
    for i, (title, frames) in enumerate(film.panels.items()):
        x = i * (w + GAP)
        canvas[BAR : BAR + h, x : x + w] = cv2.resize(frames[t], (w, h), interpolation=cv2.INTER_CUBIC)
        _write_text(canvas, title, x + 2, BAR - 9, TEXT)
        _write_text(canvas, below.get(title, ""), x + 2, BAR + h + 18, FAINT)
    if t > 0:
        color = code_color(int(film.codes[t - 1])).lstrip("#")
        rgb = tuple(int(color[i : i + 2], 16) for i in (0, 2, 4))
        cv2.rectangle(canvas, (w - 16, BAR + h + 8), (w - 4, BAR + h + 20), rgb, -1)
    return canvas


def _write_text(canvas: UInt8[np.ndarray, "H W 3"], text: str, x: int, y: int, color: tuple[int, int, int]) -> None:
    import cv2

    cv2.putText(canvas, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.46, color, 1, cv2.LINE_AA)


def write_strip(path: Path, film: Film) -> None:
    """Writes a PNG: one row per panel, one column per step (or per n steps), with the codes that led to it."""
    steps = len(film.codes)
    columns = np.arange(0, steps + 1, -(-(steps + 1) // MAX_COLUMNS))
    height, width = next(iter(film.panels.values())).shape[1:3]
    rows = len(film.panels)
    with figure(
        path, 1.15 * len(columns) + 0.9, (1.15 * height / width + 0.16) * rows + 0.2,
        nrows=rows, ncols=len(columns), squeeze=False,
    ) as (fig, axes):  # fmt: skip
        fig.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0.01, hspace=0.01)
        for row, (title, frames) in zip(axes, film.panels.items(), strict=True):
            for i, (axis, t) in enumerate(zip(row, columns, strict=True)):
                show(axis, frames[t])
                if title == "dream":
                    since = film.codes[columns[i - 1] : t].tolist() if i else []
                    color = code_color(since[0]) if len(set(since)) == 1 else GRAY
                    words = "start" if t == 0 else f"step {t}: code {' '.join(map(str, since))}"
                    axis.set_title(words, fontsize=8, pad=2, color=color)
                elif title == "simulator" and film.drift is not None and t > 0:
                    axis.set_title(f"{film.drift[t]:.1f} cm off", fontsize=8, pad=2, color=GRAY)
            row[0].set_ylabel(title, rotation=0, ha="right", va="center", fontsize=8.5)
