"""`genie-robotics labels SRC`: a labels file with the true actions of a few transitions, for `train --labels`."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from genie_datasets.base.command_line import parse
from genie_datasets.base.errors import UserError
from genie_datasets.sources.options import SourceOptions


@dataclass
class LabelsConfig(SourceOptions):
    """Write the recorded actions of a few transitions, drawn at random over all episodes of a split, to an .npz."""

    src: tyro.conf.Positional[str] = tyro.MISSING
    """RLDS/TFDS directory whose records keep the robot's actions."""
    out: Path = Path("labels.npz")
    """The file to write; `train`, `playback` take it as --labels."""
    share: float | None = None
    """Of the split's transitions, 0 .. 1; .01 without --share and --count."""
    count: int | None = None
    """How many transitions, instead of --share."""
    seed: int = 0
    """Of the draw: one seed gives one file."""
    split: str | None = None
    """Split to label: 'train' if there is one, else the only one."""


def main(argv: list[str]) -> int:
    """Entry point of `genie-robotics labels`."""
    config = parse(LabelsConfig, argv, prog="genie-robotics labels")
    if config.share is not None and config.count is not None:
        raise UserError("--share and --count say the same: give one of them")
    share = 0.01 if config.share is None else config.share
    if not 0 < share <= 1:
        raise UserError(f"--share must be above 0 and at most 1 (.01 is one transition in a hundred), not {share:g}")
    if config.count is not None and config.count < 1:
        raise UserError(f"--count must be at least 1, not {config.count}")
    if config.seed < 0:
        raise UserError(f"--seed must be at least 0, not {config.seed}")
    if config.out.suffix != ".npz":
        raise UserError(f"--out {config.out}: a labels file is called FILE.npz")

    from genie_datasets.clips.labels import draw_labels

    source = config.open(config.src)
    names = list(source.splits)
    if config.split is None and "train" not in names and len(names) > 1:
        raise UserError(f"no split 'train'; choose one with --split: {', '.join(names)}")
    split = source.split(config.split or ("train" if "train" in names else names[0]))
    total = int(np.maximum(0, split.num_frames - 1).sum())
    count = min(total, config.count or max(1, math.ceil(share * total)))
    labels = draw_labels(split, count, config.seed)
    config.out.parent.mkdir(parents=True, exist_ok=True)
    labels.save(config.out)
    print(
        f"{config.out}: the true actions of {len(labels):,} of {total:,} transitions ({len(labels) / total:.2%}) of "
        f"{source.name} [{split.name}], in {len(np.unique(labels.episode)):,} of {split.num_episodes:,} episodes"
    )
    spread = ", ".join(f"{value:.3g}" for value in labels.action.std(0))
    print(f"{labels.action.shape[1]} numbers an action, of standard deviation {spread}; digest {labels.digest}")
    return 0
