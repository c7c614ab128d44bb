"""Choice of the recorded moments from which codes are executed."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from genie_datasets.base.errors import UserError

if TYPE_CHECKING:
    from genie_datasets import Source, Split

MIN_HORIZON = 2


@dataclass(frozen=True)
class Start:
    """Frame `step` of an episode, followed by `horizon` recorded steps."""

    episode: int
    step: int
    horizon: int

    @property
    def span(self) -> slice:
        """The transitions of the episode that are executed."""
        return slice(self.step, self.step + self.horizon)


def measured_split(source: "Source", asked: str | None) -> str:
    """Name of the split to measure: the one asked for, otherwise 'test', otherwise the only one.

    Raises:
        UserError: there are several splits and none is 'test'.
    """
    if asked is not None:
        return source.split(asked).name
    if "test" in source.splits:
        return "test"
    if len(source.splits) == 1:
        return next(iter(source.splits))
    raise UserError(f"{source.path} has no split 'test'; choose one with --split: {', '.join(source.splits)}")


def choose_starts(split: "Split", count: int, horizon: int, seed: int, limit: int | None = None) -> list[Start]:
    """At most `count` (and `limit`) random starts, one per episode, all with the same horizon.

    Where fewer than half of the episodes have `horizon` steps, it is shortened to the median.

    Raises:
        UserError: fewer than two steps are left.
    """
    steps = split.num_frames - 1
    if (steps >= horizon).mean() < 0.5:
        horizon = int(np.median(steps))
    long_enough = np.flatnonzero(steps >= horizon)
    if horizon < MIN_HORIZON or len(long_enough) == 0:
        raise UserError(
            f"split '{split.name}' has no episodes long enough: half of them have fewer than {MIN_HORIZON + 1} frames; "
            "choose another --split"
        )
    rng = np.random.default_rng([seed, 51])
    chosen = rng.permutation(long_enough)[: min(count, len(long_enough), limit or len(long_enough))]
    return [Start(int(e), int(rng.integers(steps[e] - horizon + 1)), horizon) for e in chosen]


def named_start(split: "Split", episode: int, step: int | None, horizon: int | None) -> Start:
    """The start that a user names. horizon: None if no recorded step has to follow.

    Raises:
        UserError: the episode or the frame does not exist, or no step is left.
    """
    if not 0 <= episode < split.num_episodes:
        raise UserError(
            f"--episode {episode} does not exist; split '{split.name}' has episodes 0 to {split.num_episodes - 1}"
        )
    step = 0 if step is None else step
    last = int(split.num_frames[episode]) - (1 if horizon is None else 2)
    if not 0 <= step <= last:
        raise UserError(f"--start {step} is out of range; episode {episode} can be started from frames 0 to {last}")
    return Start(episode, step, 0 if horizon is None else min(horizon, last + 1 - step))
