"""From a variant to configurations, strictly: a field that does not exist is an error, not ignored."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from genie_datasets.base.errors import UserError
from genie_eval.ablation.study import STAGES, Study, Variant
from genie_robotics.models.config import COMPONENTS, GenieConfig, from_dict, to_dict
from genie_robotics.models.presets import preset
from genie_robotics.training.config import TrainingConfig, check, training_preset
from genie_robotics.training.stages import MODES, TRAINED, needs


@dataclass(frozen=True)
class Plan:
    """One variant, resolved. `stages` are what each of its cells trains itself, in order; `shared` are components that
    it takes from elsewhere."""

    variant: Variant
    model: GenieConfig
    training: TrainingConfig
    stages: tuple[str, ...]
    shared: tuple[str, ...]

    @property
    def components(self) -> tuple[str, ...]:
        """All that there is after training."""
        own = [part for stage in self.stages for part in TRAINED[stage]]
        return tuple(dict.fromkeys([*self.shared, *own]))

    @property
    def taught(self) -> tuple[str, ...]:
        """What a loss of its own has taught here: end to end, latent actions learn from the dynamics'."""
        own = [part for stage in self.stages for part in TRAINED[stage]]
        return tuple(part for part in own if part != "latent_action" or self.training.mode != "end_to_end")


def resolve(study: Study, variant: Variant, steps: int) -> Plan:
    """Raises UserError, one line, where the variant sets a field that does not exist or a value that cannot be."""
    where = f"study {study.name}, {variant.name}"
    model, training = configure(study, variant, steps)
    stages = tuple(stage for stage in MODES[training.mode] if stage in study.stages)
    if not stages:
        raise UserError(f"{where}: mode {training.mode} has none of the stages {', '.join(study.stages)}")
    own = {part for stage in stages for part in TRAINED[stage]}
    wanted = {name for stage in stages for name in needs(stage, training.mode, model.latent_action.input)}
    dreams = {"dreams", "commands"} & set(study.measure)
    wanted |= {"tokenizer", "latent_action", "dynamics"} if dreams else {"latent_action"}
    if model.latent_action.input == "tokens":
        wanted |= {"tokenizer"}
    if "dynamics" in wanted - own:
        raise UserError(f"study {study.name} measures dreams: its stages must hold dynamics or joint")
    return Plan(variant, model, training, stages, tuple(name for name in COMPONENTS[:2] if name in wanted - own))


def configure(study: Study, variant: Variant, steps: int) -> tuple[GenieConfig, TrainingConfig]:
    where, mode = f"study {study.name}, {variant.name}", variant.mode or study.mode
    if mode not in MODES:
        raise UserError(f"{where}: mode must be one of {', '.join(MODES)}, not {mode}")
    model, taught = to_dict(preset(study.preset, mode)), to_dict(training_preset(study.preset))
    for path, value in {**study.set, **variant.set}.items():
        if path.startswith("training."):
            place(taught, path.removeprefix("training."), value, f"{where}: {path}")
        else:
            place(model, path, value, f"{where}: {path}")
    taught["mode"] = mode
    for stage in STAGES:
        taught[stage]["steps"] = max(1, round(steps * variant.steps.get(stage, 1)))
    training = from_dict(TrainingConfig, taught, where)
    for stage in STAGES:
        check(training.stage(stage), stage)
    return from_dict(GenieConfig, model, where).resolved(), training


def shared_plan(study: Study, variant: Variant, component: str, steps: int) -> Plan:
    """How a component that `variant` borrows is trained: alone, and of the variant's fields only with those that
    concern it. So variants that want it alike share it, whichever is asked for first."""
    parts = {component}
    if component == "latent_action" and configure(study, variant, steps)[0].latent_action.input == "tokens":
        parts.add("tokenizer")
    others = {*STAGES, "labels"} - parts
    wanted = {
        path: value for path, value in variant.set.items() if path.removeprefix("training.").split(".")[0] not in others
    }
    alone = Variant(f"shared {component}", set=wanted, mode="frozen")
    model, training = configure(study, alone, steps)
    needed = needs(component, "frozen", model.latent_action.input)
    return Plan(alone, model, training, (component,), needed)


def place(values: dict[str, Any], path: str, value: Any, where: str) -> None:
    """Sets a dotted field that is there already, to a value of its kind."""
    *folders, last = path.split(".")
    for name in folders:
        values = values.get(name, {}) if isinstance(values, dict) else {}
    if not isinstance(values, dict) or last not in values or isinstance(values[last], dict):
        raise UserError(f"{where}: there is no such field; see genie-robotics train --help")
    values[last] = fitting(value, values[last], where)


def fitting(value: Any, now: Any, where: str) -> Any:
    """The value, if it is of the kind of the field's present one."""
    if isinstance(now, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(now, tuple) and isinstance(value, list | tuple):
        return tuple(value)
    if now is None:
        alike = isinstance(value, int | float | None) and not isinstance(value, bool)
    else:
        alike = type(value) is type(now)
    if not alike:
        raise UserError(f"{where} cannot be {value!r}: it is {now!r} now")
    return value


def key_of(values: Any) -> str:
    """Eight hexadecimal digits that say which one of several."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=list).encode()).hexdigest()[:8]
