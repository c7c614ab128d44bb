"""Mixtures of several sources, each with its share of the training clips: `A:0.7,B:0.3`."""

import numpy as np

from genie_datasets.base.errors import UserError
from genie_datasets.sources.split import ComposedSplit, Source, Split


class MixedSplit(ComposedSplit):
    """The episodes of several splits, one after the other; `group` is the number of an episode's split."""

    def __init__(self, name: str, parts: list[Split], weights: list[float]):
        self.name = name
        self.parts = parts
        self.sequential = any(part.sequential for part in parts)
        self._weights = np.asarray(weights, np.float64) / np.sum(weights)
        self.fingerprint = "+".join(part.fingerprint for part in parts)
        self.states = [state for part in parts for state in part.states]
        self.num_frames = np.concatenate([part.num_frames for part in parts])
        self.hz = np.concatenate([part.hz for part in parts])
        self._first = np.concatenate([[0], np.cumsum([part.num_episodes for part in parts])])

    def find(self, episode: int) -> tuple[Split, int]:
        number = int(np.searchsorted(self._first, episode, side="right")) - 1
        return self.parts[number], int(episode - self._first[number])

    def record(self, episode: int) -> bytes | None:
        split, number = self.find(episode)
        return split.record(number)

    @property
    def group(self) -> np.ndarray:
        return np.repeat(np.arange(len(self.parts)), np.diff(self._first))

    @property
    def group_weights(self) -> np.ndarray:
        return self._weights


def parse_mixture(text: str) -> list[tuple[str, float]]:
    """'A:0.7,B:0.3' -> [("A", 0.7), ("B", 0.3)]; [] for one source. The default weight is 1. Raises UserError."""
    if "," not in text:
        return []
    parts = []
    for piece in text.split(","):
        if not piece.strip():
            raise UserError(f"'{text}' has an empty entry; expected SOURCE:WEIGHT,SOURCE:WEIGHT, such as A:0.7,B:0.3")
        path, colon, number = piece.strip().rpartition(":")
        if not colon or "/" in number:  # no weight; a colon is that of gs://
            path, number = piece.strip(), "1"
        try:
            weight = float(number)
        except ValueError:
            raise UserError(
                f"'{piece}' in '{text}' has no numeric weight; expected SOURCE:WEIGHT, such as A:0.7"
            ) from None
        if not 0 < weight < float("inf"):
            raise UserError(f"the weight of '{path}' in '{text}' must be above 0 and finite, got {weight:g}")
        parts.append((path, weight))
    return parts


def open_mixture(text: str, opened: list[tuple[Source, float]]) -> Source:
    """One source, in which each split mixes the splits of that name of all sources."""
    names = list(dict.fromkeys(name for source, _ in opened for name in source.splits))
    splits: dict[str, Split] = {}
    for name in names:
        members = [(source.splits[name], weight) for source, weight in opened if name in source.splits]
        splits[name] = MixedSplit(name, [split for split, _ in members], [weight for _, weight in members])
    fingerprint = "+".join(f"{source.fingerprint}:{weight:g}" for source, weight in opened)
    return Source("+".join(source.name for source, _ in opened), text, "mixture", splits, fingerprint)
