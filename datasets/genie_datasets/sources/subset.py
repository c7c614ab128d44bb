"""Subsets of a split: episodes held out of a source without a test split, and less data for a study."""

import hashlib
from dataclasses import replace

import numpy as np

from genie_datasets.base.errors import UserError
from genie_datasets.sources.split import ComposedSplit, Source, Split


class Subset(ComposedSplit):
    """The episodes `chosen` (n,) of the split `whole`, under another name."""

    def __init__(self, whole: Split, name: str, chosen: np.ndarray):
        self.whole, self.name, self.chosen = whole, name, np.asarray(chosen, np.int64)
        self.sequential = whole.sequential
        digest = hashlib.sha256(self.chosen.tobytes()).hexdigest()[:8]
        self.fingerprint = f"{whole.fingerprint}-{name}-{len(self.chosen)}-{digest}"
        self.states = whole.states
        self.num_frames, self.hz = whole.num_frames[self.chosen], whole.hz[self.chosen]

    def find(self, episode: int) -> tuple[Split, int]:
        return self.whole, int(self.chosen[episode])

    @property
    def group(self) -> np.ndarray:
        return self.whole.group[self.chosen]

    @property
    def group_weights(self) -> np.ndarray:
        return self.whole.group_weights


def some_episodes(source: Source, split: str, number: int, seed: int) -> Source:
    """`source` with `number` random episodes of `split`; for one seed, a smaller draw is a subset. Raises UserError."""
    whole = source.split(split)
    if number > whole.num_episodes:
        raise UserError(
            f"split '{split}' of {source.path} has {whole.num_episodes} episodes; expected at least {number}"
        )
    chosen = np.sort(np.random.default_rng(seed).permutation(whole.num_episodes)[:number])
    few = Subset(whole, f"{split}-of-seed{seed}", chosen)
    return replace(source, splits={**source.splits, split: few}, fingerprint=f"{source.fingerprint}-{number}-{seed}")


def hold_out(source: Source, every: int = 5) -> Source:
    """Divides a source of one split into `train` and `test`, which gets every fifth episode; others are unchanged.

    Neighbors in the order of files often show the same scene: choose scenes to hold out with --include and --exclude.
    """
    if len(source.splits) != 1:
        return source
    whole = next(iter(source.splits.values()))
    is_test = np.arange(whole.num_episodes) % every == every - 1
    if not is_test.any():
        return source
    splits: dict[str, Split] = {
        name: Subset(whole, name, np.flatnonzero(mask)) for name, mask in (("train", ~is_test), ("test", is_test))
    }
    return replace(source, splits=splits, fingerprint=f"{source.fingerprint}-{every}")
