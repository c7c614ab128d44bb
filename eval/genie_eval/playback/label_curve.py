"""How many labels it takes: the map from code to action fitted on N labels, for growing N."""

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from genie_eval.playback.drift import HEADLINE, mean_drifts
from genie_eval.playback.labeled import Labelled
from genie_eval.playback.starts import Start
from genie_robotics.labeling.action_map import MODES, ActionMap

if TYPE_CHECKING:
    from genie_datasets import Split

SIZES = (10, 20, 50, 100, 200, 500, 1000)


def translation_r2(decoded: Float[np.ndarray, "n 7"], true: Float[np.ndarray, "n 7"]) -> float:
    """R2 of the decoded translation, mean over x, y, z: 1 is perfect, 0 the mean of the true ones, below 0 worse."""
    residual = ((true[:, :3] - decoded[:, :3]) ** 2).sum(axis=0)
    total = ((true[:, :3] - true[:, :3].mean(axis=0)) ** 2).sum(axis=0)
    return float((1 - residual / np.maximum(total, 1e-12)).mean())


def label_curve(
    labelled: Labelled,
    codes: Int[np.ndarray, " n"],
    actions: Float[np.ndarray, "n 7"],
    num_codes: int,
    draws: int,
    seed: int,
    sizes: tuple[int, ...] = SIZES,
) -> list[dict[str, Any]]:
    """For every N up to the labels there are: R2 on n held-out transitions, over `draws` random sets of N labels.

    Sets are drawn with replacement, so that the interval (2.5 and 97.5 percentiles) says what other labels would
    change also where N is all there are. It does not hold what other held-out episodes would change.
    """
    rows = []
    for n in sizes:
        if n > len(labelled):
            break
        values: dict[str, list[float]] = {mode: [] for mode in MODES}
        missing = []
        for draw in range(draws):
            for mode in MODES:
                table = drawn_map(labelled, n, num_codes, mode, seed, draw)
                values[mode].append(translation_r2(table.decode(codes, np.random.default_rng([seed, draw])), actions))
            missing.append(len(table.unlabelled))
        rows.append(
            {
                "labels": n,
                "r2": {mode: float(np.mean(values[mode])) for mode in MODES},
                "interval95": {mode: np.quantile(values[mode], [0.025, 0.975]).tolist() for mode in MODES},
                "codes_without_label": float(np.mean(missing)),
            }
        )
    return rows


def drawn_map(labelled: Labelled, n: int, num_codes: int, mode: str, seed: int, draw: int) -> ActionMap:
    """The map of the draw-th random set of n labels."""
    chosen = np.random.default_rng([seed, 81, n, draw]).integers(len(labelled), size=n)
    some = labelled.take(chosen)
    return ActionMap.fit(some.codes, some.actions, num_codes, mode)


def add_drift(
    rows: list[dict[str, Any]],
    labelled: Labelled,
    split: "Split",
    starts: list[Start],
    codes: Int[np.ndarray, "E H"],
    num_codes: int,
    mode: str,
    rollouts: int,
    seed: int,
    progress: bool,
) -> None:
    """Adds to every row the mean drift of the first `rollouts` of its draws, executed from the starts."""
    steps = min(HEADLINE, codes.shape[1])

    def decoder(table: ActionMap, i: int) -> Float[np.ndarray, "H 7"]:
        return table.decode(codes[i], np.random.default_rng([seed, i]))

    pairs = [(row, draw) for row in rows for draw in range(rollouts)]
    decoders = [
        partial(decoder, drawn_map(labelled, row["labels"], num_codes, mode, seed, draw)) for row, draw in pairs
    ]
    found = mean_drifts(split, starts, decoders, steps, progress)
    for row in rows:
        row["drift_cm"] = [float(value) for (of, _), value in zip(pairs, found, strict=True) if of is row]
        row["drift_horizon"], row["drift_trajectories"] = steps, len(starts)
