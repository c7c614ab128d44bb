"""Label curve: accuracy of the action map as a function of the number of labels it is fitted on."""

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from genie_eval.playback.drift import HEADLINE, mean_drifts
from genie_eval.playback.labeled import LabeledTransitions
from genie_eval.playback.starts import Start
from genie_robotics.labeling.action_map import MODES, ActionMap

if TYPE_CHECKING:
    from genie_datasets import Split

SIZES = (10, 20, 50, 100, 200, 500, 1000)


def translation_r2(decoded: Float[np.ndarray, "n 7"], true: Float[np.ndarray, "n 7"]) -> float:
    """R2 of the decoded translation, mean over x, y, z: 1 is perfect, 0 equals the mean of the true ones."""
    residual = ((true[:, :3] - decoded[:, :3]) ** 2).sum(axis=0)
    total = ((true[:, :3] - true[:, :3].mean(axis=0)) ** 2).sum(axis=0)
    return float((1 - residual / np.maximum(total, 1e-12)).mean())


def label_curve(
    labeled: LabeledTransitions,
    codes: Int[np.ndarray, " n"],
    actions: Float[np.ndarray, "n 7"],
    num_codes: int,
    draws: int,
    seed: int,
    sizes: tuple[int, ...] = SIZES,
) -> list[dict[str, Any]]:
    """R2 on n held-out transitions over `draws` random sets of N labels, for every N up to the number of labels.

    Sets are drawn with replacement: the interval (2.5 to 97.5 %) therefore shows the effect of other labels even where
    N is all there are. It does not contain the effect of other held-out episodes.
    """
    rows = []
    for n in sizes:
        if n > len(labeled):
            break
        values: dict[str, list[float]] = {mode: [] for mode in MODES}
        missing = []
        for draw in range(draws):
            for mode in MODES:
                action_map = drawn_map(labeled, n, num_codes, mode, seed, draw)
                decoded = action_map.decode(codes, np.random.default_rng([seed, draw]))
                values[mode].append(translation_r2(decoded, actions))
            missing.append(len(action_map.unlabeled))
        rows.append(
            {
                "labels": n,
                "r2": {mode: float(np.mean(values[mode])) for mode in MODES},
                "interval95": {mode: np.quantile(values[mode], [0.025, 0.975]).tolist() for mode in MODES},
                "codes_without_label": float(np.mean(missing)),
            }
        )
    return rows


def drawn_map(labeled: LabeledTransitions, n: int, num_codes: int, mode: str, seed: int, draw: int) -> ActionMap:
    """The map fitted on random set number `draw` of n labels."""
    some = labeled.take(np.random.default_rng([seed, 81, n, draw]).integers(len(labeled), size=n))
    return ActionMap.fit(some.codes, some.actions, num_codes, mode)


def add_drift(
    rows: list[dict[str, Any]],
    labeled: LabeledTransitions,
    split: "Split",
    starts: list[Start],
    codes: Int[np.ndarray, "E H"],
    num_codes: int,
    mode: str,
    rollouts: int,
    seed: int,
    progress: bool,
) -> None:
    """Adds to every row the mean drift of its first `rollouts` sets of labels, executed from the starts."""
    steps = min(HEADLINE, codes.shape[1])

    def decoder(action_map: ActionMap, i: int) -> Float[np.ndarray, "H 7"]:
        return action_map.decode(codes[i], np.random.default_rng([seed, i]))

    pairs = [(row, draw) for row in rows for draw in range(rollouts)]
    decoders = [partial(decoder, drawn_map(labeled, row["labels"], num_codes, mode, seed, draw)) for row, draw in pairs]
    found = mean_drifts(split, starts, decoders, steps, progress)
    for row in rows:
        row["drift_cm"] = [float(value) for (of, _), value in zip(pairs, found, strict=True) if of is row]
        row["drift_horizon"], row["drift_trajectories"] = steps, len(starts)
