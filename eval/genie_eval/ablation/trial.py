"""A cell of a study: one variant, one seed; trained, measured, and never done twice.

DIR/cells/VARIANT/seedN/   plan.json (what it is), run/ (a run folder, without what only training
                           needs once that is done), cell.json and draws.npz (what was measured)
DIR/shared/NAME/           a run folder with a component that several variants take over
"""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genie_datasets import Source
from genie_datasets.base.errors import UserError
from genie_datasets.base.files import atomic_file
from genie_datasets.sources.subset import some_episodes
from genie_eval.ablation.cost import step_cost
from genie_eval.ablation.held_out import HeldOut
from genie_eval.ablation.measure import measure
from genie_eval.ablation.plan import Plan, key_of, resolve, shared_plan
from genie_eval.ablation.reading import Reading
from genie_eval.ablation.study import Study, Variant
from genie_eval.metric import plain
from genie_eval.report.provenance import commit
from genie_robotics.genie import Genie
from genie_robotics.models.config import GenieConfig, from_dict, read_json
from genie_robotics.run_folder import load_component, to_plain, write_atomically
from genie_robotics.training.config import LabelConfig, LoopConfig, StageConfig
from genie_robotics.training.lock import locked
from genie_robotics.training.run import RunPlan, train_run

MEASURED, TRAINED = "cell.json", "trained"
VERSION = 1  # of what is measured: cells of another are measured again
WAIT = 5.0  # seconds between looks at a shared component that another process trains


@dataclass(frozen=True)
class Bench:
    """Where the cells of a study are made, and of what."""

    study: Study
    out: Path
    source: Source
    split: str
    steps: int
    shared_seed: int = 0
    given: Path | None = None
    """A run folder whose components serve as shared ones where they were trained with the same configuration."""
    device: str = "auto"
    precision: str = "auto"
    save_every: int = 200
    say: Callable[[str], None] = print

    def cell(self, variant: str, seed: int) -> Path:
        return self.out / "cells" / variant / f"seed{seed}"

    def loop(self, seed: int) -> LoopConfig:
        """Without the sentinel: what a variant is bad at, the table says."""
        return LoopConfig(seed=seed, save_every=self.save_every, keep=1, watch_every=0, quiet=True)


def run_cell(bench: Bench, variant: Variant, seed: int, sample: Callable[[Plan], HeldOut]) -> bool:
    """Trains and measures what of this cell is not done yet; False where another process is at it.

    sample: gives the held-out trajectories as a plan's model sees them.

    Raises:
        UserError: the folder holds a cell of other options; training or measuring cannot be done.
    """
    plan = resolve(bench.study, variant, bench.steps)
    folder = bench.cell(variant.name, seed)
    with unless_busy(folder) as free:
        if not free:
            bench.say(f"{variant.name}, seed {seed}: another process is at it")
            return False
        asked = describe(bench, plan, seed)
        same_or_refuse(folder, asked)
        shown = sample(plan)
        wanted = asdict(shown.sampling) | {
            "version": VERSION,
            "fingerprint": shown.fingerprint,
            "groups": list(bench.study.measure),
        }
        if is_measured(folder, wanted):
            return True
        write_atomically(folder / "plan.json", json.dumps(asked, indent=1).encode())
        run = folder / "run"
        for component in plan.shared:
            take(shared_component(bench, variant, component), component, run)
        began = time.monotonic()
        if not (folder / TRAINED).exists():
            train_stages_of(bench, plan, seed, run)
            write_atomically(folder / TRAINED, b"")
        bench.say(f"{variant.name}, seed {seed}: trained ({time.monotonic() - began:.0f} s); measuring")
        began = time.monotonic()
        genie = load(plan, run, bench.device)
        readings, details = measure(genie, shown, bench.study.measure, plan.taught)
        split = training_source(bench, plan, seed).split(bench.split)
        details["episodes"] = split.num_episodes
        costs = step_cost(genie, plan, run, split)
        save_cell(folder, plan, seed, readings, details, costs, wanted)
        shutil.rmtree(run / "state", ignore_errors=True)  # larger than the model, and nothing goes on from it
        bench.say(f"{variant.name}, seed {seed}: measured ({time.monotonic() - began:.0f} s)")
    return True


@contextmanager
def unless_busy(folder: Path) -> Iterator[bool]:
    """Holds FOLDER/state/lock as training does; gives False, and holds nothing, where another process does."""
    try:
        held = locked(folder)
        held.__enter__()
    except UserError as error:
        if "another process" not in str(error):
            raise
        yield False
        return
    try:
        yield True
    finally:
        held.__exit__(None, None, None)


def describe(bench: Bench, plan: Plan, seed: int) -> dict[str, Any]:
    """What a cell's weights depend on."""
    given: dict[str, Any] = {"given": str(bench.given)} if bench.given is not None and plan.shared else {}
    training = {stage: to_plain(plan.training.stage(stage)) for stage in (*plan.shared, *plan.stages)}
    if plan.variant.init:
        given["init"] = plan.variant.init
    if plan.variant.episodes is not None:
        given["episodes"] = plan.variant.episodes
    if plan.variant.labels:
        training["labels"] = to_plain(plan.training.labels)
    return plain(
        {
            "study": bench.study.name, "variant": plan.variant.name, "seed": seed, "model": to_plain(plan.model),
            "training": training, "mode": plan.training.mode, "stages": plan.stages, "shared": plan.shared,
            "shared_seed": bench.shared_seed if plan.shared else None, "labels": plan.variant.labels,
            "data": {"fingerprint": bench.source.fingerprint, "split": bench.split}, **given,
        }
    )  # fmt: skip


def same_or_refuse(folder: Path, asked: dict[str, Any]) -> None:
    """Raises UserError where the folder was begun with other options than these."""
    path = folder / "plan.json"
    if not path.exists():
        return
    stored = read_json(path)
    # entries younger than the file have their defaults
    stored["model"] = to_plain(from_dict(GenieConfig, stored.get("model", {}), str(path)))
    for name, values in stored.get("training", {}).items():
        kind = LabelConfig if name == "labels" else StageConfig
        stored["training"][name] = to_plain(from_dict(kind, values, str(path)))  # type: ignore[type-var]
    differing = difference(stored, asked)
    if differing:
        raise UserError(f"{folder} was begun with other options ({differing}): give those, or another --out")


def difference(old: Any, new: Any, name: str = "") -> str | None:
    """The first entry in which two nested objects differ, as 'name: old / new'."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            found = difference(old.get(key), new.get(key), f"{name}.{key}".lstrip("."))
            if found:
                return found
        return None
    return None if old == new else f"{name}: {old} / {new}"


def train_stages_of(bench: Bench, plan: Plan, seed: int, run: Path) -> None:
    """The plan's own stages, in order; those that are done are left as they are."""
    source = training_source(bench, plan, seed)
    labels = labels_file(bench, source, plan.variant, seed) if plan.variant.labels else None
    init = Path(plan.variant.init.replace("{seed}", str(seed))) if plan.variant.init else None
    for stage in plan.stages:
        train_run(
            run,
            source,
            bench.split,
            RunPlan(
                plan.model, plan.training, bench.loop(seed), stage=stage, labels=labels, init=init,
                device=bench.device, precision=bench.precision,
            ),
        )  # fmt: skip


def training_source(bench: Bench, plan: Plan, seed: int) -> Source:
    """What a cell trains on: all of it, or as many episodes as its variant says."""
    number = plan.variant.episodes
    return bench.source if number is None else some_episodes(bench.source, bench.split, number, seed)


def labels_file(bench: Bench, source: Source, variant: Variant, seed: int) -> Path:
    """The true actions of a share of the training transitions, drawn anew for every seed."""
    from genie_datasets.clips.labels import draw_labels

    share = variant.labels
    few = "" if variant.episodes is None else f"-of{variant.episodes}"
    path = bench.out / "labels" / f"{share:g}{few}-seed{seed}.npz"
    if not path.exists():
        split = source.split(bench.split)
        total = int(np.maximum(0, split.num_frames - 1).sum())
        labels = draw_labels(split, max(1, round(share * total)), seed)
        with atomic_file(path) as stream:
            labels.save(stream)
    return path


def shared_component(bench: Bench, variant: Variant, component: str) -> Path:
    """The run folder that holds a component which this variant borrows; trained there, if it is not yet."""
    plan = shared_plan(bench.study, variant, component, bench.steps)
    if bench.given is not None and fits(bench.given, component, plan.model):
        return bench.given
    stage = plan.training.stage(component)
    mark = key_of([to_plain(getattr(plan.model, component)), to_plain(stage), plan.model.gap, plan.model.fit])
    run = bench.out / "shared" / f"{component}-{mark}"
    borrowed = {needed: shared_component(bench, variant, needed) for needed in plan.shared}
    said = False
    while True:
        with unless_busy(run) as free:
            if free:
                for needed, lender in borrowed.items():
                    take(lender, needed, run / "run")
                if not (run / "run" / component / "model.safetensors").exists():
                    bench.say(f"{component}, shared: {stage.steps} steps in {run}")
                train_stages_of(bench, plan, bench.shared_seed, run / "run")
                return run / "run"
        if not said:
            bench.say(f"{component}, shared: another process trains it; waiting")
            said = True
        time.sleep(WAIT)


def fits(run: Path, component: str, model: GenieConfig) -> bool:
    """The run's component is of the same configuration."""
    folder = run / component
    if not (folder / "model.safetensors").exists():
        return False
    own = getattr(model, component)
    values = read_json(folder / "config.json")
    values.pop("parts", None)  # of an exported world: latent actions are read there, which needs no decoder
    stored = to_plain(from_dict(type(own), values, str(folder)))
    return stored == to_plain(own)


def take(run: Path, component: str, into: Path) -> None:
    """Copies a trained component into another run folder, unless it is there."""
    folder = into / component
    if (folder / "model.safetensors").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "model.safetensors"):
        partial = folder / f"{name}.tmp"
        shutil.copyfile(run / component / name, partial)
        partial.replace(folder / name)


def load(plan: Plan, run: Path, device: str) -> Genie:
    """The cell's model; what no stage trained keeps random weights, which no metric of the study reads."""
    import torch

    genie = Genie(plan.model)
    for component in plan.components:
        load_component(getattr(genie, component), run / component)
    where = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    return genie.to(where).eval()


# ----------------------------------------------------------------------------------------------------------- cell.json
def save_cell(
    folder: Path,
    plan: Plan,
    seed: int,
    readings: dict[str, Reading],
    details: dict[str, Any],
    costs: dict[str, Any],
    measured: dict[str, Any],
) -> None:
    with atomic_file(folder / "draws.npz") as stream:
        np.savez(stream, **{name: r.draws for name, r in readings.items() if r.draws is not None})  # type: ignore[arg-type]
    content = {
        "variant": plan.variant.name, "seed": seed, "git": commit(), "measured": measured, "cost": costs,
        "metrics": {
            name: {"value": r.value, "ci95": r.ci95, "units": r.units, "reason": r.reason}
            for name, r in readings.items()
        },
        "details": details,
    }  # fmt: skip
    write_atomically(folder / MEASURED, json.dumps(plain(content), indent=1, allow_nan=False).encode())


def is_measured(folder: Path, wanted: dict[str, Any]) -> bool:
    path = folder / MEASURED
    return path.exists() and difference(read_json(path).get("measured"), plain(wanted)) is None
