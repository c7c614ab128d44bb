"""Configuration of a whole model, and how configurations are read and written as JSON."""

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_type_hints

import numpy as np

from genie_datasets.base.errors import UserError
from genie_robotics.models.dynamics import DynamicsConfig
from genie_robotics.models.latent_action import LatentActionConfig
from genie_robotics.models.video_tokenizer import TokenizerConfig

T = TypeVar("T")
COMPONENTS = ("tokenizer", "latent_action", "dynamics")


@dataclass
class GenieConfig:
    """Sizes shared by the three components, and each component's own. `resolved()` makes them agree."""

    GROUP: ClassVar[str] = "model"  # heading in --help

    preset: str = "custom"
    """Named sizes that the other fields start from: nano, small, coinrun, robotics_1b, robotics_2_5b, platformers_11b,
    scale_41m .. scale_2_7b."""
    image_size: tuple[int, int] = (64, 64)
    """Height and width in pixels that the models see."""
    fit: str = "crop"
    """How images of another size are fitted: crop (the center) or letterbox."""
    clip_length: int = 16
    """Frames T of a clip (Genie: 16)."""
    gap: float | None = None
    """Seconds between the frames of a clip (default: consecutive frames)."""
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    latent_action: LatentActionConfig = field(default_factory=LatentActionConfig)
    dynamics: DynamicsConfig = field(default_factory=DynamicsConfig)

    @property
    def num_actions(self) -> int:
        return self.latent_action.quantizer.num_codes

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the dynamics' patches."""
        height, width = self.image_size
        return height // self.tokenizer.patch_size, width // self.tokenizer.patch_size

    def resolved(self) -> "GenieConfig":
        """A copy whose components agree on image size, clip length, tokens and action width.

        Raises:
            UserError: the image size is not a multiple of a patch size, or the clip is shorter than two frames.
        """
        self._check()
        height, width = (int(side) for side in self.image_size)
        shared: dict[str, Any] = {"image_size": (height, width), "clip_length": int(self.clip_length)}
        tokenizer = dataclasses.replace(self.tokenizer, **shared)
        latent_action = dataclasses.replace(self.latent_action, **shared)
        dynamics = dataclasses.replace(
            self.dynamics,
            num_patches=(height // tokenizer.patch_size) * (width // tokenizer.patch_size),
            num_tokens=tokenizer.quantizer.num_codes,
            context_dim=0 if tokenizer.reference == "none" else 2 * 3 * tokenizer.patch_size**2,
            action_dim=latent_action.quantizer.latent_dim,
            clip_length=shared["clip_length"],
        )
        return dataclasses.replace(self, **shared, tokenizer=tokenizer, latent_action=latent_action, dynamics=dynamics)

    def _check(self) -> None:
        height, width = self.image_size
        if self.clip_length < 2:
            raise UserError(f"--clip-length must be at least 2 frames, got {self.clip_length}")
        if self.gap is not None and not 0 < self.gap < math.inf:
            raise UserError(f"--gap must be above 0 seconds, got {self.gap:g}")
        if min(self.image_size) < 1:
            raise UserError(f"--image-size must be at least 1x1, got {height}x{width}")
        if self.fit not in ("crop", "letterbox"):
            raise UserError(f"--fit must be crop or letterbox, got {self.fit}")
        if self.tokenizer.reference_span < 0:
            raise UserError(f"--tokenizer.reference-span must be at least 0, got {self.tokenizer.reference_span}")
        if self.tokenizer.reference != "none" and self.latent_action.frame_space == "tokens":
            raise UserError(
                "--tokenizer.reference start cannot be combined with --latent-action.frame-space tokens, whose tokens "
                "must mean the same in every clip; leave one of them out"
            )
        for name, part in (("tokenizer", self.tokenizer), ("latent-action", self.latent_action)):
            if part.patch_size < 1:
                raise UserError(f"--{name}.patch-size must be at least 1, got {part.patch_size}")
            if part.quantizer.num_codes < 2 or part.quantizer.latent_dim < 1:
                raise UserError(f"--{name}.quantizer needs num-codes of at least 2 and latent-dim of at least 1")
            if height % part.patch_size or width % part.patch_size:
                raise UserError(
                    f"--image-size must be a multiple of --{name}.patch-size {part.patch_size}, got {height}x{width}; "
                    "choose another of the two"
                )


def to_dict(config: Any) -> dict[str, Any]:
    """Entries of a dataclass by name, with Python's numbers in place of numpy's."""
    return dataclasses.asdict(config, dict_factory=lambda entries: {name: _plain(value) for name, value in entries})


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_plain(entry) for entry in value)
    return value.item() if isinstance(value, np.generic) else value


def from_dict(cls: type[T], values: dict[str, Any], where: str) -> T:
    """Builds the dataclass `cls` from parsed JSON, strictly.

    Raises:
        UserError: an entry is unknown or has a wrong type; `where` names the file.
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
    """The object in a JSON file; raises UserError if the file is missing or holds no JSON object."""
    try:
        values = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path} is missing; expected a run folder whose training has written it") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not readable JSON ({error}); restore it or retrain") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} does not hold a JSON object; restore it or retrain")
    return values
