"""First frames of real robot video as a folder for `evaluate --starts`: `python -m tools.real_starts REALDATA OUT`.

REALDATA holds `rt1_page` (scene 3 is used, on which nothing was trained) and `bridge_page`. What the arm can reach in
each camera is in `tools/real_cameras.json`, which becomes the folder's `starts.json`. The pictures belong to their
authors: OUT must lie outside of the repository, and nothing in it may be published.
"""

import shutil
import sys
from pathlib import Path

import cv2
import numpy as np

from genie_datasets.base.errors import UserError
from genie_datasets.sources.video.file import probe, read_frames
from genie_eval.start_pictures.folder import DESCRIPTION

REPOSITORY = Path(__file__).resolve().parents[1]
CAMERAS = Path(__file__).with_name("real_cameras.json")
CLIPS = {"rt1": "rt1_page/videos/scene3/*.mp4", "bridge": "bridge_page/videos_4x/*/*.mp4"}
PER_CAMERA = 12


def main(realdata: Path, out: Path) -> None:
    if out.resolve().is_relative_to(REPOSITORY):
        raise UserError(f"{out} is inside of the repository; expected a folder outside of it: pass another folder")
    out.mkdir(parents=True, exist_ok=True)
    for camera, pattern in CLIPS.items():
        clips = sorted(realdata.glob(pattern))
        if not clips:
            raise UserError(f"{realdata} holds no {pattern}; expected the folders rt1_page and bridge_page")
        for number, n in enumerate(np.unique(np.linspace(0, len(clips) - 1, PER_CAMERA).round().astype(int))):
            info = probe(clips[n])
            frame = read_frames(clips[n], np.array([0]), (info.height, info.width), "crop", info)[0]
            cv2.imwrite(str(out / f"{camera}_{number:02}.png"), frame[..., ::-1])
    shutil.copy(CAMERAS, out / DESCRIPTION)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
