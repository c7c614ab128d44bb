"""A command that is sent and read back, as a communication channel: confusion counts, bits, kappa."""

import numpy as np
from jaxtyping import Float, Int


def confusion(
    sent: Int[np.ndarray, " n"], read: Int[np.ndarray, " n"], group: Int[np.ndarray, " n"], num_codes: int
) -> Float[np.ndarray, "G K K"]:
    """Counts of (sent, read) for each group. A group is a start, the unit of resampling."""
    groups = int(group.max()) + 1
    cell = (group * num_codes + sent) * num_codes + read
    return np.bincount(cell, minlength=groups * num_codes**2).reshape(groups, num_codes, num_codes).astype(float)


def channel_bits(counts: Float[np.ndarray, "... K K"]) -> np.ndarray:
    """Mutual information of sent and read codes in bits, as if every code were sent equally often; at least 0.

    The Miller-Madow bias of finite counts is subtracted. Codes that were never sent are left out.
    """
    sent = counts.sum(axis=-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        given = np.where(sent > 0, counts / sent, 0.0)
        used = (sent > 0).sum(axis=-2, keepdims=True)
        joint = given / used
        read = joint.sum(axis=-2, keepdims=True)
        terms = joint * np.log2(np.where(joint > 0, given / np.where(read > 0, read, 1), 1))
    cells = (joint > 0).sum(axis=(-1, -2)) - (read > 0).sum(axis=(-1, -2)) - used[..., 0, 0] + 1
    bias = cells / (2 * np.log(2) * np.maximum(counts.sum(axis=(-1, -2)), 1))
    return np.maximum(terms.sum(axis=(-1, -2)) - np.maximum(bias, 0), 0.0)


def kappa(counts: Float[np.ndarray, "... K K"]) -> np.ndarray:
    """Cohen's kappa of the confusion, as if every code were sent equally often."""
    sent = counts.sum(axis=-1, keepdims=True)
    given = counts / np.where(sent > 0, sent, 1)
    joint = given / np.maximum((sent > 0).sum(axis=-2, keepdims=True), 1)
    agree = np.trace(joint, axis1=-2, axis2=-1)
    chance = (joint.sum(axis=-1) * joint.sum(axis=-2)).sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(chance < 1, (agree - chance) / (1 - chance), 0.0)


def recalls(counts: Float[np.ndarray, "K K"]) -> list[float | None]:
    """Share of each command that is read back as itself; None for a command that was never sent."""
    sent = counts.sum(axis=1)
    return [float(counts[k, k] / n) if n else None for k, n in enumerate(sent)]


def match_codes(
    own: Int[np.ndarray, " M"], other: Int[np.ndarray, " M"], num_codes: int, num_other: int
) -> Int[np.ndarray, " L"]:
    """Maps each code of another model to one of this model: the one-to-one map with the highest agreement.

    own, other: both models' codes of the same transitions. Codes of the other model that find no partner get the own
    code with which they occur most.
    """
    from scipy.optimize import linear_sum_assignment

    together = np.bincount(own * num_other + other, minlength=num_codes * num_other).reshape(num_codes, num_other)
    label = together.argmax(axis=0)
    rows, columns = linear_sum_assignment(-together)
    label[columns] = rows
    return label
