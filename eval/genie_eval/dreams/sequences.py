"""`sequence_consistency`: does the same sequence of latent actions do the same from different starts?

The metric is a number for Genie's figure 12 (the same code from several starts). D(q, i) is the displacement of the end
effector in the dream of sequence q from start i, minus its mean over the sequences played from start i, because what
the world does under every code says nothing about the codes:

    mean product of D(q, i) and D(q, j) over starts i != j   /   mean square of D(q, i)

estimates variance(sequence) / (variance(sequence) + variance(sequence x start)). Dreams whose ends differ by less than
a fifth of a usual step do not respond and read 0: a sensitive read-out finds the same trace of an invisible mark
everywhere (without this rule, a scripted world that only hides its code in one pixel reads 0.75).
"""

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from genie_eval.codes.code_sums import CodeSums
from genie_eval.codes.consistency import across_trajectories
from genie_eval.dreams.context import PERMUTATIONS, ControlContext, MeasuredMotion
from genie_eval.dreams.displacements import flow_displacements, read_displacements
from genie_eval.dreams.play import SequenceDreams
from genie_eval.dreams.readout_error import MAX_ABSTAINED
from genie_eval.metrics import MIN_BOTH_RIGHT, MIN_COSINE, MIN_IDENTIFIED, Metric, judge, not_run, plain
from genie_eval.resampling import interval, permutation_p

FIT_ROUNDS = 30  # of the two-way fit where cells are missing
NO_RESPONSE = 0.2  # SDs of one real step; dreams of different codes that end nearer to each other do not respond


@dataclass(frozen=True)
class SequenceShare:
    """value: the metric; drawn: in bootstrap draws of starts; response: root of its denominator, SDs of one step."""

    value: float
    drawn: Float[np.ndarray, " R"]
    by_sequence: list[float | None]
    response: float

    @property
    def responds(self) -> bool:
        return self.response > NO_RESPONSE

    def corrected(self, noise: float) -> float | None:
        """The share without the read-out's own error variance in its denominator; never judged."""
        square = self.response**2
        return self.value * square / (square - noise) if square > 2 * noise else None


def sequence_consistency(context: ControlContext) -> tuple[Metric, dict[str, Any]]:
    """The metric of constant codes, and details: constants, pairs, triples, longer sequences, the stillest code.

    oracle: the simulator's own futures, through the same read-out (1 without a simulator).
    """
    motion = context.motion
    if isinstance(motion, str):
        return not_run(motion), {}
    error, constant = motion.error, context.commanded.constant
    moved, spread = motion.dreams.confident("base"), context.step_spread
    share = sequence_share(moved / spread, context.weights)
    null = permuted_share(moved / spread, PERMUTATIONS, context.seed)
    alike = agreement(moved, error.rms_error)
    identified, by_start = identify(moved / spread)
    opposite = opposite_pairs(context.code_motion, moved)
    noise = float((error.noise[error.gap] / spread**2).sum())
    abstained = float(np.isnan(moved[..., 0]).mean())
    dissolved = motion.dreams.dissolved
    details = {
        "constants": alike,
        **{name: _other_sequences(context, motion, dreams) for name, dreams in context.commanded.others.items()},
        "null_motion": _stillest_code(context, moved),
    }
    more = {
        "by_code": share.by_sequence, "response": share.response, "reliability": error.reliability,
        "corrected": share.corrected(noise), "n_starts": len(moved), "steps": constant.steps,
        "cosine": alike["cosine"], "identified": identified,
        "identified_ci95": interval(context.weights @ np.nan_to_num(by_start) / len(by_start)),
        "chance": 1 / moved.shape[1], "opposites": opposite, "abstained": abstained,
        "dissolved": None if dissolved is None else float(dissolved[:, :, -1].mean()),
        "by_kind": {
            name: {"value": row["value"], "ci95": row["ci95"], "steps": row["steps"]}
            for name, row in details.items()
            if "value" in row
        },
    }  # fmt: skip
    oracle = 1.0
    if motion.futures is not None:
        oracle = sequence_share(motion.futures.confident("base") / spread, context.weights).value
    metric = Metric(
        value=share.value, null=float(null.mean()), oracle=oracle, ci95=interval(share.drawn),
        p=permutation_p(share.value, null), n_trajectories=len(moved), more=plain(more),
    )  # fmt: skip
    missing = []
    if abstained > MAX_ABSTAINED:
        missing.append(f"the read-out abstains from {abstained:.0%} of the dreams")
    if not share.responds:
        missing.append(f"dreams of different codes end within {share.response:.2f} SD of a usual step: no response")
    if alike["cosine"] is not None and alike["cosine"] < MIN_COSINE:
        missing.append(f"directions agree by a cosine of {alike['cosine']:.2f}, below {MIN_COSINE:g}")
    if identified < MIN_IDENTIFIED:
        missing.append(f"{identified:.0%} of the dreams identify their code, below {MIN_IDENTIFIED:.0%}")
    if opposite["credit"] is not None and opposite["credit"] < MIN_BOTH_RIGHT:
        missing.append(f"opposite codes both go the right way in {opposite['credit']:.0%}, below {MIN_BOTH_RIGHT:.0%}")
    judge("sequence_consistency", metric, missing=missing)
    return error.limit_verdict(metric), details


def sequence_consistency_flow(context: ControlContext) -> Metric:
    """The metric on optical flow, for video without true motion. Flow also sees other moving things than the arm."""
    moved = flow_displacements(context.commanded.starts, context.commanded.constant).confident("flow")
    spread = np.nanstd(moved.reshape(-1, moved.shape[-1]), axis=0)
    moved = moved / np.where(spread > 1e-12, spread, 1.0)
    share = sequence_share(moved, context.weights)
    if not np.isfinite(share.value):
        return not_run(f"{len(moved)} start: the effect of a sequence is compared between two or more starts")
    null = permuted_share(moved, PERMUTATIONS, context.seed)
    metric = Metric(
        value=share.value, null=float(null.mean()), oracle=1.0, ci95=interval(share.drawn),
        p=permutation_p(share.value, null), n_trajectories=len(moved),
        more={"by_code": share.by_sequence, "motion": "summed mean optical flow of moving pixels; not true motion"},
    )  # fmt: skip
    return judge("sequence_consistency_flow", metric, what="(optical flow) ")


def _other_sequences(context: ControlContext, motion: MeasuredMotion, dreams: SequenceDreams) -> dict[str, Any]:
    """The share of sequences of different codes and, for pairs, the algebra of their displacements."""
    moved = read_displacements(motion.readout, context.commanded.starts, dreams).confident("base")
    share = sequence_share(moved / context.step_spread, context.weights)
    identified, _ = identify(moved / context.step_spread)
    row: dict[str, Any] = {
        "value": share.value, "ci95": interval(share.drawn).tolist(), "steps": dreams.steps,
        "n": len(dreams.sequences), "identified": identified, "chance": 1 / len(dreams.sequences),
        "sequences": dreams.sequences.tolist(), "by_sequence": share.by_sequence,
    }  # fmt: skip
    if dreams.steps == 2:
        row["algebra"] = algebra(dreams.sequences, moved, motion.dreams.confident("base", 0))
    return row


def _stillest_code(context: ControlContext, moved: Float[np.ndarray, "S K 3"]) -> dict[str, Any]:
    """Drift per step in the dreams of the code that moves least, next to the usual real motion of one step."""
    known = np.isfinite(moved).all(axis=-1)
    count = known.sum(axis=0)
    square = np.where(known, (np.where(known[..., None], moved, 0) ** 2).sum(axis=-1), 0).sum(axis=0)
    steps = context.commanded.constant.steps
    length = np.where(count > 0, np.sqrt(square / np.maximum(count, 1)), np.inf) / steps
    usual = float(np.sqrt((context.evidence.table.motions["base"] ** 2).sum(axis=1).mean()))
    code = int(length.argmin())
    return {"code": code, "per_step_mm": float(1000 * length[code]), "usual_step_mm": 1000 * usual,
            "ratio": float(length[code] / max(usual, 1e-12))}  # fmt: skip


def sequence_share(moved: Float[np.ndarray, "S Q D"], weights: Float[np.ndarray, "R S"]) -> SequenceShare:
    """The share for displacements in comparable units; NaN displacements are left out."""
    rows, square_by_sequence = _rows(moved)
    value, by_sequence, response = _share(rows, square_by_sequence, np.ones((1, len(moved))))
    drawn, _, _ = _share(rows, square_by_sequence, weights)
    return SequenceShare(float(value[0]), drawn, plain(by_sequence[0]), float(np.sqrt(max(response[0], 0.0))))


def permuted_share(moved: Float[np.ndarray, "S Q D"], times: int, seed: int) -> Float[np.ndarray, " R"]:
    """The null: the share with the sequences renamed at random at every start."""
    rng = np.random.default_rng(seed)
    shares = []
    for _ in range(times):
        renamed = np.stack([row[rng.permutation(len(row))] for row in moved])
        shares.append(_share(*_rows(renamed), np.ones((1, len(moved))))[0][0])
    return np.array(shares)


def _rows(moved: np.ndarray) -> tuple[CodeSums, np.ndarray]:
    """Sums per start and sequence without the effect of the start, and (S, Q) sums of squares.

    Where cells are missing, the mean of the other cells is not the effect of the start: effects of starts and sequences
    are fitted together, and the residuals are scaled to those of a start with all cells.
    """
    known = np.isfinite(moved).all(axis=-1)
    known &= known.sum(axis=1, keepdims=True) >= 2  # a difference needs two cells
    filled = np.where(known[..., None], moved, 0.0)
    per_start, per_sequence = np.maximum(known.sum(axis=1), 1), np.maximum(known.sum(axis=0), 1)
    start, sequence = np.zeros((len(moved), moved.shape[-1])), np.zeros(moved.shape[1:])
    for _ in range(FIT_ROUNDS):
        start = np.where(known[..., None], filled - sequence, 0.0).sum(axis=1) / per_start[:, None]
        sequence = np.where(known[..., None], filled - start[:, None], 0.0).sum(axis=0) / per_sequence[:, None]
        sequence -= sequence.mean(axis=0)
        if known.all():
            break
    num_sequences = moved.shape[1]
    scale = np.sqrt((1 - 1 / num_sequences) / (1 - 1 / np.maximum(per_start, 2)))[:, None, None]
    residual = np.where(known[..., None], sequence + scale * (filled - start[:, None] - sequence), 0.0)
    sums = CodeSums(known.astype(float), residual, (residual**2).sum(axis=(1, 2)))
    return sums, (residual**2).sum(axis=-1)


def _share(sums: CodeSums, square: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    across, by_sequence = across_trajectories(sums, weights)
    count = weights @ sums.count
    with np.errstate(divide="ignore", invalid="ignore"):
        within = (weights @ square).sum(axis=1) / count.sum(axis=1)
        own = (weights @ square) / count
        value = np.where(within > NO_RESPONSE**2, across / within, 0.0)
        return value, np.where(own > NO_RESPONSE**2, by_sequence / own, np.nan), within


def agreement(moved: Float[np.ndarray, "S Q 3"], error: float) -> dict[str, Any]:
    """Agreement of the displacements of one sequence across starts, meters: cosine, spread, variation of their length.

    error: RMS error of the read-out, meters; the direction of a sequence that moves less is not judged.
    """
    cosines: list[float | None] = [None] * moved.shape[1]
    spread, variation = cosines.copy(), cosines.copy()
    for q in range(moved.shape[1]):
        rows = moved[np.isfinite(moved[:, q]).all(axis=-1), q]
        length, n = np.linalg.norm(rows, axis=1), len(rows)
        if n < 2:
            continue
        mean = rows.mean(axis=0)
        spread[q] = float(np.sqrt(((rows - mean) ** 2).sum(axis=1).mean()))
        variation[q] = float(length.std() / max(length.mean(), 1e-12))
        if np.linalg.norm(mean) > error or length.mean() > 1.5 * error:
            unit = rows / np.maximum(length, 1e-12)[:, None]
            cosines[q] = float(((unit.sum(axis=0) ** 2).sum() - n) / (n * (n - 1)))
    judged = [c for c in cosines if c is not None]
    known = np.isfinite(moved).all(axis=-1, keepdims=True)
    mean_displacement = np.where(known, moved, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return {
        "cosine": float(np.mean(judged)) if judged else None, "cosine_by_sequence": cosines,
        "endpoint_spread": spread, "magnitude_cv": variation,
        "mean_displacement": mean_displacement.tolist(), "not_judged": int(sum(c is None for c in cosines)),
    }  # fmt: skip


def identify(moved: Float[np.ndarray, "S Q D"]) -> tuple[float, Float[np.ndarray, " S"]]:
    """Share of dreams whose own sequence has the nearest mean displacement over the other starts; and per start.

    Chance is 1 / Q.
    """
    known = np.isfinite(moved).all(axis=-1)
    filled, count = np.where(known[..., None], moved, 0.0), known.astype(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        center = (filled.sum(axis=0) - filled) / (count.sum(axis=0) - count)[..., None]  # (S, Q, D)
    distance = ((filled[:, :, None] - center[:, None]) ** 2).sum(axis=-1)  # (S, played, center)
    right = np.where(np.isfinite(distance), distance, np.inf).argmin(axis=-1) == np.arange(moved.shape[1])
    share = np.array([r[k].mean() if k.any() else np.nan for r, k in zip(right, known, strict=True)])
    return float(right[known].mean()) if known.any() else 0.0, share


def opposite_pairs(code_motion: Float[np.ndarray, "K 3"], moved: Float[np.ndarray, "S K 3"]) -> dict[str, Any]:
    """Share of starts from which both dreams of two opposite codes go the right way, mean over pairs.

    Two codes are opposite if their mean motions in real video are.
    """
    length = np.linalg.norm(code_motion, axis=1)
    clear = length > 0.3 * np.nanmax(length) if np.isfinite(length).any() else np.zeros(len(length), bool)
    pairs = []
    for a, b in combinations(np.flatnonzero(clear).tolist(), 2):
        if code_motion[a] @ code_motion[b] <= -0.7 * length[a] * length[b]:
            both = np.isfinite(moved[:, [a, b]]).all(axis=(1, 2))
            right = ((moved[both][:, [a, b]] * code_motion[[a, b]]).sum(axis=-1) > 0).all(axis=1)
            if len(right):
                pairs.append({"codes": [a, b], "both_right": float(right.mean()), "n": len(right)})
    credit = float(np.mean([pair["both_right"] for pair in pairs])) if pairs else None
    return {"pairs": pairs, "credit": credit}


def algebra(
    pairs: Int[np.ndarray, "Q 2"], after_two: Float[np.ndarray, "S Q 3"], after_one: Float[np.ndarray, "S K 3"]
) -> dict[str, Any]:
    """Do displacements add up, and does the order matter? Root mean squares over starts and pairs, relative to D(ab).

    additivity_error: |D(ab) - D(a) - D(b)|. commutator: |D(ab) - D(ba)|. 0 is perfect; two unrelated displacements of
    equal size read 1.4. slope: of D(ab) on D(a) + D(b).
    """
    total = after_one[:, pairs[:, 0]] + after_one[:, pairs[:, 1]]
    known = np.isfinite(after_two).all(axis=-1) & np.isfinite(total).all(axis=-1)
    if not known.any():
        return {"reason": "the read-out abstains from every pair"}
    together, apart = after_two[known], total[known]
    size = np.sqrt((together**2).sum(axis=-1).mean())
    index = {tuple(pair): q for q, pair in enumerate(pairs.tolist())}
    reverse = np.array([index.get((b, a), -1) for a, b in pairs.tolist()])
    both = reverse >= 0
    swap = (after_two[:, both] - after_two[:, reverse[both]])[
        np.isfinite(after_two[:, both] + after_two[:, reverse[both]])
    ]
    return {
        "additivity_error": float(np.sqrt(((together - apart) ** 2).sum(axis=-1).mean()) / max(size, 1e-12)),
        "slope": float((together * apart).sum() / max((apart**2).sum(), 1e-12)),
        "commutator": float(np.sqrt((swap**2).mean() * 3) / max(size, 1e-12)) if swap.size else None,
        "n_pairs": len(pairs), "rms_displacement": float(size),
    }  # fmt: skip
