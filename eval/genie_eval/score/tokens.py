"""What each token alone tells, where a latent action is several."""

from typing import Any

import numpy as np

from genie_eval.codes.codebook import perplexity, usage
from genie_eval.codes.motion_statistics import MotionAssay
from genie_eval.codes.nulls import k_means, nearest_centre
from genie_eval.codes.transitions import Transitions
from genie_eval.metric import plain, skill
from genie_eval.resampling import interval

MOST_TOKENS = 16
SWAPS = 99  # a swap is only needed for its mean
MOST_VALUES = 256


def by_token(table: Transitions, tokens: np.ndarray, draws: int, seed: int) -> list[dict[str, Any]]:
    """One object a token position: {"position", "num_codes", "perplexity", "grounding_r2", "null", "oracle", "skill",
    "ci95", "ctc", "ctc_ci95"}, "reason" in place of what cannot be asked."""
    rows: list[dict[str, Any]] = []
    problem = table.why_unusable("base")
    for g in range(min(tokens.shape[1], MOST_TOKENS)):
        distinct, codes = np.unique(tokens[:, g], return_inverse=True)
        codes, size = codes.reshape(-1), len(distinct)
        row: dict[str, Any] = {"position": g, "num_codes": size}
        row["perplexity"] = float(perplexity(usage(codes, table.trajectory, size).sum(axis=0)))
        rows.append(row)
        if problem or size == 1 or size > MOST_VALUES:
            row["reason"] = problem or ("always the same" if size == 1 else f"more than {MOST_VALUES} values")
            continue
        assay = MotionAssay(table, "base", size, draws, seed)
        oracle = nearest_centre(assay.scored, k_means(assay.scored, size, seed))
        value, best = assay.r2(codes), assay.r2(oracle)
        null = float(assay.r2_swap_null(codes, SWAPS).mean())
        reading = assay.ctc(codes)
        row |= {
            "grounding_r2": value, "null": null, "oracle": best, "skill": skill(value, null, best),
            "ci95": interval(assay.r2_draws(codes)), "ctc": reading.value, "ctc_ci95": reading.ci95,
        }  # fmt: skip
        if reading.value is None:
            row["reason"] = f"ctc undefined: {reading.reason}"
    return plain(rows)
