"""Stability of the codes under JPEG compression and under the model's own tokenizer (level A).

Dreams consist of what the tokenizer draws: codes that change when the tokenizer reconstructs the frames cannot be read
back from dreams either, so that this is the ceiling of all judges of dreams.
"""

from typing import Any

import numpy as np

from genie_eval.collect import to_numpy
from genie_eval.inference.nuisances import compressed
from genie_eval.inference.sample import Sample, share_of

MARK = 0.85
QUALITY = 75  # of the JPEG


def stability(sample: Sample) -> dict[str, Any]:
    """name -> {value: share of unchanged codes, ci95, mark, pass} for `jpeg` and `tokenizer`."""
    same = []
    for i in sample.each("round trips"):
        frames, codes = sample.frames(i), sample.codes[sample.rows(i)]
        rebuilt = to_numpy(sample.genie.reconstruct(frames[None]))[0]
        after = sample.infer(np.stack([compressed(frames, QUALITY), rebuilt]))
        same.append(after == codes)
    result = {}
    for name, hits in zip(("jpeg", "tokenizer"), np.concatenate(same, axis=1), strict=True):
        found = share_of(hits, sample.table.trajectory, len(sample), sample.seed)
        result[name] = {**found.as_json(), "mark": MARK, "pass": found.value >= MARK}
    return result
