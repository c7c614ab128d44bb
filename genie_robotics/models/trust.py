"""Trust: the probability that a dreamed frame is right, from signs that cost little to read.

The signs are the length of the dream, how much of the start picture has changed, how unsure the dynamics was of its
tokens, and whether the tokenizer recognizes its own frame. A logistic regression makes a probability of them. It is
calibrated on dreams whose true future a simulator knows (`genie_eval.dreams.trust`), and its coefficients are in
RUN/trust.json.
"""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from genie_datasets.base.errors import UserError
from genie_datasets.base.files import write_atomically
from genie_robotics.models.config import read_json
from genie_robotics.models.video_tokenizer import VideoTokenizer

FILE = "trust.json"
SCHEMA_VERSION = 1
SIGNS = ("steps", "change", "surprise", "round_trip")
"""Signs in the order of `read_signs`."""
MAKE = "python -m genie_eval.dreams.trust RUN SRC, where SRC is a data set of the simulated tabletop"


@dataclass(frozen=True)
class TrustModel:
    """A logistic regression from signs to the probability that a frame is right. Lists have one entry per sign."""

    mean: tuple[float, ...]
    scale: tuple[float, ...]
    """A sign counts as (sign - mean) / scale."""
    weights: tuple[float, ...]
    bias: float
    calibration: dict[str, Any] = field(default_factory=dict)
    """The dreams on which it was fitted."""

    def probability(self, signs: Float[Tensor, "B S"]) -> Float[Tensor, "B"]:
        mean, scale, weights = (signs.new_tensor(values) for values in (self.mean, self.scale, self.weights))
        return torch.sigmoid((signs - mean) / scale @ weights + self.bias)

    def write(self, run: Path) -> None:
        """Writes RUN/trust.json."""
        content = {"schema_version": SCHEMA_VERSION, "signs": SIGNS, **asdict(self)}
        write_atomically(run / FILE, json.dumps(content, indent=1, allow_nan=False).encode())


def trust_or_error(model: TrustModel | None) -> TrustModel:
    """The model; raises UserError if there is none."""
    if model is None:
        raise UserError(f"this world has no {FILE}, from which trust is computed; make it with {MAKE}")
    return model


def read_trust(run: Path) -> TrustModel | None:
    """The content of RUN/trust.json; None without such a file.

    Raises:
        UserError: the file is damaged, or of another version.
    """
    path = run / FILE
    if not path.exists():
        return None
    remedy = f"delete it, or make it again with {MAKE}"
    try:
        stored = read_json(path)
    except UserError as error:
        raise UserError(f"{str(error).rpartition('; ')[0]}; {remedy}") from None
    expected = {"schema_version", "signs", "mean", "scale", "weights", "bias", "calibration"}
    if stored.get("schema_version") != SCHEMA_VERSION or stored.get("signs") != list(SIGNS):
        raise UserError(
            f"{path} has schema version {stored.get('schema_version')} and signs {stored.get('signs')}, expected "
            f"version {SCHEMA_VERSION} and {list(SIGNS)}; {remedy}"
        )
    if set(stored) != expected:
        differing = ", ".join(sorted(set(stored) ^ expected))
        raise UserError(f"{path} has missing or unknown entries ({differing}), expected {sorted(expected)}; {remedy}")
    lists = {name: stored[name] for name in ("mean", "scale", "weights")}
    for name, values in [*lists.items(), ("bias", [stored["bias"]])]:
        num = 1 if name == "bias" else len(SIGNS)
        right = isinstance(values, list) and len(values) == num and all(is_number(value) for value in values)
        if not right or (name == "scale" and min(values) <= 0):
            kind = "positive finite numbers" if name == "scale" else "finite numbers"
            raise UserError(f"{path} has {name} {values}, expected {num} {kind}; {remedy}")
    if not isinstance(stored["calibration"], dict):
        raise UserError(f"{path} has calibration {stored['calibration']!r}, expected an object; {remedy}")
    return TrustModel(
        **{name: tuple(map(float, values)) for name, values in lists.items()},
        bias=float(stored["bias"]),
        calibration=stored["calibration"],
    )


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


@torch.no_grad()
def read_signs(
    tokenizer: VideoTokenizer,
    frame: UInt8[Tensor, "B H W 3"],
    tokens: Int[Tensor, "B N"],
    log_prob: Float[Tensor, "B"],
    num_generated: int,
    reference: UInt8[Tensor, "B H W 3"],
) -> Float[Tensor, "B S"]:
    """The signs of a frame and its tokens.

    steps: log(1 + steps since the start). change: log(1 + mean squared distance to the start picture, in gray levels).
    surprise: minus the mean log-probability of the tokens. round_trip: share of the tokens that change when the frame
    alone is encoded again.
    """
    distance = (frame.float() - reference.float()).square().mean(dim=(1, 2, 3))
    again = tokenizer.encode(frame.unsqueeze(1), reference)[:, 0]
    steps = torch.full_like(distance, math.log1p(num_generated))
    return torch.stack([steps, distance.log1p(), -log_prob.float(), (again != tokens).float().mean(-1)], dim=-1)
