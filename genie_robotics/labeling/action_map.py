"""From latent actions to robot actions: a dictionary, fitted on a few labelled transitions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from genie_datasets.base.errors import UserError

ACTION_DIM = 7  # world vector 3 (m), rotation vector 3 (rad), gripper command: -1 opens, 0 keeps, +1 closes
MODES = ("mean", "sample")


@dataclass(frozen=True)
class ActionMap:
    """What each of K codes does to a robot, learnt from labels. `fit` makes one.

    mean (K, 7): world vector in m, rotation vector in rad, gripper -1 / 0 / +1; zeros for a code without a label.
    count (K,): labels of each code. pool[k] (count[k], 7): those labels themselves.
    """

    mean: Float[np.ndarray, "K 7"]
    count: Int[np.ndarray, " K"]
    pool: tuple[Float[np.ndarray, "n 7"], ...]
    mode: str = "mean"

    @classmethod
    def fit(
        cls, codes: Int[np.ndarray, " M"] | Sequence[int], actions: Float[np.ndarray, "M 7"], num_codes: int,
        mode: str = "mean",
    ) -> ActionMap:  # fmt: skip
        """Fits the dictionary on M labelled transitions, `codes` (M,) in 0..num_codes-1 and `actions` (M, 7).

        "mean" decodes a code to the mean of its labels (the gripper to its most frequent command); "sample" to a label
        drawn at random among them, as in Genie's paper.

        Raises UserError: arrays that do not belong together, codes out of range, or an unknown mode.
        """
        if mode not in MODES:
            raise UserError(f"'{mode}' is no way to decode a code: it is one of {', '.join(MODES)}")
        codes, actions = check_codes(codes, num_codes), np.asarray(actions, np.float64)
        if actions.shape != (len(codes), ACTION_DIM):
            raise UserError(f"the actions of {len(codes)} codes must be ({len(codes)}, 7), not {actions.shape}")
        pool = tuple(actions[codes == k] for k in range(num_codes))
        mean = np.stack([summarise(rows) for rows in pool])
        return cls(mean, np.array([len(rows) for rows in pool]), pool, mode)

    @property
    def num_codes(self) -> int:
        return len(self.mean)

    @property
    def unlabelled(self) -> list[int]:
        """Codes that no label has: they decode to the action that does nothing."""
        return [int(k) for k in np.flatnonzero(self.count == 0)]

    def decode(
        self, codes: Int[np.ndarray, " n"] | Sequence[int], rng: np.random.Generator | None = None
    ) -> Float[np.ndarray, "n 7"]:
        """The robot actions of n codes. `rng` draws in mode "sample" (seed 0 without it); "mean" ignores it.

        Raises UserError for codes out of range.
        """
        codes = check_codes(codes, self.num_codes)
        if self.mode == "mean":
            return self.mean[codes]
        rng = rng or np.random.default_rng(0)
        actions = np.zeros((len(codes), ACTION_DIM))
        for i, k in enumerate(codes):
            if self.count[k]:
                actions[i] = self.pool[k][rng.integers(self.count[k])]
        return actions

    def rows(self) -> list[dict[str, Any]]:
        """One entry a code for reports: its labels, its mean action and its gripper command."""
        return [
            {"code": k, "labels": int(self.count[k]), "mean_action": self.mean[k].tolist(), "gripper": word}
            for k, word in enumerate(GRIPPER_WORDS[int(g)] for g in self.mean[:, 6])
        ]


GRIPPER_WORDS = {-1: "opens", 0: "keeps", 1: "closes"}


def summarise(actions: Float[np.ndarray, "n 7"]) -> Float[np.ndarray, 7]:
    """One action for many: the mean of position and rotation, the most frequent gripper command; zeros for none.

    Commands that are equally frequent give the gentlest one: keep before open before close.
    """
    if len(actions) == 0:
        return np.zeros(ACTION_DIM)
    commands = np.sign(np.round(actions[:, 6]))
    gripper = max((0, -1, 1), key=lambda command: int((commands == command).sum()))
    return np.append(actions[:, :6].mean(axis=0), float(gripper))


def check_codes(codes: Any, num_codes: int) -> Int[np.ndarray, " n"]:
    """Codes as (n,) int64; raises UserError where one is not a whole number in 0..num_codes-1."""
    codes = np.asarray(codes)
    if codes.size == 0:
        codes = codes.astype(np.int64)
    if codes.ndim != 1 or not np.issubdtype(codes.dtype, np.integer):
        raise UserError(f"codes must be (n,) whole numbers, not {codes.shape} {codes.dtype}")
    if len(codes) and not (codes.min() >= 0 and codes.max() < num_codes):
        wrong = codes[(codes < 0) | (codes >= num_codes)][0]
        raise UserError(f"there is no code {wrong}: the codes of this model are 0 .. {num_codes - 1}")
    return codes.astype(np.int64)
