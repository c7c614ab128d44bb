"""Map from latent actions to robot actions: a table fitted on a few labeled transitions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from genie_datasets.base.errors import UserError

ACTION_DIM = 7  # translation 3 (m), rotation vector 3 (rad), gripper command: -1 opens, 0 keeps, +1 closes
MODES = ("mean", "sample")
GRIPPER_WORDS = {-1: "opens", 0: "keeps", 1: "closes"}


@dataclass(frozen=True)
class ActionMap:
    """The robot action of each of K codes; `fit` makes one.

    mean (K, 7): translation in m, rotation vector in rad, gripper -1 / 0 / +1; zeros for a code without a label.
    count (K,): labels of each code. pool[k] (count[k], 7): those labels.
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
        """Fits the map on M labeled transitions.

        Args:
            codes: (M,) integers in 0 .. num_codes-1.
            actions: (M, 7).
            num_codes: K.
            mode: "mean" decodes a code to the mean of its labels (the gripper to its most frequent command); "sample"
                to one of its labels, drawn at random, as in Genie (Bruce et al. 2024).

        Raises:
            UserError: shapes that do not match, codes out of range, or an unknown mode.
        """
        if mode not in MODES:
            raise UserError(f"unknown mode '{mode}'; expected one of {', '.join(MODES)}")
        codes, actions = check_codes(codes, num_codes), np.asarray(actions, np.float64)
        if actions.shape != (len(codes), ACTION_DIM):
            raise UserError(
                f"actions must be ({len(codes)}, {ACTION_DIM}) for {len(codes)} codes, got {actions.shape}; pass one "
                "action per code"
            )
        pool = tuple(actions[codes == k] for k in range(num_codes))
        mean = np.stack([summarize_actions(rows) for rows in pool])
        return cls(mean, np.array([len(rows) for rows in pool]), pool, mode)

    @property
    def num_codes(self) -> int:
        return len(self.mean)

    @property
    def unlabeled(self) -> list[int]:
        """Codes without a label; they decode to zeros, which do nothing."""
        return [int(k) for k in np.flatnonzero(self.count == 0)]

    def decode(
        self, codes: Int[np.ndarray, " n"] | Sequence[int], rng: np.random.Generator | None = None
    ) -> Float[np.ndarray, "n 7"]:
        """The robot actions of n codes.

        rng: for mode "sample"; default: seed 0.

        Raises:
            UserError: codes out of range.
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
        """One entry per code for reports: number of labels, mean action, gripper command in words."""
        return [
            {"code": k, "labels": int(self.count[k]), "mean_action": self.mean[k].tolist(), "gripper": word}
            for k, word in enumerate(GRIPPER_WORDS[int(g)] for g in self.mean[:, 6])
        ]


def summarize_actions(actions: Float[np.ndarray, "n 7"]) -> Float[np.ndarray, " 7"]:
    """One action for n: mean translation and rotation, most frequent gripper command; zeros for n = 0.

    Equally frequent commands give the safest one: keep before open before close.
    """
    if len(actions) == 0:
        return np.zeros(ACTION_DIM)
    commands = np.sign(np.round(actions[:, 6]))
    gripper = max((0, -1, 1), key=lambda command: int((commands == command).sum()))
    return np.append(actions[:, :6].mean(axis=0), float(gripper))


def check_codes(codes: Any, num_codes: int) -> Int[np.ndarray, " n"]:
    """Codes as (n,) int64.

    Raises:
        UserError: not integers, or out of range.
    """
    codes = np.asarray(codes)
    if codes.size == 0:
        codes = codes.astype(np.int64)
    if codes.ndim != 1 or not np.issubdtype(codes.dtype, np.integer):
        raise UserError(f"codes must be (n,) integers, got {codes.shape} {codes.dtype}")
    if len(codes) and not (codes.min() >= 0 and codes.max() < num_codes):
        wrong = codes[(codes < 0) | (codes >= num_codes)][0]
        raise UserError(f"code {wrong} does not exist; this model has codes 0 to {num_codes - 1}")
    return codes.astype(np.int64)
