"""Turns a variant into a model configuration, a training configuration and the stages to train, strictly: an unknown
field is an error."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from genie_datasets.base.errors import UserError
from genie_eval.ablation.study import Study, Variant
from genie_robotics.models.config import COMPONENTS, GenieConfig, from_dict, to_dict
from genie_robotics.models.presets import preset
from genie_robotics.training.config import TrainingConfig, check, training_preset
from genie_robotics.training.stages import MODES, STAGES


@dataclass(frozen=True)
class Plan:
    variant: Variant
    model: GenieConfig
    training: TrainingConfig
    stages: tuple[str, ...]
    """Stages that each trial trains itself, in order."""
    shared: tuple[str, ...]
    """Components that the trials take from a shared run."""

    @property
    def trained(self) -> tuple[str, ...]:
        """Components that the plan's own stages train."""
        return tuple(component for stage in self.stages for component in STAGES[stage].trains)

    @property
    def components(self) -> tuple[str, ...]:
        """Components that exist after training."""
        return tuple(dict.fromkeys([*self.shared, *self.trained]))

    @property
    def with_own_loss(self) -> tuple[str, ...]:
        """Components that the plan trains by their own loss. In mode end_to_end the latent actions have none: they
        learn from the loss of the dynamics."""
        return tuple(c for c in self.trained if c != "latent_action" or self.training.mode != "end_to_end")


def resolve(study: Study, variant: Variant, steps: int) -> Plan:
    """Raises UserError if the variant sets an unknown field or an invalid value, or lacks a stage that it needs."""
    model, training = configure(study, variant, steps)
    stages = tuple(stage for stage in MODES[training.mode] if stage in study.stages)
    if not stages:
        raise UserError(
            f"study {study.name}, {variant.name}: mode {training.mode} has none of the study's stages "
            f"{', '.join(study.stages)}; choose among {', '.join(MODES[training.mode])}"
        )
    own = {component for stage in stages for component in STAGES[stage].trains}
    needed = {name for stage in stages for name in STAGES[stage].needs(model, training.mode)}
    needed |= set(COMPONENTS) if {"dreams", "commands"} & set(study.measure) else {"latent_action"}
    if model.latent_action.frame_space == "tokens":
        needed |= {"tokenizer"}
    if "dynamics" in needed - own:
        raise UserError(
            f"study {study.name} measures dreams and trains no dynamics; add dynamics or joint to its stages"
        )
    return Plan(variant, model, training, stages, tuple(name for name in COMPONENTS[:2] if name in needed - own))


def configure(study: Study, variant: Variant, steps: int) -> tuple[GenieConfig, TrainingConfig]:
    where, mode = f"study {study.name}, {variant.name}", variant.mode or study.mode
    if mode not in MODES:
        raise UserError(f"{where}: unknown mode '{mode}'; expected one of: {', '.join(MODES)}")
    model, training = to_dict(preset(study.preset, mode)), to_dict(training_preset(study.preset))
    for path, value in {**study.set, **variant.set}.items():
        values = training if path.startswith("training.") else model
        set_field(values, path.removeprefix("training."), value, f"{where}: {path}")
    training["mode"] = mode
    for stage in STAGES:
        training[stage]["steps"] = max(1, round(steps * variant.steps.get(stage, 1)))
    checked = from_dict(TrainingConfig, training, where)
    for stage in STAGES:
        check(checked.stage(stage), stage)
    return from_dict(GenieConfig, model, where).resolved(), checked


def shared_plan(study: Study, variant: Variant, component: str, steps: int) -> Plan:
    """How a shared component is trained: alone, with only those fields of `variant` that concern it. Variants that
    agree in these fields share it, and its random stream does not depend on which of them is trained first."""
    concerned = {component}
    if component == "latent_action" and configure(study, variant, steps)[0].latent_action.frame_space == "tokens":
        concerned.add("tokenizer")
    others = {*STAGES, "labels"} - concerned
    fields = {
        path: value for path, value in variant.set.items() if path.removeprefix("training.").split(".")[0] not in others
    }
    alone = Variant(f"shared {component}", set=fields, mode="frozen")
    model, training = configure(study, alone, steps)
    return Plan(alone, model, training, (component,), STAGES[component].needs(model, "frozen"))


def set_field(values: dict[str, Any], path: str, value: Any, where: str) -> None:
    """Sets an existing dotted field to a value of its type; raises UserError if there is no such field."""
    *parents, last = path.split(".")
    for name in parents:
        values = values.get(name, {}) if isinstance(values, dict) else {}
    if not isinstance(values, dict) or last not in values or isinstance(values[last], dict):
        raise UserError(f"{where}: there is no such field; see genie-robotics train --help")
    values[last] = converted(value, values[last], where)


def converted(value: Any, current: Any, where: str) -> Any:
    """The value in the type of the field's current value; raises UserError if it is of another type."""
    if isinstance(current, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(current, tuple) and isinstance(value, list | tuple):
        return tuple(value)
    if current is None:
        same_type = isinstance(value, int | float | None) and not isinstance(value, bool)
    else:
        same_type = type(value) is type(current)
    if not same_type:
        raise UserError(f"{where} cannot be {value!r}; expected a value of the same type as {current!r}")
    return value


def short_hash(values: Any) -> str:
    """Eight hexadecimal digits that identify a configuration."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=list).encode()).hexdigest()[:8]
