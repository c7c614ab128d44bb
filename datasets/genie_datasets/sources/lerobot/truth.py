"""The true motion in the tables of a LeRobotDataset: the position of the end effector.

It is a feature of its own (such as `state.eef_position` or `observation.state.ee_pos`, of 3 numbers), or the entries x,
y, z among the names of `observation.state`. Rotation and gripper follow no convention and are not read. A data set with
joint angles only has no truth here, because they mean nothing without a model of the robot.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genie_datasets.base.errors import UserError, first_line
from genie_datasets.sources.lerobot.meta import Episode
from genie_datasets.sources.lerobot.table import episode_column
from genie_datasets.sources.truth import Truth

STATE = "observation.state"
POSITIONS = ("eef_position", "ee_position", "eef_pos", "ee_pos", "tcp_position", "cartesian_position")


@dataclass(frozen=True)
class TruthColumns:
    """The entries `columns` of the feature `key`, which are x, y, z."""

    key: str
    columns: tuple[int, int, int]

    @classmethod
    def find(cls, features: dict[str, Any]) -> "TruthColumns | None":
        """The columns among the features of info.json, or None. Commands (`action.*`) are not measurements."""
        for name in POSITIONS:
            for key, feature in features.items():
                parts = key.split(".")
                if parts[-1] == name and "action" not in parts and list(feature.get("shape") or ()) == [3]:
                    return cls(key, (0, 1, 2))
        names = [str(name).lower() for name in flat(features.get(STATE, {}).get("names"))]
        if all(names.count(axis) == 1 for axis in "xyz"):
            return cls(STATE, (names.index("x"), names.index("y"), names.index("z")))
        return None

    def read(self, root: Path, episode: Episode) -> Truth:
        """The true motion of an episode. Raises UserError if the table is missing, damaged or too short."""
        path = root / episode.table
        try:
            rows = episode_column(path, episode, self.key)
            position = np.array(rows, np.float64)[:, list(self.columns)]
        except (ValueError, IndexError, TypeError) as error:  # DamagedTable is a ValueError
            raise self._bad(path, episode, first_line(error)) from None
        if not np.isfinite(position).all():
            raise self._bad(path, episode, "some numbers are not finite")
        return Truth(position, state=position)

    def _bad(self, path: Path, episode: Episode, what: str) -> UserError:
        return UserError(
            f"{path}: the true motion '{self.key}' of episode {episode.number} cannot be read ({what}): download it "
            "again"
        )


def flat(names: Any) -> list[Any]:
    """Names given as a list, or as a dictionary of lists ({"motors": [...]}), as one list."""
    if isinstance(names, dict):
        return [name for part in names.values() for name in flat(part)]
    return list(names) if isinstance(names, list | tuple) else []
