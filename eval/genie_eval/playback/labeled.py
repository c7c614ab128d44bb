"""Where the labels come from: a file, or a draw that is written down; none is ever of an episode that is measured."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from genie_datasets.base.errors import UserError
from genie_datasets.clips.labels import Labels, check_places, draw_labels
from genie_eval.playback.codes import check_gap, transition_codes
from genie_robotics.labeling.action_map import ACTION_DIM

if TYPE_CHECKING:
    from genie_datasets import Source

LARGEST_MOVE = 0.2  # m in one step: four times what the tabletop's robot does; more is another unit


@dataclass(frozen=True)
class Labelled:
    """M labelled transitions in random order, and what the model calls them."""

    codes: Int[np.ndarray, " M"]
    actions: Float[np.ndarray, "M 7"]

    def __len__(self) -> int:
        return len(self.codes)

    def take(self, chosen: Any) -> "Labelled":
        """Those of an index array, or of a slice."""
        return Labelled(self.codes[chosen], self.actions[chosen])


def label_split(source: "Source", measured: str) -> str:
    """The split to draw labels from: 'train', else any that is not measured, else the only one."""
    if "train" in source.splits:
        return "train"
    return next((name for name in source.splits if name != measured), measured)


def draw(source: "Source", measured: str, held_out: set[int], count: int, seed: int) -> Labels:
    """Up to `count` transitions with their recorded actions, of no episode in `held_out` of the split `measured`."""
    name = label_split(source, measured)
    split = source.split(name)
    if name != measured:
        return draw_labels(split, count, seed)
    everything = draw_labels(split, int(split.num_frames.sum()), seed)
    free = np.flatnonzero(~np.isin(everything.episode, sorted(held_out)))
    if len(free) == 0:
        raise UserError(f"{source.path}: its {split.num_episodes} episodes are all measured, none is left to label")
    chosen = np.sort(np.random.default_rng([seed, 31]).choice(free, min(count, len(free)), replace=False))
    return Labels(name, everything.episode[chosen], everything.step[chosen], everything.action[chosen])


def check_labels(labels: Labels, source: "Source", where: str) -> None:
    """Raises UserError, naming `where`: labels of an unknown split, episode or step, or actions that are not (M, 7)."""
    if labels.split not in source.splits:
        raise UserError(
            f"{where} labels split '{labels.split}', which {source.path} has not: it has {', '.join(source.splits)}"
        )
    split = source.split(labels.split)
    if labels.action.shape[1] != ACTION_DIM:
        raise UserError(
            f"{where}: its actions have {labels.action.shape[1]} numbers; the simulated robot takes {ACTION_DIM}: "
            "x y z in m, a rotation vector in rad, and the gripper command -1, 0 or +1"
        )
    if np.abs(labels.action[:, :3]).max() > LARGEST_MOVE or np.abs(labels.action[:, 3:6]).max() > np.pi:
        raise UserError(
            f"{where}: an action moves by {np.abs(labels.action[:, :3]).max():.3g} and turns by "
            f"{np.abs(labels.action[:, 3:6]).max():.3g}; they must be in m (to {LARGEST_MOVE} a step) and rad"
        )
    check_places(labels, split, where)


def get_labels(
    source: "Source", measured: str, held_out: set[int], file: Path | None, count: int, seed: int, out: Path
) -> tuple[Labels, str]:
    """The labels of `file`, or drawn ones that are written to out/labels.npz; and a sentence that says which.

    Labels of episodes in `held_out` are left out where they are of the split `measured`.
    """
    if file is None:
        labels = draw(source, measured, held_out, count, seed)
        labels.save(out / "labels.npz")
        return labels, (
            f"as labels: the true actions of {len(labels)} transitions, drawn from split '{labels.split}' (seed "
            f"{seed}) and written to {out / 'labels.npz'}; give your own with --labels"
        )
    labels = Labels.load(file)
    check_labels(labels, source, str(file))
    kept = np.ones(len(labels), bool)
    if labels.split == measured:
        kept = ~np.isin(labels.episode, sorted(held_out))
    said = f"as labels: {kept.sum()} of {file}, of split '{labels.split}'"
    if kept.all():
        return labels, said
    if not kept.any():
        raise UserError(f"{file} labels only episodes that are measured: label others, or measure another --split")
    labels = Labels(labels.split, labels.episode[kept], labels.step[kept], labels.action[kept])
    return labels, f"{said}; {(~kept).sum()} more are of episodes that are measured, and were left out"


def infer(genie: Any, source: "Source", labels: Labels, seed: int, progress: bool, most: int | None = None) -> Labelled:
    """The labels (at most `most`) in random order, each with the code that the model infers from the video."""
    split = source.split(labels.split)
    check_gap(genie, split)
    order = np.random.default_rng([seed, 41]).permutation(len(labels))[:most]
    codes = transition_codes(genie, split, labels.episode[order], labels.step[order], progress)
    return Labelled(codes, labels.action[order])
