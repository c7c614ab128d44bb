"""One motion, prepared once; then any set of codes is judged against it through the same code path."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int

from genie_eval.codes.code_sums import code_sums
from genie_eval.codes.consistency import (
    Consistency,
    PairSums,
    across_trajectories,
    consistency,
    first_forgetful_lag,
    pad,
    pair_sums,
)
from genie_eval.codes.grounding import held_out_r2
from genie_eval.codes.motion import without_phase, without_trajectory, zscore
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

SHORTEST = 6  # transitions of the median trajectory; in shorter ones, even perfect codes read as low as .5
OWN_MOTION = 0.1  # of W: what the products of a code's motions must reach for it to mean a motion at all
ABOVE_ZERO = 1e-6  # of z-scored motion squared; rounding is not a relation
Codes = Int[np.ndarray, " M"]


@dataclass(frozen=True)
class CtcReading:
    """X, W, their ratio (None where it has no meaning, and why), and the same for each code."""

    value: float | None
    ci95: Float[np.ndarray, " 2"] | None
    across: float
    within: float
    within_ci95: Float[np.ndarray, " 2"]
    code_values: list[float | None]
    code_ci95: list[Float[np.ndarray, " 2"] | None]
    lag: int | None
    reason: str


class MotionAssay:
    """`table.motions[motion]` z-scored (for grounding) and residual (for consistency), with bootstrap weights.

    The caller has asked `table.why_unusable(motion)` before.
    """

    def __init__(self, table: Transitions, motion: str, num_codes: int, draws: int = DRAWS, seed: int = 0):
        self.table, self.motion, self.num_codes, self.seed = table, motion, num_codes, seed
        self.values = table.motions[motion]
        self.scored = zscore(self.values)
        self.weights = bootstrap_weights(table.num_trajectories, draws, seed)
        self.left_out = jackknife_weights(table.num_trajectories, seed)

    @cached_property
    def phase_free(self) -> Float[np.ndarray, "M D"]:
        return without_phase(self.values, self.table.phase)

    @cached_property
    def residual(self) -> Float[np.ndarray, "M D"]:
        return without_trajectory(self.phase_free, self.table.trajectory)

    @cached_property
    def lag(self) -> int | None:
        """Steps after which motion has forgotten itself; None where trajectories are too short to say."""
        padded, valid = pad(self.residual, self.table.trajectory)
        return None if np.median(valid.sum(axis=1)) < SHORTEST else first_forgetful_lag(padded, valid)

    def r2(self, codes: Codes) -> float:
        return float(held_out_r2(code_sums(codes, self.scored, self.table.trajectory, self.num_codes))[0])

    def r2_draws(self, codes: Codes) -> Float[np.ndarray, " R"]:
        return held_out_r2(code_sums(codes, self.scored, self.table.trajectory, self.num_codes), self.weights)

    def r2_left_out(self, codes: Codes) -> Float[np.ndarray, " G"]:
        """R2 with one trajectory (or one group) left out at a time: what `corrected_interval` asks for."""
        return held_out_r2(code_sums(codes, self.scored, self.table.trajectory, self.num_codes), self.left_out)

    def r2_interval(self, codes: Codes) -> Float[np.ndarray, " 2"]:
        return corrected_interval(self.r2(codes), self.r2_draws(codes), self.r2_left_out(codes))

    def r2_swap_null(self, codes: Codes, swaps: int = SWAPS, by: str = "phase") -> Float[np.ndarray, " R"]:
        return swap_null(self.r2, codes, self.table.starts, swaps, self.seed, by)

    def across(self, codes: Codes) -> float:
        """X alone: the part of CTC that has a value for any codes."""
        return float(across_trajectories(code_sums(codes, self.residual, self.table.trajectory, self.num_codes))[0][0])

    def across_swap_null(self, codes: Codes, swaps: int = SWAPS, by: str = "phase") -> Float[np.ndarray, " R"]:
        return swap_null(self.across, codes, self.table.starts, swaps, self.seed, by)

    @cached_property
    def alignments(self) -> tuple[str, ...]:
        """How codes can be swapped: where lengths differ, a profile may run by phase or by the clock."""
        length = np.diff(self.table.starts)
        return ("phase", "step") if length.min() < length.max() else ("phase",)

    def ctc(self, codes: Codes) -> CtcReading:
        pairs, asked = self._pairs(codes, self.residual), self.moving_codes(codes)
        once, drawn, left_out = (consistency(pairs, w, asked) for w in (None, self.weights, self.left_out))
        within, across = float(once.within[0]), float(once.across[0])
        within_ci = interval(drawn.within)
        # of all codes too: among codes without meaning, those that happen to agree with themselves seem to move
        every = consistency(pairs, self.weights).within
        defined = np.isfinite(within) and within_ci[0] > ABOVE_ZERO and interval(every)[0] > ABOVE_ZERO
        with np.errstate(divide="ignore", invalid="ignore"):
            value, by_code = across / within if defined else None, once.code_across[0] / once.code_within[0]
            ci = code_ci = None
            if value is not None:
                ci = corrected_interval(value, drawn.across / drawn.within, left_out.across / left_out.within)
                code_draws = drawn.code_across / drawn.code_within
                code_ci = corrected_interval(by_code, code_draws, left_out.code_across / left_out.code_within)
        code_ok = (interval(drawn.code_within)[0] > ABOVE_ZERO) & asked & defined
        code_ok &= np.isfinite(by_code)  # a code of one trajectory has no other to agree with
        return CtcReading(
            value=value,
            ci95=ci,
            across=across,
            within=within,
            within_ci95=within_ci,
            code_values=[float(v) if ok else None for v, ok in zip(by_code, code_ok, strict=True)],
            code_ci95=[code_ci[:, k] if ok and code_ci is not None else None for k, ok in enumerate(code_ok)],
            lag=self.lag,
            reason="" if defined else self._why_undefined(within, within_ci[0]),
        )

    def moving_codes(self, codes: Codes) -> Bool[np.ndarray, " K"]:
        """Which codes mean a motion of their own inside trajectories, so that its consistency can be asked; all where
        none does.

        A code that means "no motion" seems to have one: minus the trajectory mean that was removed, in which no other
        trajectory can agree (a perfect "still" code with 70 % of the transitions would pull CTC from 1 to .35). So
        products of its motions are asked for before any mean is taken off.
        """
        pairs = self._pairs(codes, self.phase_free)
        within = float(self.consistency(codes).within[0])
        with np.errstate(invalid="ignore"):
            own = pairs.same.sum(axis=0) / pairs.same_count.sum(axis=(0, 1)) >= OWN_MOTION * within
        return own if own.any() else np.ones_like(own)

    def ctc_value(self, codes: Codes) -> float | None:
        """CTC without intervals; None where W is not above 0 even as a point."""
        once = consistency(self._pairs(codes, self.residual), None, self.moving_codes(codes))
        if not once.within[0] > ABOVE_ZERO:
            return None
        return float(once.across[0] / once.within[0])

    def consistency(self, codes: Codes) -> Consistency:
        """X and W as they are, also where their ratio has no meaning."""
        return consistency(self._pairs(codes, self.residual))

    def _pairs(self, codes: Codes, motion: Float[np.ndarray, "M D"]) -> PairSums:
        return pair_sums(codes, motion, self.table.trajectory, self.num_codes, self.lag)

    def _why_undefined(self, within: float, low: float) -> str:
        if self.lag is None:
            return f"trajectories are too short ({SHORTEST} transitions and a motion that forgets itself are needed)"
        if not np.isfinite(within):
            return f"no code occurs twice in a trajectory {self.lag} or more steps apart"
        return f"no code-motion relation even inside a trajectory: W = {within:.3f}, its interval begins at {low:.3f}"
