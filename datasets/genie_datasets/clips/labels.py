"""Action labels, in a file of their own: the one way in which true actions reach anything but the evaluator.

A labels file (.npz) holds, for M transitions: `episode` (M,) int, number in the split; `step` (M,) int, the frame from
which the action leads to the next; `action` (M,A) float; `split`, the split's name; and, where it is known,
`fingerprint`, that of the split: with other files, or another --include, its episodes have other numbers.
"""

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import Float, Int

from genie_datasets.base.errors import UserError
from genie_datasets.sources.rlds.example import feature_spans, floats
from genie_datasets.sources.split import Split

RT1_PARTS = ("world_vector", "rotation_delta", "gripper_closedness_action")  # 3 + 3 + 1
FLAT = "steps/action"


@dataclass(frozen=True)
class Labels:
    """True actions of some transitions of one split."""

    split: str
    episode: Int[np.ndarray, " M"]
    step: Int[np.ndarray, " M"]
    action: Float[np.ndarray, "M A"]
    fingerprint: str | None = None

    def __len__(self) -> int:
        return len(self.step)

    def save(self, path: Path | IO[bytes]) -> None:
        """Writes a labels file."""
        known: dict[str, Any] = {} if self.fingerprint is None else {"fingerprint": self.fingerprint}
        np.savez(path, split=self.split, episode=self.episode, step=self.step, action=self.action, **known)

    def ordered(self) -> "Labels":
        """The same labels by episode and step."""
        order = np.lexsort((self.step, self.episode))
        return Labels(self.split, self.episode[order], self.step[order], self.action[order], self.fingerprint)

    @property
    def digest(self) -> str:
        """Of what is labelled and how, whatever the order of the rows: 16 hexadecimal digits."""
        found, rows = hashlib.sha256(self.split.encode()), self.ordered()
        for part, kind in ((rows.episode, "<i8"), (rows.step, "<i8"), (rows.action, "<f8")):
            found.update(f"\0{part.shape}\0".encode() + part.astype(kind).tobytes())
        return found.hexdigest()[:16]

    @classmethod
    def load(cls, path: Path) -> "Labels":
        """Reads a labels file; raises UserError where it is none."""
        try:
            with np.load(path, allow_pickle=False) as data:
                episode, step, action = (np.asarray(data[name]) for name in ("episode", "step", "action"))
                split = str(data["split"]) if "split" in data else "train"
                fingerprint = str(data["fingerprint"]) if "fingerprint" in data else None
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
        return cls(split, episode.astype(np.int64), step.astype(np.int64), action.astype(np.float64), fingerprint)


def check_places(labels: Labels, split: Split, where: str) -> None:
    """Raises UserError, naming the file `where`, if these are not labels of `split`, one for a transition."""
    if labels.split != split.name:
        raise UserError(f"{where} labels split '{labels.split}', not '{split.name}': draw labels of '{split.name}'")
    # A frame cache has the fingerprint of what it was made of, with the size behind a slash.
    if labels.fingerprint is not None and not f"{split.fingerprint}/".startswith(f"{labels.fingerprint}/"):
        raise UserError(
            f"{where} was drawn from other video, or with another --include, --exclude or --reader: its episodes have "
            "other numbers; draw labels anew, with this source and these options"
        )
    wrong = np.flatnonzero((labels.episode < 0) | (labels.episode >= split.num_episodes))
    if len(wrong):
        raise UserError(
            f"{where}: row {wrong[0]} labels episode {labels.episode[wrong[0]]}; split '{split.name}' has episodes "
            f"0 .. {split.num_episodes - 1}"
        )
    last = split.num_frames[labels.episode] - 2
    wrong = np.flatnonzero((labels.step < 0) | (labels.step > last))
    if len(wrong):
        row = wrong[0]
        raise UserError(
            f"{where}: row {row} labels step {labels.step[row]} of episode {labels.episode[row]}, which has steps "
            f"0 .. {last[row]}"
        )
    rows = labels.ordered()
    twice = np.flatnonzero((np.diff(rows.episode) == 0) & (np.diff(rows.step) == 0))
    if len(twice):
        raise UserError(
            f"{where} labels step {rows.step[twice[0]]} of episode {rows.episode[twice[0]]} twice: keep one of them"
        )


def read_actions(split: Split, episode: int) -> Float[np.ndarray, "L A"] | None:
    """The recorded actions of one episode, row t from frame t to t+1; None where the source keeps none that is known.

    RT-1's keys give (x y z m, rotation vector rad, gripper); a flat `steps/action` is taken as it is, but for a first
    row of zeros, which is padding in bridge_dataset and says nothing: it reads as NaN.
    """
    if (buffer := split.record(episode)) is None:
        return None
    spans = feature_spans(buffer, 0, len(buffer))
    length = int(split.num_frames[episode])
    if all(f"{FLAT}/{name}" in spans for name in RT1_PARTS):
        parts = [floats(buffer, spans[f"{FLAT}/{name}"]).reshape(length, -1) for name in RT1_PARTS]
        return np.concatenate(parts, axis=1).astype(np.float64)
    if FLAT in spans:
        actions = floats(buffer, spans[FLAT]).reshape(length, -1).astype(np.float64)
        if not actions[0].any():
            actions[0] = np.nan
        return actions
    return None


def draw_labels(split: Split, count: int, seed: int) -> Labels:
    """Up to `count` transitions with their recorded actions, drawn at random from all of a split.

    Raises UserError where the source keeps no actions, or robots of several kinds.
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
        recorded = read_actions(split, int(number))
        if recorded is None:
            raise UserError(
                f"{split.episode_name(int(number))} keeps no robot actions: give labelled ones, --labels FILE.npz"
            )
        actions.append(recorded[step[episode == number]])
    widths = sorted({rows.shape[1] for rows in actions})
    if len(widths) != 1:
        raise UserError(f"split '{split.name}' has actions of {widths} numbers: draw labels of one robot's video alone")
    action = np.concatenate(actions)
    known = np.isfinite(action).all(axis=1)
    if not known.any():
        raise UserError(f"split '{split.name}' has no known action among {len(known)} transitions: draw more")
    return Labels(
        split.name, episode[known].astype(np.int64), step[known].astype(np.int64), action[known], split.fingerprint
    )
