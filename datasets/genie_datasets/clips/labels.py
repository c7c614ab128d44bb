"""Labels files: true actions of some transitions, the only way in which actions reach anything but the evaluation.

A labels file (.npz) holds, for M transitions: `episode` (M,) int, the number in the split; `step` (M,) int, the frame
from which the action leads to the next; `action` (M, A) float; `split`, the name of the split; and optionally
`fingerprint`, that of the split, because with other files or another --include its episodes have other numbers.
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
        """Writes a labels file. Raises OSError."""
        known: dict[str, Any] = {} if self.fingerprint is None else {"fingerprint": self.fingerprint}
        np.savez(path, split=self.split, episode=self.episode, step=self.step, action=self.action, **known)

    def ordered(self) -> "Labels":
        """These labels, sorted by episode and step."""
        order = np.lexsort((self.step, self.episode))
        return Labels(self.split, self.episode[order], self.step[order], self.action[order], self.fingerprint)

    @property
    def digest(self) -> str:
        """16 hexadecimal digits that depend on the labels, but not on the order of the rows."""
        found, rows = hashlib.sha256(self.split.encode()), self.ordered()
        for part, kind in ((rows.episode, "<i8"), (rows.step, "<i8"), (rows.action, "<f8")):
            found.update(f"\0{part.shape}\0".encode() + part.astype(kind).tobytes())
        return found.hexdigest()[:16]

    @classmethod
    def load(cls, path: Path) -> "Labels":
        """Reads a labels file. Raises UserError."""
        try:
            with np.load(path, allow_pickle=False) as data:
                episode, step, action = (np.asarray(data[name]) for name in ("episode", "step", "action"))
                split = str(data["split"]) if "split" in data else "train"
                fingerprint = str(data["fingerprint"]) if "fingerprint" in data else None
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(
                f"{path} is not a labels file ({error}); expected an .npz with episode (M,), step (M,) and action "
                "(M, A); write one with `genie-robotics labels`"
            ) from None
        whole = all(a.ndim == 1 and np.issubdtype(a.dtype, np.integer) for a in (episode, step))
        if not whole or action.ndim != 2 or not len(episode) == len(step) == len(action) > 0:
            raise UserError(
                f"{path}: episode and step must be (M,) whole numbers and action (M, A), of one length above 0, got "
                f"{episode.shape} {episode.dtype}, {step.shape} {step.dtype} and {action.shape}"
            )
        if not np.issubdtype(action.dtype, np.floating) or not np.isfinite(action).all():
            raise UserError(f"{path}: actions must be finite floating-point numbers, got {action.dtype}")
        return cls(split, episode.astype(np.int64), step.astype(np.int64), action.astype(np.float64), fingerprint)


def check_places(labels: Labels, split: Split, where: str) -> None:
    """Raises UserError, which names the file `where`, unless these label transitions of `split`, each at most once."""
    if labels.split != split.name:
        raise UserError(
            f"{where} labels split '{labels.split}', not '{split.name}': draw labels with --split {split.name}"
        )
    # The fingerprint of a frame cache is that of its source, a slash, and the size.
    if labels.fingerprint is not None and not f"{split.fingerprint}/".startswith(f"{labels.fingerprint}/"):
        raise UserError(
            f"{where} was drawn from other video, or with another --include, --exclude or --reader: its episodes have "
            "other numbers; draw new labels from this source with the same options"
        )
    wrong = np.flatnonzero((labels.episode < 0) | (labels.episode >= split.num_episodes))
    if len(wrong):
        raise UserError(
            f"{where}: row {wrong[0]} labels episode {labels.episode[wrong[0]]}; split '{split.name}' has episodes "
            f"0 .. {split.num_episodes - 1}; correct or remove that row"
        )
    last = split.num_frames[labels.episode] - 2
    wrong = np.flatnonzero((labels.step < 0) | (labels.step > last))
    if len(wrong):
        row = wrong[0]
        raise UserError(
            f"{where}: row {row} labels step {labels.step[row]} of episode {labels.episode[row]}, which has steps "
            f"0 .. {last[row]}; correct or remove that row"
        )
    rows = labels.ordered()
    twice = np.flatnonzero((np.diff(rows.episode) == 0) & (np.diff(rows.step) == 0))
    if len(twice):
        raise UserError(
            f"{where} labels step {rows.step[twice[0]]} of episode {rows.episode[twice[0]]} twice: keep one of them"
        )


def read_actions(split: Split, episode: int) -> Float[np.ndarray, "L A"] | None:
    """The recorded actions of one episode, row t from frame t to t+1; None if the source has no known field of actions.

    RT-1's fields give x, y, z in m, a rotation vector in rad, and the gripper. A flat `steps/action` is taken as it is,
    except that a first row of zeros, which is padding in bridge_dataset, reads as NaN.
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
    """Up to `count` random transitions of a split with their recorded actions. Raises UserError if it has none."""
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
                f"{split.episode_name(int(number))} keeps no robot actions: choose a source with `steps/action`, or "
                "pass --labels FILE.npz"
            )
        actions.append(recorded[step[episode == number]])
    widths = sorted({rows.shape[1] for rows in actions})
    if len(widths) != 1:
        raise UserError(
            f"split '{split.name}' has actions of {' and '.join(map(str, widths))} numbers; expected one kind of robot"
            "; draw labels from one source"
        )
    action = np.concatenate(actions)
    known = np.isfinite(action).all(axis=1)
    if not known.any():
        raise UserError(
            f"the {len(known)} transitions drawn from split '{split.name}' have no finite actions: draw more"
        )
    return Labels(
        split.name, episode[known].astype(np.int64), step[known].astype(np.int64), action[known], split.fingerprint
    )
