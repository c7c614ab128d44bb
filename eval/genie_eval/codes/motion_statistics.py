"""One motion, prepared once, and the statistics of any set of codes on it."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int

from genie_eval.codes.code_sums import CodeSums, code_sums
from genie_eval.codes.consistency import (
    Consistency,
    PairSums,
    across_trajectories,
    consistency,
    decorrelation_lag,
    pad,
    pair_sums,
)
from genie_eval.codes.grounding import held_out_r2
from genie_eval.codes.motion import group_means, zscore
from genie_eval.codes.transitions import Transitions
from genie_eval.resampling import (
    DRAWS,
    SWAPS,
    bootstrap_weights,
    corrected_interval,
    interval,
    jackknife_weights,
    swap_null,
)  # fmt: skip

PHASE_BINS = 8
SHORTEST = 6  # transitions of the median trajectory; in shorter ones even perfect codes read as low as 0.5
OWN_MOTION = 0.1  # share of W that the products of a code's motions must reach for it to have a motion at all
ABOVE_ZERO = 1e-6  # of z-scored motion squared; smaller values are rounding
Codes = Int[np.ndarray, " M"]


@dataclass(frozen=True)
class CtcReading:
    """X, W and CTC, over all codes and for each code. value is None where CTC is undefined; `reason` says why."""

    value: float | None
    ci95: Float[np.ndarray, " 2"] | None
    across: float
    within: float
    within_ci95: Float[np.ndarray, " 2"]
    code_values: list[float | None]
    code_ci95: list[Float[np.ndarray, " 2"] | None]
    lag: int | None
    reason: str


class MotionStatistics:
    """Grounding and consistency of codes on `table.motions[motion]`, with one set of bootstrap weights for all codes.

    The motion must be usable: `table.why_unusable(motion)` is None.
    """

    def __init__(self, table: Transitions, motion: str, num_codes: int, draws: int = DRAWS, seed: int = 0):
        self.table, self.motion, self.num_codes, self.seed = table, motion, num_codes, seed
        self.values = table.motions[motion]
        self.scored = zscore(self.values)
        self.weights = bootstrap_weights(table.num_trajectories, draws, seed)
        self.left_out = jackknife_weights(table.num_trajectories, seed)

    @cached_property
    def phase_free(self) -> Float[np.ndarray, "M D"]:
        """z-scored motion minus the mean of its phase, so that progress in the episode cannot predict it."""
        bins = np.minimum((self.table.phase * PHASE_BINS).astype(np.int64), PHASE_BINS - 1)
        return self.scored - group_means(self.scored, bins, PHASE_BINS)[bins]

    @cached_property
    def residual(self) -> Float[np.ndarray, "M D"]:
        """`phase_free` minus the mean of its trajectory, so that the identity of the episode cannot predict it."""
        means = group_means(self.phase_free, self.table.trajectory, self.table.num_trajectories)
        return self.phase_free - means[self.table.trajectory]

    @cached_property
    def lag(self) -> int | None:
        """Steps after which motion no longer depends on its past; None where trajectories are too short to tell."""
        padded, valid = pad(self.residual, self.table.trajectory)
        return None if np.median(valid.sum(axis=1)) < SHORTEST else decorrelation_lag(padded, valid)

    @cached_property
    def alignments(self) -> tuple[str, ...]:
        """Values of `by` of `swap_codes`: where lengths differ, a shared profile may depend on phase or on the step."""
        length = np.diff(self.table.starts)
        return ("phase", "step") if length.min() < length.max() else ("phase",)

    # ------------------------------------------------------------------------------------------------------- grounding
    def r2(self, codes: Codes) -> float:
        return float(held_out_r2(self._sums(codes, self.scored))[0])

    def r2_draws(self, codes: Codes) -> Float[np.ndarray, " R"]:
        return held_out_r2(self._sums(codes, self.scored), self.weights)

    def r2_left_out(self, codes: Codes) -> Float[np.ndarray, " G"]:
        """R2 under jackknife weights, for `corrected_interval`."""
        return held_out_r2(self._sums(codes, self.scored), self.left_out)

    def r2_interval(self, codes: Codes) -> Float[np.ndarray, " 2"]:
        return corrected_interval(self.r2(codes), self.r2_draws(codes), self.r2_left_out(codes))

    def r2_swap_null(self, codes: Codes, swaps: int = SWAPS, by: str = "phase") -> Float[np.ndarray, " R"]:
        return swap_null(self.r2, codes, self.table.starts, swaps, self.seed, by)

    # ----------------------------------------------------------------------------------------------------- consistency
    def across(self, codes: Codes) -> float:
        """X alone: unlike CTC it is defined for any codes."""
        return float(across_trajectories(self._sums(codes, self.residual))[0][0])

    def across_swap_null(self, codes: Codes, swaps: int = SWAPS, by: str = "phase") -> Float[np.ndarray, " R"]:
        return swap_null(self.across, codes, self.table.starts, swaps, self.seed, by)

    def consistency(self, codes: Codes) -> Consistency:
        """X and W, also where CTC is undefined."""
        return consistency(self._pairs(codes, self.residual))

    def ctc_value(self, codes: Codes) -> float | None:
        """CTC without intervals; None where W is not above 0."""
        once = consistency(self._pairs(codes, self.residual), None, self.moving_codes(codes))
        if not once.within[0] > ABOVE_ZERO:
            return None
        return float(once.across[0] / once.within[0])

    def ctc(self, codes: Codes) -> CtcReading:
        pairs, chosen = self._pairs(codes, self.residual), self.moving_codes(codes)
        once, drawn, left_out = (consistency(pairs, w, chosen) for w in (None, self.weights, self.left_out))
        within, across = float(once.within[0]), float(once.across[0])
        within_ci = interval(drawn.within)
        # W of all codes is tested too: among codes without meaning, those chosen as moving agree by selection
        every = consistency(pairs, self.weights).within
        defined = np.isfinite(within) and within_ci[0] > ABOVE_ZERO and interval(every)[0] > ABOVE_ZERO
        with np.errstate(divide="ignore", invalid="ignore"):
            value, by_code = across / within if defined else None, once.code_across[0] / once.code_within[0]
            ci = code_ci = None
            if value is not None:
                ci = corrected_interval(value, drawn.across / drawn.within, left_out.across / left_out.within)
                code_draws = drawn.code_across / drawn.code_within
                code_ci = corrected_interval(by_code, code_draws, left_out.code_across / left_out.code_within)
        code_ok = (interval(drawn.code_within)[0] > ABOVE_ZERO) & chosen & defined
        code_ok &= np.isfinite(by_code)  # a code of one trajectory cannot be compared across trajectories
        return CtcReading(
            value=value,
            ci95=ci,
            across=across,
            within=within,
            within_ci95=within_ci,
            code_values=[float(v) if ok else None for v, ok in zip(by_code, code_ok, strict=True)],
            code_ci95=[code_ci[:, k] if ok and code_ci is not None else None for k, ok in enumerate(code_ok)],
            lag=self.lag,
            reason="" if defined else self._why_undefined(within, float(within_ci[0]), float(interval(every)[0])),
        )

    def moving_codes(self, codes: Codes) -> Bool[np.ndarray, " K"]:
        """Mask of the codes that have a motion of their own within trajectories; all codes where none has.

        After trajectory means are removed, a code that stands for "no motion" seems to have one: minus the mean of its
        trajectory, which no other trajectory shares (a perfect "still" code with 70 % of the transitions would lower
        CTC from 1 to 0.35). The products of its motions are therefore compared before trajectory means are removed.
        """
        pairs = self._pairs(codes, self.phase_free)
        within = float(self.consistency(codes).within[0])
        with np.errstate(invalid="ignore"):
            own = pairs.same.sum(axis=0) / pairs.same_count.sum(axis=(0, 1)) >= OWN_MOTION * within
        return own if own.any() else np.ones_like(own)

    def _sums(self, codes: Codes, motion: Float[np.ndarray, "M D"]) -> CodeSums:
        return code_sums(codes, motion, self.table.trajectory, self.num_codes)

    def _pairs(self, codes: Codes, motion: Float[np.ndarray, "M D"]) -> PairSums:
        return pair_sums(codes, motion, self.table.trajectory, self.num_codes, self.lag)

    def _why_undefined(self, within: float, low: float, low_of_all: float) -> str:
        if self.lag is None:
            return f"trajectories are too short: {SHORTEST} transitions and a motion that decorrelates are needed"
        if not np.isfinite(within):
            return f"no code occurs twice in a trajectory {self.lag} or more steps apart"
        if low > ABOVE_ZERO:
            return f"codes and motion are not related within trajectories: W over all codes from {low_of_all:.3f}"
        return f"codes and motion are not related even within a trajectory: W = {within:.3f}, interval from {low:.3f}"
