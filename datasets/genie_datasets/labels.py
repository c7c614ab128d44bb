"""Action labels, in a file of their own: the one way in which true actions reach anything but the evaluator.

A labels file (.npz) holds, for M transitions: `episode` (M,) int, number in the split; `step` (M,) int, the frame from
which the action leads to the next; `action` (M,A) float; and `split`, the split's name.
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from genie_datasets.errors import UserError
from genie_datasets.example import feature_spans, floats
from genie_datasets.split import Split

RT1_PARTS = ("world_vector", "rotation_delta", "gripper_closedness_action")  # 3 + 3 + 1
FLAT = "steps/action"


@dataclass(frozen=True)
class Labels:
    """True actions of some transitions of one split."""

    split: str
    episode: Int[np.ndarray, " M"]
    step: Int[np.ndarray, " M"]
    action: Float[np.ndarray, "M A"]

    def __len__(self) -> int:
        return len(self.step)

    def save(self, path: Path) -> None:
        """Writes a labels file."""
        np.savez(path, split=self.split, episode=self.episode, step=self.step, action=self.action)

    @classmethod
    def load(cls, path: Path) -> "Labels":
        """Reads a labels file; raises UserError where it is none."""
        try:
            with np.load(path, allow_pickle=False) as data:
                episode, step, action = (np.asarray(data[name]) for name in ("episode", "step", "action"))
                split = str(data["split"]) if "split" in data else "train"
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(
                f"{path} is no labels file ({error}): it must be an .npz with episode (M,), step (M,) and action (M,A)"
            ) from None
        whole = all(a.ndim == 1 and np.issubdtype(a.dtype, np.integer) for a in (episode, step))
        if not whole or action.ndim != 2 or not len(episode) == len(step) == len(action) > 0:
            raise UserError(
                f"{path}: episode and step must be (M,) whole numbers and action (M,A), all of one length above 0, not "
                f"{episode.shape}, {step.shape} and {action.shape}"
            )
        if not np.issubdtype(action.dtype, np.floating) or not np.isfinite(action).all():
            raise UserError(f"{path}: its actions must be finite floating-point numbers")
        return cls(split, episode.astype(np.int64), step.astype(np.int64), action.astype(np.float64))


def read_actions(split: Split, episode: int) -> Float[np.ndarray, "L A"] | None:
    """The recorded actions of one episode, row t from frame t to t+1; None where the source keeps none that is known.

    RT-1's keys give (x y z m, rotation vector rad, gripper); a flat `steps/action` is taken as it is.
    """
    if (buffer := split.record(episode)) is None:
        return None
    spans = feature_spans(buffer, 0, len(buffer))
    length = int(split.num_frames[episode])
    if all(f"{FLAT}/{name}" in spans for name in RT1_PARTS):
        parts = [floats(buffer, spans[f"{FLAT}/{name}"]).reshape(length, -1) for name in RT1_PARTS]
        return np.concatenate(parts, axis=1).astype(np.float64)
    if FLAT in spans:
        return floats(buffer, spans[FLAT]).reshape(length, -1).astype(np.float64)
    return None


def draw_labels(split: Split, count: int, seed: int) -> Labels:
    """Up to `count` transitions with their recorded actions, drawn at random from all of a split.

    Raises UserError where the source keeps no actions.
    """
    rng = np.random.default_rng([seed, 31])
    transitions = split.num_frames - 1
    total = int(transitions.sum())
    chosen = np.sort(rng.choice(total, min(count, total), replace=False))
    ends = np.cumsum(transitions)
    episode = np.searchsorted(ends, chosen, side="right")
    step = chosen - (ends - transitions)[episode]
    actions = []
    for number in np.unique(episode):
        known = read_actions(split, int(number))
        if known is None:
            raise UserError(
                f"{split.episode_name(int(number))} keeps no robot actions: give labelled ones, --labels FILE.npz"
            )
        actions.append(known[step[episode == number]])
    return Labels(split.name, episode.astype(np.int64), step.astype(np.int64), np.concatenate(actions))
