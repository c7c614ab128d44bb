"""Plays sequences of codes from many starts: the dreams that levels D, E and F are measured on."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8
from tqdm import tqdm

from genie_eval.collect import to_numpy
from genie_eval.dreams.starts import Starts


@dataclass(frozen=True)
class Plays:
    """dreams[s, q] is what followed when sequence q was played from start s."""

    sequences: Int[np.ndarray, "Q n"]
    dreams: UInt8[np.ndarray, "S Q n H W 3"]

    @property
    def steps(self) -> int:
        return self.sequences.shape[1]


def play(
    genie: Any, starts: Starts, sequences: Int[np.ndarray, "Q n"], batch: int, seed: int, label: str, progress: bool
) -> Plays:
    """Every sequence from every start.

    Cells are played in random order, so that a sequence does not always meet the same sampling noise (noise depends on
    the row of a batch): what noise does alike everywhere would pass for the sequence's own effect.
    """
    many, steps = sequences.shape
    cells = np.random.default_rng(seed).permutation(len(starts) * many)
    dreams = np.empty((len(starts) * many, steps, *starts.frames.shape[1:]), np.uint8)
    bar = tqdm(total=len(cells), desc=label, unit="dream", disable=not progress)
    for number, first in enumerate(range(0, len(cells), batch)):
        some = cells[first : first + batch]
        prompts, codes = starts.frames[some // many][:, None], sequences[some % many]
        dreams[some] = to_numpy(genie.generate(prompts, codes, seed=seed + 1 + number))
        bar.update(len(some))
    bar.close()
    return Plays(sequences, dreams.reshape(len(starts), many, *dreams.shape[1:]))


def constants(num_codes: int, steps: int = 5) -> Int[np.ndarray, "K n"]:
    """Each code `steps` times in a row: Genie's own figure."""
    return np.repeat(np.arange(num_codes)[:, None], steps, axis=1)


def both_orders(num_codes: int, number: int, seed: int) -> Int[np.ndarray, "Q 2"]:
    """`number` pairs of different codes, each pair in both orders (so that their commutator can be read)."""
    first, second = np.triu_indices(num_codes, 1)
    chosen = np.random.default_rng(seed).permutation(len(first))[: max(1, number // 2)]
    pairs = np.stack([first[chosen], second[chosen]], axis=1)
    return np.concatenate([pairs, pairs[:, ::-1]])


def from_data(
    codes: Int[np.ndarray, " M"], trajectory: Int[np.ndarray, " M"], length: int, number: int, seed: int
) -> Int[np.ndarray, "Q n"]:
    """`number` different runs of codes that occur in the data, likelier the more often they do."""
    inside = trajectory[: len(codes) - length + 1] == trajectory[length - 1 :]
    runs = np.stack([codes[i : len(codes) - length + 1 + i] for i in range(length)], axis=1)[inside]
    if not len(runs):
        return np.zeros((0, length), np.int64)
    shuffled = runs[np.random.default_rng(seed).permutation(len(runs))]
    _, first = np.unique(shuffled, axis=0, return_index=True)
    return shuffled[np.sort(first)[:number]]
