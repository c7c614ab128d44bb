"""Dreams of chosen sequences of codes from many starts."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, UInt8
from tqdm import tqdm

from genie_eval.collect import to_numpy
from genie_eval.dreams.starts import Starts
from genie_eval.interfaces import WorldModel


@dataclass(frozen=True)
class SequenceDreams:
    """dreams[s, q] are the n frames that sequence q generates from start s."""

    sequences: Int[np.ndarray, "Q n"]
    dreams: UInt8[np.ndarray, "S Q n H W 3"]

    @property
    def steps(self) -> int:
        return self.sequences.shape[1]


@dataclass(frozen=True)
class CommandedDreams:
    """All commanded dreams of one evaluation. `others`: pairs, triples and longer sequences, as far as asked for."""

    starts: Starts
    constant: SequenceDreams  # every code, repeated
    others: dict[str, SequenceDreams]


def dream_sequences(
    world: WorldModel, starts: Starts, sequences: Int[np.ndarray, "Q n"], batch: int, seed: int, label: str,
    progress: bool,
) -> SequenceDreams:  # fmt: skip
    """Generates every sequence from every start.

    Sampling noise depends on the row of a batch. The dreams are therefore generated in random order: in a fixed order
    a sequence would meet the same noise at every start, and the effect of the noise would pass for its own.
    """
    num_sequences, steps = sequences.shape
    order = np.random.default_rng(seed).permutation(len(starts) * num_sequences)
    dreams = np.empty((len(starts) * num_sequences, steps, *starts.frames.shape[1:]), np.uint8)
    bar = tqdm(total=len(order), desc=label, unit="dream", disable=not progress)
    for number, first in enumerate(range(0, len(order), batch)):
        rows = order[first : first + batch]
        prompts, codes = starts.frames[rows // num_sequences][:, None], sequences[rows % num_sequences]
        dreams[rows] = to_numpy(world.generate(prompts, codes, seed=seed + 1 + number))
        bar.update(len(rows))
    bar.close()
    return SequenceDreams(sequences, dreams.reshape(len(starts), num_sequences, *dreams.shape[1:]))


def constant_sequences(num_codes: int, steps: int = 5) -> Int[np.ndarray, "K n"]:
    """Each code `steps` times in a row (Genie, figure 12)."""
    return np.repeat(np.arange(num_codes)[:, None], steps, axis=1)


def pairs_in_both_orders(num_codes: int, number: int, seed: int) -> Int[np.ndarray, "Q 2"]:
    """About `number` pairs of different codes, each in both orders, so that their commutator can be measured."""
    first, second = np.triu_indices(num_codes, 1)
    chosen = np.random.default_rng(seed).permutation(len(first))[: max(1, number // 2)]
    pairs = np.stack([first[chosen], second[chosen]], axis=1)
    return np.concatenate([pairs, pairs[:, ::-1]])


def sequences_from_data(
    codes: Int[np.ndarray, " M"], trajectory: Int[np.ndarray, " M"], length: int, number: int, seed: int
) -> Int[np.ndarray, "Q n"]:
    """At most `number` different runs of `length` codes that occur inside a trajectory; frequent ones are likelier."""
    inside = trajectory[: len(codes) - length + 1] == trajectory[length - 1 :]
    runs = np.stack([codes[i : len(codes) - length + 1 + i] for i in range(length)], axis=1)[inside]
    if not len(runs):
        return np.zeros((0, length), np.int64)
    shuffled = runs[np.random.default_rng(seed).permutation(len(runs))]
    _, first = np.unique(shuffled, axis=0, return_index=True)
    return shuffled[np.sort(first)[:number]]
