"""Details of codes beside the metrics, for `details` in report.json."""

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from genie_eval.codes.agreement import consistency_details
from genie_eval.codes.information import grounding_details
from genie_eval.codes.probe import probe
from genie_eval.codes.transitions import Transitions
from genie_eval.codes.usage_stats import codebook_details
from genie_eval.metrics import plain
from genie_eval.resampling import DRAWS

Codes = Int[np.ndarray, " M"]


def code_details(
    table: Transitions,
    codes: Codes,
    num_codes: int,
    oracle: Codes | None = None,
    embedding: Float[np.ndarray, "M E"] | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Any]:
    """{"codebook", "grounding", "probe", "consistency"} in JSON types; what cannot be computed holds a "reason".

    oracle: k-means codes of true base motion. embedding: output of the model before quantization, a row per transition.
    """
    return plain(
        {
            "codebook": codebook_details(table, codes, num_codes, seed),
            "grounding": grounding_details(table, codes, num_codes, oracle, seed),
            "probe": (
                {"reason": "these codes come without the embedding that was quantized"}
                if embedding is None
                else probe(table, embedding, codes, num_codes, seed)
            ),
            "consistency": consistency_details(table, codes, num_codes, draws, seed),
        }
    )
