"""Pictures to start from: a given one, frames of a data set, those of the package, and simulated tables."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from genie_datasets.base.fit import fit_frames
from genie_datasets.sources.decode import decode_image
from genie_datasets.sources.pictures import read_picture
from genie_datasets.sources.split import Source
from genie_robotics.player.limits import Limits

if TYPE_CHECKING:
    from genie_datasets.tabletop import Simulator

MAX_EPISODES = 12  # episodes of a data set that are offered
FIRST_TABLE_SEED = 731_000  # far from the seeds of all data sets in this repository

Frame = UInt8[np.ndarray, "H W 3"]


@dataclass(frozen=True)
class Start:
    """A picture to start from, at the display size if it was at least as large as the model's."""

    name: str
    frame: Frame
    make_simulator: Callable[[], "Simulator"] | None = None
    """Makes the simulator that rendered the picture, if it is simulated."""


def make_starts(
    size: tuple[int, int],
    display: tuple[int, int],
    fit: str,
    image: Path | None,
    source: Source | None,
    limits: Limits,
    tables: int = 0,
) -> list[Start]:
    """The starts that the page offers, `tables` simulated ones at the end; raises UserError.

    size, display: height and width of the model's frames and of those shown.
    """
    if image is not None:
        picture = sharp_start(read_picture(image, limits.upload_pixels), size, display, "letterbox")
        starts = [Start(image.name, picture)]
    elif source is not None:
        starts = data_starts(source, size, display, fit)
    else:
        starts = bundled_starts(size, display)
    return starts + simulated_starts(display, tables)


def sharp_start(picture: Frame, size: tuple[int, int], display: tuple[int, int], fit: str) -> Frame:
    """A picture at the display size; at the model's if it is not larger than that, because enlarging blurs it."""
    is_larger = picture.shape[0] > size[0] or picture.shape[1] > size[1]
    return fit_frames(picture, display if is_larger else size, fit)


def data_starts(source: Source, size: tuple[int, int], display: tuple[int, int], fit: str) -> list[Start]:
    """First frames of episodes, of the test split if there is one."""
    split = source.splits.get("test") or next(iter(source.splits.values()))
    num = min(MAX_EPISODES, split.num_episodes)
    episodes = np.unique(np.linspace(0, split.num_episodes - 1, num).round().astype(int)).tolist()
    first = np.array([0])
    return [
        Start(
            split.instruction(episode) or split.episode_name(episode),
            sharp_start(split.frames(episode, first)[0], size, display, fit),
        )
        for episode in episodes
    ]


def simulated_starts(size: tuple[int, int], tables: int) -> list[Start]:
    """Tables of the family `easy` with seeds that are in no training data, each with its simulator."""
    if not tables:
        return []
    from genie_datasets.tabletop import Simulator, sample_scene
    from genie_datasets.tabletop.render import use_opengl
    from genie_datasets.tabletop.starts import begin

    use_opengl()

    def make(seed: int) -> Simulator:
        simulator = Simulator(sample_scene("easy", seed=seed), size)
        begin(simulator, np.random.default_rng(seed), "play")
        return simulator

    makers = [partial(make, FIRST_TABLE_SEED + n) for n in range(tables)]
    return [Start(f"simulated table {n}", maker().observe().frame, maker) for n, maker in enumerate(makers, start=1)]


def bundled_starts(size: tuple[int, int], display: tuple[int, int]) -> list[Start]:
    """Pictures of the simulated table, of scenes that are not in the training data of `nano-tabletop`."""
    folder = resources.files("genie_robotics.player").joinpath("static/starts")
    found = []
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".png"):
            frame = sharp_start(decode_image(entry.read_bytes()), size, display, "crop")
            found.append(Start(entry.name.removesuffix(".png").partition("_")[2].replace("_", " "), frame))
    return found
