"""`genie-robotics labels SRC`: writes the true actions of a few transitions to a labels file, for `train --labels`."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from genie_datasets.base.command_help import Option
from genie_datasets.base.command_line import parse
from genie_datasets.base.errors import UserError
from genie_datasets.base.files import make_folder
from genie_datasets.sources.options import SourceOptions

DEFAULT_SHARE = 0.01


@dataclass
class LabelsConfig(SourceOptions):
    """Write the recorded actions of random transitions of one split to a labels file."""

    src: tyro.conf.Positional[str] = tyro.MISSING
    """RLDS/TFDS folder whose records hold the robot's actions."""
    out: Annotated[Path, Option("FILE.npz")] = Path("labels.npz")
    """Labels file, which `train` and `playback` read with --labels."""
    share: Annotated[float | None, Option("SHARE")] = None
    """Share of the split's transitions, above 0 and at most 1. Without --count it is 0.01."""
    count: int | None = None
    """Number of transitions, instead of --share."""
    seed: int = 0
    """Random seed of the draw."""
    split: str | None = None
    """Split to label: 'train' if there is one, else the only one."""


def main(argv: list[str]) -> int:
    """Entry point of `genie-robotics labels`."""
    prog, example = "genie-robotics labels", "labels data/tabletop --share 0.02 --out labels.npz"
    config = parse(LabelsConfig, argv, prog, example=example)
    if config.share is not None and config.count is not None:
        raise UserError("--share cannot be combined with --count: pass one of them")
    share = DEFAULT_SHARE if config.share is None else config.share
    if not 0 < share <= 1:
        raise UserError(f"--share must be above 0 and at most 1, got {share:g}: pass --share 0.01 for 1 %")
    if config.count is not None and config.count < 1:
        raise UserError(f"--count must be at least 1, got {config.count}")
    if config.seed < 0:
        raise UserError(f"--seed must be at least 0, got {config.seed}")
    if config.out.suffix != ".npz":
        raise UserError(f"--out must be the name of an .npz file, got {config.out}")

    from genie_datasets.clips.labels import draw_labels

    source = config.open(config.src)
    names = list(source.splits)
    if config.split is None and "train" not in names and len(names) > 1:
        raise UserError(f"{config.src} has no split 'train': pass --split with one of {', '.join(names)}")
    split = source.split(config.split or ("train" if "train" in names else names[0]))
    total = int(np.maximum(0, split.num_frames - 1).sum())
    count = min(total, config.count or max(1, math.ceil(share * total)))
    labels = draw_labels(split, count, config.seed)
    make_folder(config.out.parent)
    labels.save(config.out)
    print(
        f"{config.out}: the true actions of {len(labels):,} of {total:,} transitions ({len(labels) / total:.2%}) of "
        f"{source.name} [{split.name}], in {len(np.unique(labels.episode)):,} of {split.num_episodes:,} episodes"
    )
    spread = ", ".join(f"{value:.3g}" for value in labels.action.std(0))
    print(f"{labels.action.shape[1]} numbers per action, with standard deviations {spread}; digest {labels.digest}")
    return 0
