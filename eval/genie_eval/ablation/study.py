"""A study: a list of variants, each with a few configuration fields changed, and the metrics to compare them by."""

import dataclasses
import json
import re
import tomllib
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genie_datasets.base.errors import UserError

STAGES = ("tokenizer", "latent_action", "dynamics", "joint")
GROUPS = ("codes", "dreams", "commands", "losses")
"""Groups of metrics; `genie_eval.ablation.measure` lists the metrics of each."""
AXES = ("parameters", "episodes", "batch")
"""Quantities that a trend can be fitted against: parameters trained, training episodes, clips per step."""
FOLDER_NAME = re.compile(r"[A-Za-z0-9][\w.=+%-]*")


@dataclass(frozen=True)
class Variant:
    name: str
    what: str = ""
    """Description of the change in a few words."""
    set: dict[str, Any] = field(default_factory=dict)
    """Dotted fields of GenieConfig, or of TrainingConfig after the prefix `training.`, and their values."""
    labels: float = 0.0
    """Fraction of the training transitions whose true action is given (`train --labels`)."""
    init: str = ""
    """Run whose weights training starts from (`train --init`); {seed} in it stands for the seed."""
    mode: str | None = None
    """Training mode (default: the study's)."""
    steps: dict[str, float] = field(default_factory=dict)
    """Stage -> its steps as a fraction of the study's steps (default: 1)."""
    episodes: int | None = None
    """Number of training episodes, drawn with the trial's seed (default: all)."""


@dataclass(frozen=True)
class Study:
    """Raises ValueError if its fields contradict each other."""

    name: str
    variants: tuple[Variant, ...]
    question: str = ""
    reference: str = ""
    """Variant that the others are compared with (default: the first)."""
    stages: tuple[str, ...] = ("latent_action",)
    """Stages that every trial trains itself. Other components that it needs are trained once and shared by all trials
    with the same configuration of them."""
    measure: tuple[str, ...] = ("codes",)
    """Groups of metrics."""
    preset: str = "nano"
    mode: str = "frozen"
    set: dict[str, Any] = field(default_factory=dict)
    """Fields that all variants share, as in `Variant.set`."""
    steps: int = 1000
    """Optimizer steps of every stage, unless --steps is given."""
    axes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Axis -> the variants on it: their metrics are fitted against the logarithm of the axis."""

    def __post_init__(self) -> None:
        if not self.variants:
            raise ValueError("it has no variants")
        if not self.reference:
            object.__setattr__(self, "reference", self.variants[0].name)
        self._check_names()
        _check_known("stage", self.stages, STAGES)
        _check_known("group of metrics", self.measure, GROUPS)
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")
        for variant in self.variants:
            _check_variant(variant)
        for axis, members in self.axes.items():
            self._check_axis(axis, members)

    def _check_names(self) -> None:
        names = [variant.name for variant in self.variants]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"two variants are called '{repeated[0]}'; each needs a name of its own")
        for name in names:
            if not FOLDER_NAME.fullmatch(name):
                raise ValueError(f"'{name}' cannot be a folder's name; use letters, digits and _ . = + % - only")
        if self.reference not in names:
            raise ValueError(f"unknown reference '{self.reference}'; its variants are: {', '.join(names)}")

    def _check_axis(self, axis: str, members: Collection[str]) -> None:
        if axis not in AXES:
            raise ValueError(f"unknown axis '{axis}'; expected one of: {', '.join(AXES)}")
        names = [variant.name for variant in self.variants]
        for name in members:
            if name not in names:
                raise ValueError(f"axis {axis}: unknown variant '{name}'; its variants are: {', '.join(names)}")
        if len(set(members)) < 3:
            raise ValueError(f"axis {axis} has {len(set(members))} variants; a line needs at least three")

    def variant(self, name: str) -> Variant:
        for variant in self.variants:
            if variant.name == name:
                return variant
        names = ", ".join(variant.name for variant in self.variants)
        raise UserError(f"study {self.name} has no variant '{name}'; its variants are: {names}")


def _check_known(what: str, given: Collection[str], known: Collection[str]) -> None:
    unknown = [name for name in given if name not in known]
    if unknown or not given:
        raise ValueError(f"unknown {what} '{unknown[0] if unknown else ''}'; expected one of: {', '.join(known)}")


def _check_variant(variant: Variant) -> None:
    if not 0 <= variant.labels <= 1:
        raise ValueError(f"{variant.name}: labels must be a fraction from 0 to 1, got {variant.labels:g}")
    if variant.episodes is not None and variant.episodes < 1:
        raise ValueError(f"{variant.name}: episodes must be at least 1, got {variant.episodes}")
    for stage, share in variant.steps.items():
        if stage not in STAGES:
            raise ValueError(f"{variant.name}: unknown stage '{stage}' in steps; expected one of: {', '.join(STAGES)}")
        if not share > 0:
            raise ValueError(f"{variant.name}: steps of {stage} must be a fraction above 0, got {share}")


def read_study(path: Path) -> Study:
    """Reads a study from a .json or .toml file with the fields of `Study`; its name is the file's unless given.

    Raises:
        UserError: the file cannot be read, has an unknown field, or a value of a wrong type or range.
    """
    try:
        text = path.read_text()
        values = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); give the .json or .toml file of a study") from None
    except ValueError as error:
        raise UserError(f"{path} is neither JSON nor TOML ({error}); fix this and rerun the command") from None
    if not isinstance(values, dict) or not isinstance(values.get("variants"), list):
        raise UserError(f"{path} holds no study; expected a list `variants`, each with a name")
    values = {"name": path.stem, **values}
    try:
        variants = tuple(_build(Variant, entry, str(path)) for entry in values["variants"])
        return _build(Study, {**values, "variants": variants}, str(path))
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None


def _build(cls: Any, values: Any, where: str) -> Any:
    """A Study or Variant of parsed values."""
    if not isinstance(values, dict):
        raise UserError(f"{where}: expected a table of fields, got {values!r}")
    known = {f.name: f for f in dataclasses.fields(cls)}
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise UserError(f"{where}: unknown field '{unknown[0]}'; a {cls.__name__.lower()} has {', '.join(known)}")
    if "name" not in values:
        raise UserError(f"{where}: a variant has no name; give each one")
    types: dict[str, Any] = {
        "name": str, "what": str, "set": dict, "labels": int | float, "mode": str, "init": str, "question": str,
        "reference": str,
        "preset": str, "stages": list, "measure": list, "variants": tuple, "steps": int if cls is Study else dict,
        "episodes": int, "axes": dict,
    }  # fmt: skip
    if isinstance(values.get("axes"), dict) and not all(isinstance(names, list) for names in values["axes"].values()):
        raise UserError(f'{where}: axes must give a list of variants each, such as {{"episodes": ["few", "all"]}}')
    for name, value in values.items():
        if not isinstance(value, types[name]) or isinstance(value, bool):
            kind = types[name].__name__ if isinstance(types[name], type) else "number"
            raise UserError(f"{where}: {name} must be of type {kind}, got {value!r}")
    return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
