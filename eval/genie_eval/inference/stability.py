"""Do codes survive a round trip of the picture: through JPEG, and through the model's own tokenizer?

The dream is made of what the tokenizer draws, so codes that the tokenizer's redrawing changes cannot be read back from
dreams either: this is the ceiling of every judge of dreams. (Eight bits are a moot trip here: frames are uint8.)
(specification, level A)
"""

from typing import Any

import numpy as np

from genie_eval.collect import to_numpy
from genie_eval.inference.nuisances import compressed
from genie_eval.inference.sample import Sample, share_of

PASS = 0.85
QUALITY = 75  # of the JPEG


def stability(sample: Sample) -> dict[str, Any]:
    """name -> {value: share of codes unchanged, ci95, mark, pass} for `jpeg` and `tokenizer`."""
    same: dict[str, list[np.ndarray]] = {"jpeg": [], "tokenizer": []}
    for i in sample.each("round trips"):
        frames, codes = sample.frames(i), sample.codes[sample.rows(i)]
        redrawn = to_numpy(sample.genie.detokenize(sample.genie.tokenize(frames[None])))[0]
        after = sample.infer(np.stack([compressed(frames, QUALITY), redrawn]))
        for name, new in zip(same, after, strict=True):
            same[name].append(new == codes)
    result = {}
    for name, hits in same.items():
        found = share_of(np.concatenate(hits), sample.table.trajectory, len(sample), sample.seed)
        result[name] = {**found.as_json(), "mark": PASS, "pass": found.value >= PASS}
    return result
