"""Measures whether intervals and p values are calibrated, on synthetic data. Takes about nine minutes.

    python -m tools.calibration [OUT.json]

It writes eval/reference/calibration.json, or OUT.json, and a .md table next to it. Rerun it when the statistics
change, and commit its result. Every draw has new data.

Coverage: fraction of draws in which the 95 % interval of `grounding_r2`, of `ctc` and of each code's CTC contains the
true value, which is measured on 80,000 other trajectories. Required at 200 trajectories: 92 % to 97 %.
False positives: fraction of draws in which meaningless codes have p <= 0.05 in the test that swaps the codes of whole
trajectories. 5 % are expected, at most 8 % allowed. Undefined: fraction in which CTC of such codes has no value.
"""

import functools
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from genie_eval.codes.motion_statistics import MotionStatistics
from genie_eval.codes.nulls import permuted_per_trajectory
from genie_eval.codes.planted import autocorrelated_codes, planted_transitions, with_label_noise
from genie_eval.codes.quantize import k_means, nearest_center
from genie_eval.codes.transitions import Transitions
from genie_eval.metrics import plain
from genie_eval.resampling import interval, permutation_p

OUT = Path(__file__).parents[1] / "eval" / "reference" / "calibration.json"
K, LENGTH = 8, 40
COVERAGE_DRAWS = {200: 1000, 100: 400, 40: 400}  # trajectories -> draws
FALSE_POSITIVE_DRAWS = {200: 400, 100: 200, 40: 200}
BOOTSTRAP = 1000
SWAPS = 199
TRUTH = (20, 4000)  # samples, and trajectories of each, that give the true values
ALPHA = 0.05
COVERAGE, MAX_FALSE = (0.92, 0.97), 0.08  # required at 200 trajectories
Codes = Int[np.ndarray, " M"]


@dataclass(frozen=True)
class Case:
    """Synthetic trajectories (`planted`: arguments of `planted_transitions`) and a function that gives their codes."""

    about: str
    planted: dict[str, Any]
    codes: Callable[[Transitions, int], Codes]


def noisy(table: Transitions, seed: int) -> Codes:
    return with_label_noise(_motion_codes(table), 0.2, K, seed)


def mixed(table: Transitions, seed: int) -> Codes:
    """Half of the trajectories have 5 % label noise, half 60 %; 15 % have their own permutation of the codes."""
    rng = np.random.default_rng(seed)
    share = rng.choice([0.05, 0.6], size=table.num_trajectories)[table.trajectory]
    codes = np.where(rng.random(len(share)) < share, rng.integers(K, size=len(share)), _motion_codes(table))
    private = (rng.random(table.num_trajectories) < 0.15)[table.trajectory]
    return np.where(private, permuted_per_trajectory(codes, table, K, seed), codes)


def dwelling(table: Transitions, seed: int) -> Codes:
    return autocorrelated_codes(table.num_trajectories, LENGTH, K, seed=seed)


def phase_locked(table: Transitions, seed: int) -> Codes:
    """Dwelling codes plus a phase profile that all trajectories share, as motion has one."""
    return (dwelling(table, seed) + (table.phase * 4).astype(np.int64)) % K


RELATED = {
    "noisy": Case("k-means codes of motion, 20 % label noise", {}, noisy),
    "mixed": Case(
        "half of the trajectories 5 %, half 60 % label noise; 15 % with permuted codes", {"style": 0.6}, mixed
    ),
}
UNRELATED = {
    "dwelling": Case("codes that dwell, independent of motion", {}, dwelling),
    "phase_locked": Case("the same, plus a phase profile as motion has", {}, phase_locked),
}


def calibrate(
    coverage_draws: dict[int, int] = COVERAGE_DRAWS, false_positive_draws: dict[int, int] = FALSE_POSITIVE_DRAWS,
    truth: tuple[int, int] = TRUTH, seed: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """{"coverage": [...], "false_positives": [...]}: a row per case and number of trajectories."""
    coverage, false_positives = [], []
    for name, case in RELATED.items():
        values = [_values(*_sample(case, truth[1], 10**6 + seed + s, draws=1)) for s in range(truth[0])]
        true = np.mean(values, axis=0)
        for trajectories, times in coverage_draws.items():
            row = _coverage(case, true, trajectories, times, seed)
            coverage.append({"case": name, "about": case.about, "trajectories": trajectories, "draws": times, **row})
    for name, case in UNRELATED.items():
        for trajectories, times in false_positive_draws.items():
            row = _false_positives(case, trajectories, times, seed)
            false_positives.append(
                {"case": name, "about": case.about, "trajectories": trajectories, "draws": times, **row}
            )
    return plain({"coverage": coverage, "false_positives": false_positives})


def _coverage(case: Case, true: np.ndarray, trajectories: int, times: int, seed: int) -> dict[str, Any]:
    hits: dict[str, list[Any]] = {name: [] for name in ("grounding_r2", "ctc", "codes", "percentile_r2")}
    value, width = [], []
    for repeat in range(times):
        statistics, codes = _sample(case, trajectories, seed + repeat, BOOTSTRAP)
        drawn, reading = interval(statistics.r2_draws(codes)), statistics.ctc(codes)
        ci = statistics.r2_interval(codes)
        ctc_ci = np.full(2, np.nan) if reading.ci95 is None else reading.ci95
        hits["grounding_r2"].append(ci[0] <= true[0] <= ci[1])
        hits["percentile_r2"].append(drawn[0] <= true[0] <= drawn[1])
        hits["ctc"].append(ctc_ci[0] <= true[1] <= ctc_ci[1])
        known = [(c, t) for c, t in zip(reading.code_ci95, true[2:], strict=True) if c is not None]
        hits["codes"] += [c[0] <= t <= c[1] for c, t in known]
        value.append((statistics.r2(codes), np.nan if reading.value is None else reading.value))
        width.append((np.ptp(ci), np.ptp(ctc_ci)))
    return {
        **{name: np.mean(found) for name, found in hits.items()},
        "true": {"grounding_r2": true[0], "ctc": true[1]},
        "mean": dict(zip(("grounding_r2", "ctc"), np.nanmean(value, axis=0), strict=True)),
        "width": dict(zip(("grounding_r2", "ctc"), np.nanmean(width, axis=0), strict=True)),
    }


def _false_positives(case: Case, trajectories: int, times: int, seed: int) -> dict[str, Any]:
    from scipy.stats import kstest

    p: dict[str, list[float]] = {"grounding_r2": [], "ctc": []}
    undefined = 0
    for repeat in range(times):
        statistics, codes = _sample(case, trajectories, seed + repeat, BOOTSTRAP)
        p["grounding_r2"].append(permutation_p(statistics.r2(codes), statistics.r2_swap_null(codes, SWAPS)))
        p["ctc"].append(permutation_p(statistics.across(codes), statistics.across_swap_null(codes, SWAPS)))
        undefined += statistics.ctc(codes).value is None
    return {
        **{name: np.mean(np.array(values) <= ALPHA) for name, values in p.items()},
        "uniform_p": {name: kstest(values, "uniform").pvalue for name, values in p.items()},
        "ctc_undefined": undefined / times,
    }


def _sample(case: Case, trajectories: int, seed: int, draws: int) -> tuple[MotionStatistics, Codes]:
    table = planted_transitions(trajectories, LENGTH, seed=seed, **case.planted)
    return MotionStatistics(table, "base", K, draws, seed), case.codes(table, seed + 10**7)


def _values(statistics: MotionStatistics, codes: Codes) -> np.ndarray:
    """R2, CTC, and the CTC of each code."""
    once = statistics.consistency(codes)
    ratio = once.across / once.within
    return np.concatenate([[statistics.r2(codes)], ratio, once.code_across[0] / once.code_within[0]])


@functools.cache
def _motion_centers() -> Float[np.ndarray, "K D"]:
    return k_means(planted_transitions(1000, LENGTH, seed=10**8).motions["base"], K)


def _motion_codes(table: Transitions) -> Codes:
    """Nearest k-means center of the motion; the centers are the same in every draw."""
    return nearest_center(table.motions["base"], _motion_centers())


def table_of(result: dict[str, Any]) -> str:
    """The result as two Markdown tables."""
    lines = [
        "Written by `python -m tools.calibration`. Synthetic data, 95 % intervals. "
        f"Required at 200 trajectories: coverage {COVERAGE[0]:.0%} to {COVERAGE[1]:.0%}, "
        f"false positives at most {MAX_FALSE:.0%}.",
        "",
        "| codes | trajectories | draws | coverage of `grounding_r2` | with plain percentiles | coverage of `ctc` "
        "| of each code's CTC |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in result["coverage"]:
        lines.append(
            f"| {row['about']} | {row['trajectories']} | {row['draws']} | {row['grounding_r2']:.1%} "
            f"| {row['percentile_r2']:.1%} | {row['ctc']:.1%} | {row['codes']:.1%} |"
        )
    lines += [
        "",
        "| codes | trajectories | draws | p of `grounding_r2` <= 0.05 | p of `ctc` <= 0.05 | CTC undefined |",
        "|---|---|---|---|---|---|",
    ]
    for row in result["false_positives"]:
        lines.append(
            f"| {row['about']} | {row['trajectories']} | {row['draws']} | {row['grounding_r2']:.1%} "
            f"| {row['ctc']:.1%} | {row['ctc_undefined']:.1%} |"
        )
    return "\n".join(lines) + "\n"


def main(out: Path = OUT) -> None:
    """out: JSON file; a .md table of the same name is written next to it."""
    started = time.perf_counter()
    result = calibrate()
    result |= {"bootstrap_draws": BOOTSTRAP, "swaps": SWAPS, "seconds": round(time.perf_counter() - started)}
    out.write_text(json.dumps(result, indent=1) + "\n")
    out.with_suffix(".md").write_text(table_of(result))
    print(table_of(result))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
