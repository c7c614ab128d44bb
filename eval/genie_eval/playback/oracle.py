"""Oracle: the best that K codes allow, clusters of the true translations decoded to their mean actions."""

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from genie_robotics.labeling.action_map import ActionMap


class Oracle:
    """K-means with K clusters on the translations of the labeled actions (M, 7).

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
