"""Where a LeRobotDataset's table says where the end effector is -> Truth. Rotation and gripper follow no convention.

Either a feature of its own (`state.eef_position`, `observation.state.ee_pos`, of 3 numbers), or entries x, y, z among
the names of `observation.state`. Joint angles alone say nothing without the robot's model: no truth then.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genie_datasets.base.errors import UserError
from genie_datasets.sources.lerobot.meta import Episode, first_line
from genie_datasets.sources.lerobot.table import episode_column
from genie_datasets.sources.truth import Truth

STATE = "observation.state"
POSITIONS = ("eef_position", "ee_position", "eef_pos", "ee_pos", "tcp_position", "cartesian_position")


@dataclass(frozen=True)
class TruthColumns:
    """Numbers `columns` of the feature `key` are x, y, z."""

    key: str
    columns: tuple[int, int, int]

    @classmethod
    def find(cls, features: dict[str, Any]) -> "TruthColumns | None":
        """features: those of info.json. What was commanded (`action.*`) is no measurement."""
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
        """Raises UserError where the table is absent, damaged or short of rows."""
        path = root / episode.table
        try:
            rows = episode_column(path, episode, self.key)
            position = np.array(rows, np.float64)[:, list(self.columns)]
        except (ValueError, IndexError, TypeError) as error:  # DamagedTable is a ValueError
            raise self._bad(path, episode, first_line(error)) from None
        if not np.isfinite(position).all():
            raise self._bad(path, episode, "some of it is not finite")
        return Truth(position, state=position)

    def _bad(self, path: Path, episode: Episode, what: str) -> UserError:
        return UserError(
            f"{path}: true motion '{self.key}' of episode {episode.number} cannot be read ({what}): download it again"
        )


def flat(names: Any) -> list[Any]:
    """Names come as a list, or as lists by a word of their own ({"motors": [...]})."""
    if isinstance(names, dict):
        return [name for part in names.values() for name in flat(part)]
    return list(names) if isinstance(names, list | tuple) else []
