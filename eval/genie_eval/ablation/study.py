"""What a study is: a list of variants, each a few fields of the configuration changed, and what is asked of them."""

import dataclasses
import json
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genie_datasets.base.errors import UserError

STAGES = ("tokenizer", "latent_action", "dynamics", "joint")
GROUPS = ("codes", "dreams", "commands", "losses")
"""Of metrics: see genie_eval.ablation.measure."""
AXES = ("parameters", "episodes", "batch")
"""Along which a study can draw its metrics: of what is trained, of the training split, clips a step."""
NAME = re.compile(r"[A-Za-z0-9][\w.=+%-]*")


@dataclass(frozen=True)
class Variant:
    name: str
    what: str = ""
    """What is changed, in a few words."""
    set: dict[str, Any] = field(default_factory=dict)
    """Dotted fields of GenieConfig, and of TrainingConfig behind `training.`, with their values."""
    labels: float = 0.0
    """Share of the training transitions whose true action is told (`train --labels`)."""
    init: str = ""
    """A run whose weights training begins with (`train --init`); {seed} in it stands for the seed."""
    mode: str | None = None
    """Of training; the study's, where none is given."""
    steps: dict[str, float] = field(default_factory=dict)
    """Stage -> its steps as a share of the study's; 1 where none is given."""
    episodes: int | None = None
    """How many of the training split's episodes, drawn anew for every seed; all, where none is given."""


@dataclass(frozen=True)
class Study:
    name: str
    variants: tuple[Variant, ...]
    question: str = ""
    reference: str = ""
    """The variant that all others are compared with; the first, where none is given."""
    stages: tuple[str, ...] = ("latent_action",)
    """What every variant and seed trains for itself. What else they need is trained once and shared by all that want
    it alike."""
    measure: tuple[str, ...] = ("codes",)
    preset: str = "nano"
    mode: str = "frozen"
    set: dict[str, Any] = field(default_factory=dict)
    """Fields that all variants share."""
    steps: int = 1000
    """Optimizer steps of every stage, where --steps says nothing."""
    axes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Axis -> the variants that lie on it: lines are fitted to their metrics against its logarithm."""

    def __post_init__(self) -> None:
        names = [variant.name for variant in self.variants]
        if not names:
            raise ValueError("it has no variants")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two variants are called '{twice[0]}'")
        for name in names:
            if not NAME.fullmatch(name):
                raise ValueError(f"'{name}' cannot be a folder's name: letters, digits and _ . = + % - only")
        if not self.reference:
            object.__setattr__(self, "reference", names[0])
        if self.reference not in names:
            raise ValueError(f"its reference '{self.reference}' is none of its variants")
        for what, known, given in (("stage", STAGES, self.stages), ("group of metrics", GROUPS, self.measure)):
            strange = [name for name in given if name not in known]
            if strange or not given:
                raise ValueError(f"no {what} '{strange[0] if strange else ''}'; there are: {', '.join(known)}")
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, not {self.steps}")
        for variant in self.variants:
            if not 0 <= variant.labels <= 1:
                raise ValueError(f"{variant.name}: labels is a share, 0 .. 1, not {variant.labels:g}")
            if variant.episodes is not None and variant.episodes < 1:
                raise ValueError(f"{variant.name}: episodes must be at least 1, not {variant.episodes}")
            wrong = [stage for stage, share in variant.steps.items() if stage not in STAGES or not share > 0]
            if wrong:
                raise ValueError(f"{variant.name}: steps of '{wrong[0]}' must be a share above 0 of a stage")

        for axis, members in self.axes.items():
            if axis not in AXES:
                raise ValueError(f"no axis '{axis}'; there are: {', '.join(AXES)}")
            absent = [name for name in members if name not in names]
            if absent or len(set(members)) < 3:
                what = f"'{absent[0]}' is none of its variants" if absent else "a line needs three variants"
                raise ValueError(f"axis {axis}: {what}")

    def variant(self, name: str) -> Variant:
        for variant in self.variants:
            if variant.name == name:
                return variant
        raise UserError(f"study {self.name} has no variant '{name}': {', '.join(v.name for v in self.variants)}")


def read_study(path: Path) -> Study:
    """A study of the user's own, from a .json or .toml file with the fields of `Study`; its name is the file's.

    Raises:
        UserError: not such a file, a field that does not exist, or a value that cannot be.
    """
    try:
        text = path.read_text()
        values = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): give a study's .json or .toml file") from None
    except ValueError as error:
        raise UserError(f"{path} is neither JSON nor TOML ({error}): mend it") from None
    if not isinstance(values, dict) or not isinstance(values.get("variants"), list):
        raise UserError(f"{path} holds no study: it needs a list `variants`, each with a name")
    values = {"name": path.stem, **values}
    try:
        variants = tuple(_made(Variant, entry, str(path)) for entry in values["variants"])
        return _made(Study, {**values, "variants": variants}, str(path))
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None


def _made(cls: Any, values: Any, where: str) -> Any:
    if not isinstance(values, dict):
        raise UserError(f"{where}: {values!r} is no table of fields")
    known = {f.name: f for f in dataclasses.fields(cls)}
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise UserError(f"{where}: unknown field '{unknown[0]}'; a {cls.__name__.lower()} has {', '.join(known)}")
    if "name" not in values:
        raise UserError(f"{where}: a variant has no name")
    kinds: dict[str, Any] = {
        "name": str, "what": str, "set": dict, "labels": int | float, "mode": str, "init": str, "question": str,
        "reference": str,
        "preset": str, "stages": list, "measure": list, "variants": tuple, "steps": int if cls is Study else dict,
        "episodes": int, "axes": dict,
    }  # fmt: skip
    if isinstance(values.get("axes"), dict) and not all(isinstance(names, list) for names in values["axes"].values()):
        raise UserError(f'{where}: axes must give a list of variants each, such as {{"episodes": ["few", "all"]}}')
    for name, value in values.items():
        if not isinstance(value, kinds[name]) or isinstance(value, bool):
            raise UserError(f"{where}: {name} cannot be {value!r}")
    return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
