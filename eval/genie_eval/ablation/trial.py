"""A trial of a study: one variant with one seed, trained and measured once.

DIR/cells/VARIANT/seedN/   plan.json (configuration), run/ (a run folder, reduced to the trained model once it is
                           measured), cell.json and draws.npz (measurements, see genie_eval.ablation.reading)
DIR/shared/NAME/           a run folder with a component that several trials use
"""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genie_datasets import Source
from genie_datasets.base.errors import UserError
from genie_datasets.base.files import atomic_file, write_atomically
from genie_datasets.sources.subset import some_episodes
from genie_eval.ablation.cost import step_cost
from genie_eval.ablation.held_out import HeldOut
from genie_eval.ablation.measure import measure
from genie_eval.ablation.plan import Plan, resolve, shared_plan, short_hash
from genie_eval.ablation.reading import MEASURED, save_trial
from genie_eval.ablation.study import Study, Variant
from genie_eval.metrics import plain
from genie_robotics.genie import Genie
from genie_robotics.models.config import GenieConfig, from_dict, read_json
from genie_robotics.run_folder import load_component, locked, to_plain
from genie_robotics.training.config import LabelConfig, LoopConfig, StageConfig
from genie_robotics.training.run import RunPlan, train_run

TRAINED = "trained"  # empty file that marks a trained trial
VERSION = 1  # of the measurement: trials measured under another version are measured again
WAIT = 5.0  # seconds between checks for a shared component that another process trains


@dataclass(frozen=True)
class StudyRun:
    """A study with its data, output folder and options."""

    study: Study
    out: Path
    source: Source
    split: str
    steps: int
    shared_seed: int = 0
    given: Path | None = None
    """Run folder whose components are used as shared ones if their configurations are equal."""
    device: str = "auto"
    precision: str = "auto"
    save_every: int = 200
    say: Callable[[str], None] = print

    def trial_folder(self, variant: str, seed: int) -> Path:
        return self.out / "cells" / variant / f"seed{seed}"

    def loop(self, seed: int) -> LoopConfig:
        """Without health checks: the table shows what a variant is bad at."""
        return LoopConfig(seed=seed, save_every=self.save_every, keep=1, health_every=0, quiet=True)


def run_trial(setup: StudyRun, variant: Variant, seed: int, sample: Callable[[Plan], HeldOut]) -> bool:
    """Trains and measures a trial, without repeating what is done; False if another process works on it.

    sample: gives the held-out trajectories in the image size and frame gap of a plan's model.

    Raises:
        UserError: the folder holds a trial with other options, or the trial cannot be trained or measured.
    """
    plan = resolve(setup.study, variant, setup.steps)
    folder = setup.trial_folder(variant.name, seed)
    with unless_busy(folder) as free:
        if not free:
            setup.say(f"{variant.name}, seed {seed}: another process is running this trial")
            return False
        description = describe(setup, plan, seed)
        check_same_options(folder, description)
        held_out = sample(plan)
        measured = asdict(held_out.sampling) | {
            "version": VERSION,
            "fingerprint": held_out.fingerprint,
            "groups": list(setup.study.measure),
        }
        if is_measured(folder, measured):
            return True
        write_atomically(folder / "plan.json", json.dumps(description, indent=1).encode())
        run = folder / "run"
        for component in plan.shared:
            copy_component(shared_component(setup, variant, component), component, run)
        began = time.monotonic()
        if not (folder / TRAINED).exists():
            train_stages(setup, plan, seed, run)
            write_atomically(folder / TRAINED, b"")
        setup.say(f"{variant.name}, seed {seed}: trained ({time.monotonic() - began:.0f} s); measuring")
        began = time.monotonic()
        genie = load(plan, run, setup.device)
        readings, details = measure(genie, held_out, setup.study.measure, plan.with_own_loss)
        split = training_source(setup, plan, seed).split(setup.split)
        details["episodes"] = split.num_episodes
        costs = step_cost(genie, plan, run, split)
        save_trial(folder, variant.name, seed, readings, details, costs, measured)
        shutil.rmtree(run / "state", ignore_errors=True)  # larger than the model, and no longer needed
        setup.say(f"{variant.name}, seed {seed}: measured ({time.monotonic() - began:.0f} s)")
    return True


@contextmanager
def unless_busy(folder: Path) -> Iterator[bool]:
    """Holds the training lock of a folder and gives True; gives False, without the lock, if another process has it."""
    with ExitStack() as held:
        try:
            held.enter_context(locked(folder))
        except UserError as error:
            if "another process" not in str(error):
                raise
            yield False
            return
        yield True


def describe(setup: StudyRun, plan: Plan, seed: int) -> dict[str, Any]:
    """Everything that a trial's weights depend on, as JSON."""
    optional: dict[str, Any] = {"given": str(setup.given)} if setup.given is not None and plan.shared else {}
    training = {stage: to_plain(plan.training.stage(stage)) for stage in (*plan.shared, *plan.stages)}
    if plan.variant.init:
        optional["init"] = plan.variant.init
    if plan.variant.episodes is not None:
        optional["episodes"] = plan.variant.episodes
    if plan.variant.labels:
        training["labels"] = to_plain(plan.training.labels)
    return plain(
        {
            "study": setup.study.name, "variant": plan.variant.name, "seed": seed, "model": to_plain(plan.model),
            "training": training, "mode": plan.training.mode, "stages": plan.stages, "shared": plan.shared,
            "shared_seed": setup.shared_seed if plan.shared else None, "labels": plan.variant.labels,
            "data": {"fingerprint": setup.source.fingerprint, "split": setup.split}, **optional,
        }
    )  # fmt: skip


def check_same_options(folder: Path, description: dict[str, Any]) -> None:
    """Raises UserError if the folder holds a trial with other options."""
    path = folder / "plan.json"
    if not path.exists():
        return
    stored = read_json(path)
    # fields that are newer than the file get their defaults
    stored["model"] = to_plain(from_dict(GenieConfig, stored.get("model", {}), str(path)))
    for name, values in stored.get("training", {}).items():
        kind = LabelConfig if name == "labels" else StageConfig
        stored["training"][name] = to_plain(from_dict(kind, values, str(path)))  # type: ignore[type-var]
    differing = first_difference(stored, description)
    if differing:
        raise UserError(
            f"{folder} holds a trial with other options ({differing}); rerun with those, or pass another --out"
        )


def first_difference(old: Any, new: Any, name: str = "") -> str | None:
    """The first entry in which two nested objects differ, as 'name: old / new'."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            found = first_difference(old.get(key), new.get(key), f"{name}.{key}".lstrip("."))
            if found:
                return found
        return None
    return None if old == new else f"{name}: {old} / {new}"


def is_measured(folder: Path, measured: dict[str, Any]) -> bool:
    """True if the trial was measured in this way."""
    path = folder / MEASURED
    return path.exists() and read_json(path).get("measured") == plain(measured)


def train_stages(setup: StudyRun, plan: Plan, seed: int, run: Path) -> None:
    """Trains the plan's own stages in order, except those that are already trained."""
    source = training_source(setup, plan, seed)
    labels = labels_file(setup, source, plan.variant, seed) if plan.variant.labels else None
    init = Path(plan.variant.init.replace("{seed}", str(seed))) if plan.variant.init else None
    for stage in plan.stages:
        train_run(
            run,
            source,
            setup.split,
            RunPlan(
                plan.model, plan.training, setup.loop(seed), stage=stage, labels=labels, init=init,
                device=setup.device, precision=setup.precision,
            ),
        )  # fmt: skip


def training_source(setup: StudyRun, plan: Plan, seed: int) -> Source:
    """The data that a trial trains on: all of it, or the variant's number of episodes."""
    number = plan.variant.episodes
    return setup.source if number is None else some_episodes(setup.source, setup.split, number, seed)


def labels_file(setup: StudyRun, source: Source, variant: Variant, seed: int) -> Path:
    """A file with the true actions of a fraction of the training transitions, drawn with the seed."""
    from genie_datasets.clips.labels import draw_labels

    share = variant.labels
    episodes = "" if variant.episodes is None else f"-of{variant.episodes}"
    path = setup.out / "labels" / f"{share:g}{episodes}-seed{seed}.npz"
    if not path.exists():
        split = source.split(setup.split)
        total = int(np.maximum(0, split.num_frames - 1).sum())
        labels = draw_labels(split, max(1, round(share * total)), seed)
        with atomic_file(path) as stream:
            labels.save(stream)
    return path


def shared_component(setup: StudyRun, variant: Variant, component: str) -> Path:
    """The run folder of a component that this variant shares with others; trains the component first if needed."""
    plan = shared_plan(setup.study, variant, component, setup.steps)
    if setup.given is not None and has_component(setup.given, component, plan.model):
        return setup.given
    stage = plan.training.stage(component)
    key = short_hash([to_plain(getattr(plan.model, component)), to_plain(stage), plan.model.gap, plan.model.fit])
    folder = setup.out / "shared" / f"{component}-{key}"
    run = folder / "run"
    needed = {name: shared_component(setup, variant, name) for name in plan.shared}
    waiting = False
    while True:
        with unless_busy(folder) as free:
            if free:
                for name, lender in needed.items():
                    copy_component(lender, name, run)
                if not (run / component / "model.safetensors").exists():
                    setup.say(f"{component}, shared: {stage.steps} steps in {folder}")
                train_stages(setup, plan, setup.shared_seed, run)
                return run
        if not waiting:
            setup.say(f"{component}, shared: another process trains it; waiting")
            waiting = True
        time.sleep(WAIT)


def has_component(run: Path, component: str, model: GenieConfig) -> bool:
    """True if the run holds the trained component in the same configuration."""
    folder = run / component
    if not (folder / "model.safetensors").exists():
        return False
    config = getattr(model, component)
    values = read_json(folder / "config.json")
    values.pop("has_decoder", None)  # exported worlds have none; reading latent actions needs no decoder
    return to_plain(from_dict(type(config), values, str(folder))) == to_plain(config)


def copy_component(run: Path, component: str, into: Path) -> None:
    """Copies a trained component into another run folder, unless it is already there."""
    folder = into / component
    if (folder / "model.safetensors").exists():
        return
    for name in ("config.json", "model.safetensors"):
        with open(run / component / name, "rb") as file, atomic_file(folder / name) as copy:
            shutil.copyfileobj(file, copy)


def load(plan: Plan, run: Path, device: str) -> Genie:
    """The trial's model. Components that no stage trained keep random weights, which no metric of the study reads."""
    import torch

    genie = Genie(plan.model)
    for component in plan.components:
        load_component(getattr(genie, component), run / component)
    where = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    return genie.to(where).eval()
