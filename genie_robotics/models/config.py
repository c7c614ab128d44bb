"""The resolved configuration of a whole model, as it is stored in a run folder."""

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import numpy as np

from genie_datasets.base.errors import UserError
from genie_robotics.models.dynamics import DynamicsConfig
from genie_robotics.models.latent_action import LatentActionConfig
from genie_robotics.models.quantizers.config import CodebookConfig
from genie_robotics.models.video_tokenizer import TokenizerConfig

T = TypeVar("T")
COMPONENTS = ("tokenizer", "latent_action", "dynamics")


@dataclass
class GenieConfig:
    """Sizes shared by the three components, and the components' own. `resolved()` makes them agree."""

    preset: str = "custom"
    """nano, small, coinrun, robotics_1b, robotics_2_5b, platformers_11b, or of the scaling series (scale_41m to
    scale_2_7b); every other field starts from it."""
    image_size: tuple[int, int] = (64, 64)
    """(H, W) pixels that the models see."""
    fit: str = "crop"
    """How images of other sizes are fitted: centre 'crop' to the aspect, or 'letterbox'."""
    clip_length: int = 16
    """T, frames the models see at once (Genie: 16)."""
    gap: float | None = None
    """Seconds between the frames of a clip; none: consecutive frames."""
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    latent_action: LatentActionConfig = field(default_factory=LatentActionConfig)
    dynamics: DynamicsConfig = field(default_factory=DynamicsConfig)

    @property
    def num_actions(self) -> int:
        return self.latent_action.codebook.num_codes

    def resolved(self) -> "GenieConfig":
        """A copy whose components agree on image size, clip length, tokens and action width.

        Raises:
            UserError: the image size is not a multiple of a patch size, or the clip is shorter than two frames.
        """
        if self.clip_length < 2:
            raise UserError(f"a clip needs at least 2 frames, --clip-length is {self.clip_length}")
        if self.gap is not None and not 0 < self.gap < math.inf:
            raise UserError(f"--gap must be above 0 seconds, not {self.gap:g}")
        if min(self.image_size) < 1:
            raise UserError(f"--image-size must be at least 1 by 1, not {tuple(self.image_size)}")
        for name, part in (("tokenizer", self.tokenizer), ("latent-action", self.latent_action)):
            if part.patch < 1:
                raise UserError(f"--{name}.patch must be at least 1, not {part.patch}")
            if part.codebook.num_codes < 2 or part.codebook.latent_dim < 1:
                raise UserError(f"--{name}.codebook needs at least 2 codes of at least 1 number")
        if self.fit not in ("crop", "letterbox"):
            raise UserError(f"--fit must be crop or letterbox, not {self.fit}")
        height, width = (int(side) for side in self.image_size)
        shared: dict[str, Any] = {"image_size": (height, width), "clip_length": int(self.clip_length)}
        tokenizer = dataclasses.replace(self.tokenizer, **shared)
        latent_action = dataclasses.replace(self.latent_action, **shared)
        for name, part in (("tokenizer", tokenizer), ("latent action model", latent_action)):
            if height % part.patch or width % part.patch:
                raise UserError(
                    f"image size {height}x{width} is not a multiple of the {name}'s patch size {part.patch}; "
                    "choose another --image-size or patch"
                )
        dynamics = dataclasses.replace(
            self.dynamics,
            num_patches=(height // tokenizer.patch) * (width // tokenizer.patch),
            num_tokens=tokenizer.codebook.num_codes,
            action_dim=latent_action.codebook.latent_dim,
            clip_length=shared["clip_length"],
        )
        return dataclasses.replace(self, **shared, tokenizer=tokenizer, latent_action=latent_action, dynamics=dynamics)


def to_dict(config: Any) -> dict[str, Any]:
    """Its entries by name, with Python's numbers in place of numpy's, which JSON does not take."""
    return dataclasses.asdict(config, dict_factory=lambda entries: {name: plain(value) for name, value in entries})


def plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(plain(entry) for entry in value)
    return value.item() if isinstance(value, np.generic) else value


def from_dict(cls: type[T], values: dict[str, Any], where: str) -> T:
    """Builds the dataclass `cls` from parsed JSON, strictly.

    Raises:
        UserError: an unknown or missing-typed entry; `where` names the file.
    """
    hints = get_type_hints(cls)
    names = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - names)
    if unknown:
        raise UserError(f"{where}: unknown entry {', '.join(unknown)}; was it written by another version?")
    made = {}
    for name, value in values.items():
        if dataclasses.is_dataclass(hints[name]) and isinstance(value, dict):
            value = from_dict(hints[name], value, where)  # type: ignore[arg-type]
        made[name] = tuple(value) if isinstance(value, list) else value
    try:
        return cls(**made)
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: {error}") from error


def read_json(path: Path) -> dict[str, Any]:
    """Raises UserError when the file is missing or is not a JSON object."""
    try:
        values = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path} is missing: not a run folder, or its training has not got that far") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not readable JSON ({error}); restore it or train anew") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} does not hold a JSON object; restore it or train anew")
    return values


__all__ = ["CodebookConfig", "GenieConfig", "from_dict", "read_json", "to_dict"]
