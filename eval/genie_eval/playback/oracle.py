"""The best that K codes allow: clusters of the true translations, each decoded to its mean action."""

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from genie_robotics.labeling.action_map import ActionMap


class Oracle:
    """K-means with K clusters on the translations of true labelled actions (M, 7).

    It clusters translations only, because drift is a distance of the end effector: clusters that also had to tell
    rotations and grips apart would leave more of it.
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
        """Each true action as its cluster's mean."""
        return self.map.decode(self.assign(actions))
