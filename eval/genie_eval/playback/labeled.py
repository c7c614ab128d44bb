"""Labels of the action map: read from a file, or drawn and written down; never of an episode that is measured."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from genie_datasets.base.errors import UserError
from genie_datasets.clips.labels import Labels, check_places, draw_labels
from genie_eval.interfaces import Judge
from genie_eval.playback.codes import check_gap, transition_codes
from genie_robotics.labeling.action_map import ACTION_DIM

if TYPE_CHECKING:
    from genie_datasets import Source

MAX_TRANSLATION = 0.2  # m per step: four times the tabletop's largest; more means another unit


@dataclass(frozen=True)
class LabeledTransitions:
    """M transitions in random order: their codes and their true actions."""

    codes: Int[np.ndarray, " M"]
    actions: Float[np.ndarray, "M 7"]

    def __len__(self) -> int:
        return len(self.codes)

    def take(self, chosen: Any) -> "LabeledTransitions":
        """The rows of an index array or a slice."""
        return LabeledTransitions(self.codes[chosen], self.actions[chosen])


def draw(source: "Source", measured: str, held_out: set[int], count: int, seed: int) -> Labels:
    """Up to `count` random transitions with their recorded actions, without the episodes `held_out` of `measured`.

    They come from the split 'train', otherwise from one that is not measured, otherwise from the only split.
    """
    others = (n for n in source.splits if n != measured)
    name = "train" if "train" in source.splits else next(others, measured)
    split = source.split(name)
    if name != measured:
        return draw_labels(split, count, seed)
    everything = draw_labels(split, int(split.num_frames.sum()), seed)
    free = np.flatnonzero(~np.isin(everything.episode, sorted(held_out)))
    if len(free) == 0:
        raise UserError(
            f"{source.path}: all {split.num_episodes} episodes are measured and none is left to label; pass --labels "
            "or a smaller --episodes"
        )
    chosen = np.sort(np.random.default_rng([seed, 31]).choice(free, min(count, len(free)), replace=False))
    return Labels(name, everything.episode[chosen], everything.step[chosen], everything.action[chosen])


def check_labels(labels: Labels, source: "Source", where: str) -> None:
    """Checks labels against the source; `where` names them in errors.

    Raises:
        UserError: unknown split, episode or step, or actions that are not (M, 7) in meters and radians.
    """
    if labels.split not in source.splits:
        raise UserError(
            f"{where} labels split '{labels.split}', but {source.path} has only {', '.join(source.splits)}; label one "
            "of these"
        )
    split = source.split(labels.split)
    if labels.action.shape[1] != ACTION_DIM:
        raise UserError(
            f"{where}: actions have {labels.action.shape[1]} numbers, expected {ACTION_DIM}: x y z in m, a rotation "
            "vector in rad, and the gripper command -1, 0 or +1"
        )
    translation, rotation = np.abs(labels.action[:, :3]).max(), np.abs(labels.action[:, 3:6]).max()
    if translation > MAX_TRANSLATION or rotation > np.pi:
        raise UserError(
            f"{where}: an action moves by {translation:.3g} and turns by {rotation:.3g}, expected at most "
            f"{MAX_TRANSLATION} m and {np.pi:.3g} rad per step; convert them to m and rad"
        )
    check_places(labels, split, where)


def get_labels(
    source: "Source", measured: str, held_out: set[int], file: Path | None, count: int, seed: int, out: Path
) -> tuple[Labels, str]:
    """The labels and a sentence about their origin.

    file: labels file; None draws `count` labels and writes them to out/labels.npz. Labels of the episodes `held_out`
    of the split `measured` are left out.

    Raises:
        UserError: the labels do not fit the source, or none is left.
    """
    if file is None:
        labels = draw(source, measured, held_out, count, seed)
        labels.save(out / "labels.npz")
        return labels, (
            f"labels: the true actions of {len(labels)} transitions, drawn from split '{labels.split}' (seed {seed}) "
            f"and written to {out / 'labels.npz'}; pass your own with --labels"
        )
    labels = Labels.load(file)
    check_labels(labels, source, str(file))
    kept = np.ones(len(labels), bool)
    if labels.split == measured:
        kept = ~np.isin(labels.episode, sorted(held_out))
    said = f"labels: {kept.sum()} of {file}, of split '{labels.split}'"
    if kept.all():
        return labels, said
    if not kept.any():
        raise UserError(f"{file} labels only episodes that are measured; label others, or measure another --split")
    labels = Labels(labels.split, labels.episode[kept], labels.step[kept], labels.action[kept])
    return labels, f"{said}; {(~kept).sum()} more are of episodes that are measured, and were left out"


def with_codes(
    model: Judge, source: "Source", labels: Labels, seed: int, progress: bool, limit: int | None = None
) -> LabeledTransitions:
    """The labels in random order (at most `limit`), each with the code that the model infers from the video.

    Raises:
        UserError: a code of the model spans several steps of the source.
    """
    split = source.split(labels.split)
    check_gap(model, split)
    order = np.random.default_rng([seed, 41]).permutation(len(labels))[:limit]
    codes = transition_codes(model, split, labels.episode[order], labels.step[order], progress)
    return LabeledTransitions(codes, labels.action[order])
