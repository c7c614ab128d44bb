"""Metrics of each token alone, where a latent action has several tokens."""

from typing import Any

import numpy as np

from genie_eval.codes.code_sums import usage
from genie_eval.codes.codebook import perplexity
from genie_eval.codes.motion_statistics import MotionStatistics
from genie_eval.codes.quantize import k_means, nearest_center
from genie_eval.codes.transitions import Transitions
from genie_eval.metrics import plain, skill
from genie_eval.resampling import interval

MAX_TOKENS = 16
SWAPS = 99  # only the mean over swaps is needed
MAX_VALUES = 256


def by_token(table: Transitions, tokens: np.ndarray, draws: int, seed: int) -> list[dict[str, Any]]:
    """One object per token position, for `details.tokens` in report.json; a "reason" replaces what cannot be measured.

    tokens: (M, G) integers.
    """
    rows: list[dict[str, Any]] = []
    problem = table.why_unusable("base")
    for g in range(min(tokens.shape[1], MAX_TOKENS)):
        distinct, codes = np.unique(tokens[:, g], return_inverse=True)
        codes, size = codes.reshape(-1), len(distinct)
        row: dict[str, Any] = {"position": g, "num_codes": size}
        row["perplexity"] = float(perplexity(usage(codes, table.trajectory, size).sum(axis=0)))
        rows.append(row)
        if problem or size == 1 or size > MAX_VALUES:
            row["reason"] = problem or ("it is constant" if size == 1 else f"it has more than {MAX_VALUES} values")
            continue
        statistics = MotionStatistics(table, "base", size, draws, seed)
        oracle = nearest_center(statistics.scored, k_means(statistics.scored, size, seed))
        value, best = statistics.r2(codes), statistics.r2(oracle)
        null = float(statistics.r2_swap_null(codes, SWAPS).mean())
        reading = statistics.ctc(codes)
        row |= {
            "grounding_r2": value, "null": null, "oracle": best, "skill": skill(value, null, best),
            "ci95": interval(statistics.r2_draws(codes)), "ctc": reading.value, "ctc_ci95": reading.ci95,
        }  # fmt: skip
        if reading.value is None:
            row["reason"] = f"ctc undefined: {reading.reason}"
    return plain(rows)
