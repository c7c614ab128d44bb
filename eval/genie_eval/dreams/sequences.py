"""`sequence_consistency`: does the same sequence of latent actions give similar behaviour from different starts?

Genie's picture (figure 12: the same code, several starts) as a number. D(sequence, start) is the displacement of the
end effector in the dream. Of what a sequence changes at one start, against the other sequences played from there, the
metric is the share that it changes at all starts:

    mean product of D(q, i) and D(q, j) over starts i != j   /   mean square of D(q, i),   D without the start's mean

which estimates variance(sequence) / (variance(sequence) + variance(sequence x start)); specification, level E. What the
world does whatever the code (the start's mean) does not count, for or against. Dreams whose ends differ by less than a
fifth of a usual step do not respond, and read 0: a sensitive read-out finds the trace of an invisible mark alike
everywhere (a scripted world that only hides its code in one pixel read .75 without this).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from genie_eval.codes.code_sums import CodeSums
from genie_eval.codes.consistency import across_trajectories

FIT_ROUNDS = 30  # of the two-way fit where cells are missing
NO_RESPONSE = 0.2  # SDs of one real step; dreams of different codes that end nearer to each other do not respond


@dataclass(frozen=True)
class Share:
    """value: the metric; drawn: under bootstrap of starts; `response`: root of its denominator."""

    value: float
    drawn: Float[np.ndarray, " R"]
    by_sequence: list[float | None]
    response: float

    @property
    def responds(self) -> bool:
        return self.response > NO_RESPONSE


def sequence_share(moved: Float[np.ndarray, "S Q D"], weights: Float[np.ndarray, "R S"]) -> Share:
    """The share for displacements in comparable units (NaN: unsure, left out)."""
    rows, square_by_sequence = _rows(moved)
    once = np.ones((1, len(moved)))
    value, by_sequence, response = _share(rows, square_by_sequence, once)
    drawn, _, _ = _share(rows, square_by_sequence, weights)
    return Share(
        value=float(value[0]),
        drawn=drawn,
        by_sequence=[float(v) if np.isfinite(v) else None for v in by_sequence[0]],
        response=float(np.sqrt(max(response[0], 0.0))),
    )


def permuted_share(moved: Float[np.ndarray, "S Q D"], times: int, seed: int) -> Float[np.ndarray, " R"]:
    """The share when every start has names of its own for the sequences: the null."""
    rng = np.random.default_rng(seed)
    shares = []
    for _ in range(times):
        renamed = np.stack([row[rng.permutation(len(row))] for row in moved])
        shares.append(_share(*_rows(renamed), np.ones((1, len(moved))))[0][0])
    return np.array(shares)


def _rows(moved: np.ndarray) -> tuple[CodeSums, np.ndarray]:
    """Sums by start and sequence, without the start's own effect; and sums of squares (S, Q).

    Where cells are missing, a start's mean over what is left is not its effect: effects of starts and sequences are
    fitted together, and residuals are scaled to what a start with every cell would have.
    """
    known = np.isfinite(moved).all(axis=-1)
    known &= known.sum(axis=1, keepdims=True) >= 2  # one cell alone says nothing of a difference
    filled = np.where(known[..., None], moved, 0.0)
    of_start, of_sequence = np.maximum(known.sum(axis=1), 1), np.maximum(known.sum(axis=0), 1)
    start, sequence = np.zeros((len(moved), moved.shape[-1])), np.zeros(moved.shape[1:])
    for _ in range(FIT_ROUNDS):
        start = np.where(known[..., None], filled - sequence, 0.0).sum(axis=1) / of_start[:, None]
        sequence = np.where(known[..., None], filled - start[:, None], 0.0).sum(axis=0) / of_sequence[:, None]
        sequence -= sequence.mean(axis=0)
        if known.all():
            break
    many = moved.shape[1]
    scale = np.sqrt((1 - 1 / many) / (1 - 1 / np.maximum(of_start, 2)))[:, None, None]
    free = np.where(known[..., None], sequence + scale * (filled - start[:, None] - sequence), 0.0)
    sums = CodeSums(known.astype(float), free, (free**2).sum(axis=(1, 2)))
    return sums, (free**2).sum(axis=-1)


def _share(sums: CodeSums, square: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    across, by_sequence = across_trajectories(sums, weights)
    count = weights @ sums.count
    with np.errstate(divide="ignore", invalid="ignore"):
        within = (weights @ square).sum(axis=1) / count.sum(axis=1)
        own = (weights @ square) / count
        value = np.where(within > NO_RESPONSE**2, across / within, 0.0)
        return value, np.where(own > NO_RESPONSE**2, by_sequence / own, np.nan), within


def agreement(moved: Float[np.ndarray, "S Q 3"], error: float) -> dict[str, Any]:
    """How alike the displacements of one sequence are from all starts, in the motion's own units.

    error: RMS error of the read-out; the direction of a sequence that moves less is not judged.
    """
    cosines: list[float | None] = []
    spread: list[float | None] = []
    variation: list[float | None] = []
    for q in range(moved.shape[1]):
        rows = moved[np.isfinite(moved[:, q]).all(axis=-1), q]
        length = np.linalg.norm(rows, axis=1)
        n = len(rows)
        if n < 2:
            cosines.append(None)
            spread.append(None)
            variation.append(None)
            continue
        mean = rows.mean(axis=0)
        spread.append(float(np.sqrt(((rows - mean) ** 2).sum(axis=1).mean())))
        variation.append(float(length.std() / max(length.mean(), 1e-12)))
        if np.linalg.norm(mean) <= error and length.mean() <= 1.5 * error:
            cosines.append(None)
            continue
        unit = rows / np.maximum(length, 1e-12)[:, None]
        cosines.append(float(((unit.sum(axis=0) ** 2).sum() - n) / (n * (n - 1))))
    judged = [c for c in cosines if c is not None]
    return {
        "cosine": float(np.mean(judged)) if judged else None, "cosine_by_sequence": cosines,
        "endpoint_spread": spread, "magnitude_cv": variation,
        "mean_displacement": _mean(moved).tolist(), "not_judged": int(sum(c is None for c in cosines)),
    }  # fmt: skip


def identify(moved: Float[np.ndarray, "S Q D"]) -> tuple[float, Float[np.ndarray, " S"]]:
    """Share of dreams whose sequence is told by the nearest mean displacement of the OTHER starts; and by start.

    Chance is 1 / Q.
    """
    known = np.isfinite(moved).all(axis=-1)
    filled, count = np.where(known[..., None], moved, 0.0), known.astype(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        centre = (filled.sum(axis=0) - filled) / (count.sum(axis=0) - count)[..., None]  # (S, Q, D)
    distance = ((filled[:, :, None] - centre[:, None]) ** 2).sum(axis=-1)  # (S, played, centre)
    right = np.where(np.isfinite(distance), distance, np.inf).argmin(axis=-1) == np.arange(moved.shape[1])
    share = np.array([r[k].mean() if k.any() else np.nan for r, k in zip(right, known, strict=True)])
    return float(right[known].mean()) if known.any() else 0.0, share


def opposite_pairs(meaning: Float[np.ndarray, "K 3"], moves: Float[np.ndarray, "S K 3"]) -> dict[str, Any]:
    """Codes that mean opposite motions in real video: from one start, do BOTH dreams go the right way? (KCtrl)"""
    length = np.linalg.norm(meaning, axis=1)
    clear = length > 0.3 * np.nanmax(length) if np.isfinite(length).any() else np.zeros(len(length), bool)
    pairs = []
    for a in range(len(meaning)):
        for b in range(a + 1, len(meaning)):
            if clear[a] and clear[b] and meaning[a] @ meaning[b] <= -0.7 * length[a] * length[b]:
                both = np.isfinite(moves[:, [a, b]]).all(axis=(1, 2))
                ways = ((moves[both][:, [a, b]] * meaning[[a, b]]).sum(axis=-1) > 0).all(axis=1)
                if len(ways):
                    pairs.append({"codes": [a, b], "both_right": float(ways.mean()), "n": len(ways)})
    credit = float(np.mean([pair["both_right"] for pair in pairs])) if pairs else None
    return {"pairs": pairs, "credit": credit}


def algebra(
    pairs: Int[np.ndarray, "Q 2"], after_two: Float[np.ndarray, "S Q 3"], after_one: Float[np.ndarray, "S K 3"]
) -> dict[str, Any]:
    """Do displacements add, and does the order matter? Root mean squares over starts and pairs, relative to D(ab).

    additivity_error: |D(ab) - D(a) - D(b)|. commutator: |D(ab) - D(ba)|. 0 is perfect; two unrelated displacements of
    equal size read 1.4. slope: of D(ab) on D(a) + D(b).
    """
    total = after_one[:, pairs[:, 0]] + after_one[:, pairs[:, 1]]
    known = np.isfinite(after_two).all(axis=-1) & np.isfinite(total).all(axis=-1)
    if not known.any():
        return {"reason": "the read-out was unsure of every pair"}
    together, apart = after_two[known], total[known]
    size = np.sqrt((together**2).sum(axis=-1).mean())
    index = {tuple(pair): q for q, pair in enumerate(pairs.tolist())}
    turned = np.array([index.get((b, a), -1) for a, b in pairs.tolist()])
    has = turned >= 0
    swap = (after_two[:, has] - after_two[:, turned[has]])[np.isfinite(after_two[:, has] + after_two[:, turned[has]])]
    return {
        "additivity_error": float(np.sqrt(((together - apart) ** 2).sum(axis=-1).mean()) / max(size, 1e-12)),
        "slope": float((together * apart).sum() / max((apart**2).sum(), 1e-12)),
        "commutator": float(np.sqrt((swap**2).mean() * 3) / max(size, 1e-12)) if swap.size else None,
        "n_pairs": len(pairs), "rms_displacement": float(size),
    }  # fmt: skip


def _mean(moved: np.ndarray) -> np.ndarray:
    known = np.isfinite(moved).all(axis=-1, keepdims=True)
    return np.where(known, moved, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
