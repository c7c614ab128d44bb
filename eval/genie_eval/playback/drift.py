"""Drift of decoded latent actions over the horizon, next to controls that show how large it could be."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int
from tqdm import tqdm

from genie_eval.playback.rollout import RecordedEpisode, drift, gripper_error
from genie_eval.playback.starts import Start
from genie_eval.resampling import DRAWS, bootstrap_weights
from genie_robotics.labeling.action_map import ActionMap

if TYPE_CHECKING:
    from genie_datasets import Split

HEADLINE = 8  # steps: the horizon of numbers that stand for the whole curve
CONTROLS = {
    "true": "the recorded actions; checks the whole chain and must not drift",
    "oracle": "the best that this number of codes allows: k-means of the true translations",
    "decoded": "codes inferred from the recorded video, decoded with the labels",
    "zero": "actions that do nothing: how far the recorded robot moved",
    "shuffled": "the codes of another measured episode, decoded with the same labels",
}


class Oracle:
    """The best that K codes allow: k-means of the labels' translations, each cluster decoded to its mean action.

    Only translations are clustered, because drift is a distance of the end effector: clusters that also separated
    rotations and gripper commands would leave more drift.
    """

    def __init__(self, actions: Float[np.ndarray, "M 7"], num_codes: int, seed: int):
        from sklearn.cluster import KMeans
        from threadpoolctl import threadpool_limits

        distinct = len(np.unique(actions[:, :3], axis=0))
        with threadpool_limits(1):
            self.clusters: Any = KMeans(min(num_codes, distinct), n_init=10, random_state=seed).fit(actions[:, :3])
        self.map = ActionMap.fit(self.assign(actions), actions, num_codes)

    def assign(self, actions: Float[np.ndarray, "n 7"]) -> Int[np.ndarray, " n"]:
        """The cluster of each action."""
        from threadpoolctl import threadpool_limits

        with threadpool_limits(1):
            return self.clusters.predict(np.ascontiguousarray(actions[:, :3])).astype(np.int64)

    def decode(self, actions: Float[np.ndarray, "n 7"]) -> Float[np.ndarray, "n 7"]:
        """Replaces each action by the mean of its cluster."""
        return self.map.decode(self.assign(actions))


@dataclass(frozen=True)
class Drifts:
    """Drift (cm) and gripper error of E trajectories after 0, 1, ... H steps, by control."""

    drift: dict[str, Float[np.ndarray, "E H+1"]]
    gripper: dict[str, Float[np.ndarray, "E H+1"]]

    @property
    def horizon(self) -> int:
        return next(iter(self.drift.values())).shape[1] - 1

    @property
    def headline(self) -> int:
        """The horizon of numbers that stand for the whole curve."""
        return min(HEADLINE, self.horizon)

    def table(self, seed: int) -> list[dict[str, Any]]:
        """One row per control and horizon: means with 95 % intervals (bootstrap over trajectories)."""
        return [
            {"control": name, **row, "gripper_error": float(self.gripper[name].mean(axis=0)[row["horizon"]])}
            for name, values in self.drift.items()
            for row in _by_horizon("drift_cm", values, seed)
        ]

    def differences(self, seed: int) -> list[dict[str, Any]]:
        """Decoded minus shuffled and minus zero, paired by trajectory, at every horizon."""
        return [
            {"minus": other, **row}
            for other in ("shuffled", "zero")
            for row in _by_horizon("difference_cm", self.drift["decoded"] - self.drift[other], seed)
        ]


def _by_horizon(name: str, values: Float[np.ndarray, "E H+1"], seed: int) -> list[dict[str, Any]]:
    """The mean over trajectories under `name`, with its interval, at every horizon from 1."""
    ends = mean_interval(values, seed).T.tolist()
    return [{"horizon": h, name: float(values[:, h].mean()), "ci95": ends[h]} for h in range(1, len(ends))]


def mean_interval(values: Float[np.ndarray, "E *rest"], seed: int = 0) -> Float[np.ndarray, "2 *rest"]:
    """95 % percentile bootstrap interval of the mean over E trajectories."""
    count = len(values)
    weights = bootstrap_weights(count, DRAWS, [seed, 61]) / count
    return np.quantile(np.tensordot(weights, values, axes=1), [0.025, 0.975], axis=0)


def donors(count: int, seed: int) -> Int[np.ndarray, " E"]:
    """The episode whose codes each of E episodes plays as the shuffled control: another one, each exactly once.

    The shuffled codes therefore have the frequencies and the temporal order of the inferred ones.
    """
    ring = np.random.default_rng([seed, 71]).permutation(count)
    donor = np.empty(count, np.int64)
    donor[ring] = np.roll(ring, 1)
    return donor


def measure(
    split: "Split",
    starts: list[Start],
    codes: Int[np.ndarray, "E H"],
    action_map: ActionMap,
    oracle: Oracle,
    seed: int,
    progress: bool,
) -> Drifts:
    """Executes every control from every start.

    codes: the inferred codes of each start's steps. oracle: replaces the true actions by its clusters' means.
    """
    donor = donors(len(starts), seed)
    drifts: dict[str, list] = {name: [] for name in CONTROLS}
    grippers: dict[str, list] = {name: [] for name in CONTROLS}
    for i, start in enumerate(tqdm(starts, desc="drift", unit="episode", disable=not progress)):
        episode = RecordedEpisode(split, start.episode)
        true = episode.actions(start)
        controls = {
            "true": true,
            "oracle": oracle.decode(true),
            "decoded": action_map.decode(codes[i], np.random.default_rng([seed, start.episode, 0])),
            "zero": np.zeros_like(true),
            "shuffled": action_map.decode(codes[donor[i]], np.random.default_rng([seed, start.episode, 1])),
        }
        recorded = episode.recorded(start)
        for name, actions in controls.items():
            rollout = episode.execute(start.step, actions)
            drifts[name].append(drift(rollout, recorded))
            grippers[name].append(gripper_error(rollout, recorded))
        episode.close()
    return Drifts(
        {name: np.stack(rows) for name, rows in drifts.items()},
        {name: np.stack(rows) for name, rows in grippers.items()},
    )


def mean_drifts(
    split: "Split",
    starts: list[Start],
    decoders: Sequence[Callable[[int], Float[np.ndarray, "H 7"]]],
    steps: int,
    progress: bool,
) -> Float[np.ndarray, " D"]:
    """Mean drift (cm) over the starts after `steps` steps, for each of D decoders (number of a start -> actions)."""
    total = np.zeros(len(decoders))
    for i, start in enumerate(tqdm(starts, desc="drift by labels", unit="episode", disable=not progress)):
        episode = RecordedEpisode(split, start.episode)
        recorded = episode.recorded(start)
        for d, decode in enumerate(decoders):
            rollout = episode.execute(start.step, decode(i)[:steps])
            total[d] += 100 * np.linalg.norm(rollout.position[-1] - recorded.position[steps])
        episode.close()
    return total / len(starts)
