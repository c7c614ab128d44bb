"""Where a player may begin: a picture given, frames of a data set, or the pictures that come with the package."""

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

FROM_DATA = 12  # episodes that are offered
FIRST_TABLE = 731_000  # seeds of simulated tables, far from those of any data set here
if TYPE_CHECKING:
    from genie_datasets.tabletop import Simulator

Frame = UInt8[np.ndarray, "H W 3"]


@dataclass(frozen=True)
class Start:
    name: str
    frame: Frame
    """Of the model's size."""
    simulator: Callable[[], "Simulator"] | None = None
    """Makes a simulator in the moment of the picture, where it was simulated."""


def choose(
    size: tuple[int, int], fit: str, image: Path | None, source: Source | None, limits: Limits, tables: int = 0
) -> list[Start]:
    """What the page offers, the first of which a player begins with; `tables`: how many simulated ones come after.

    Raises UserError.
    """
    return [*chosen(size, fit, image, source, limits), *simulated(size, tables)]


def chosen(size: tuple[int, int], fit: str, image: Path | None, source: Source | None, limits: Limits) -> list[Start]:
    if image is not None:
        return [Start(image.name, fit_frames(read_picture(image, limits.upload_pixels), size, "letterbox"))]
    if source is not None:
        return from_data(source, size, fit)
    return bundled(size)


def from_data(source: Source, size: tuple[int, int], fit: str) -> list[Start]:
    """First frames of episodes of the test split, if there is one."""
    split = source.splits.get("test") or next(iter(source.splits.values()))
    chosen = np.unique(np.linspace(0, split.num_episodes - 1, min(FROM_DATA, split.num_episodes)).round().astype(int))
    return [
        Start(
            split.instruction(int(e)) or split.episode_name(int(e)),
            split.frames(int(e), np.array([0]), size, fit)[0],
        )
        for e in chosen
    ]


def simulated(size: tuple[int, int], tables: int) -> list[Start]:
    """Tables of the family `easy` that nothing was trained on, each with its simulator."""
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

    return [
        Start(f"simulated table {n + 1}", make(FIRST_TABLE + n).observe().frame, partial(make, FIRST_TABLE + n))
        for n in range(tables)
    ]


def bundled(size: tuple[int, int]) -> list[Start]:
    """Pictures of the simulated table, of scenes that `nano-tabletop` was not trained on."""
    folder = resources.files("genie_robotics.player").joinpath("static/starts")
    found = []
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".png"):
            frame = fit_frames(decode_image(entry.read_bytes()), size)
            found.append(Start(entry.name.removesuffix(".png").partition("_")[2].replace("_", " "), frame))
    return found
