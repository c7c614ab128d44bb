"""`train`: all stages of a run, from video to a run folder that can be resumed."""

import dataclasses
import math
import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from genie_datasets import ClipDataset, build_frame_cache
from genie_datasets.base.cache_dir import cache_dir
from genie_datasets.base.errors import UserError
from genie_datasets.clips.filters import KEEP_ALL, ClipFilter
from genie_datasets.clips.labeled_windows import LabeledWindows
from genie_datasets.clips.labels import Labels, check_places
from genie_datasets.sources.frame_cache import FrameCache
from genie_datasets.sources.split import Source
from genie_robotics.genie import Genie
from genie_robotics.health.measures import num_not_finite
from genie_robotics.models.config import COMPONENTS, GenieConfig, read_json, to_dict
from genie_robotics.run_folder import first_difference, load_component, load_config, locked, save_config
from genie_robotics.training.config import LoopConfig, TrainingConfig, check, check_batch, check_labels, check_loop
from genie_robotics.training.distributed import Setup, set_up
from genie_robotics.training.init_from import init_from, other_init, stored_init
from genie_robotics.training.labels import LabelSupervision
from genie_robotics.training.loggers import check_loggers
from genie_robotics.training.monitor import duration
from genie_robotics.training.sharding import is_sharded
from genie_robotics.training.stages import MODES, STAGES, stages_of
from genie_robotics.training.trainer import Trainer


@dataclass
class RunPlan:
    """A run of `train`."""

    model: GenieConfig
    training: TrainingConfig
    loop: LoopConfig
    stage: str = "all"
    """One stage of the training's mode, or all in turn."""
    minutes: float | None = None
    """Training minutes of all stages together, instead of steps."""
    labels: Path | None = None
    """True actions of some transitions, for the stages that train the latent action model."""
    init: Path | None = None
    """A run whose weights training starts from."""
    drop: ClipFilter = KEEP_ALL
    """Clips that are left out."""
    reading: dict[str, Any] = field(default_factory=dict)
    """Options with which the video was opened (SourceOptions.said): kept with the run, for `doctor`."""
    device: str = "auto"
    precision: str = "auto"


def train_run(run: Path, source: Source, split: str, plan: RunPlan) -> None:
    """Trains into the folder `run` from the action-free frames of one split, and from the plan's labels, if any.

    Raises:
        UserError: the folder holds a run of another configuration; no episode is as long as a clip; the labels belong
            to other video; the loss is not finite; the disk is full.
    """
    stages = stages_of(plan.training.mode, plan.stage)
    check_plan(plan, stages)
    config = plan.model.resolved()
    setup = set_up(plan.device, plan.precision)
    provenance: dict[str, Any] = {"source": str(source.path), "split": split, "fingerprint": source.fingerprint}
    if plan.reading:
        provenance["reading"] = plan.reading
    if plan.drop:
        provenance["dropped"] = str(plan.drop)
    labels = read_labels(plan, source, split, setup.world_size, provenance)
    torch.manual_seed(plan.loop.seed)
    try:
        genie = Genie(config)
    except ValueError as error:
        raise UserError(f"this model cannot be built: {error}") from None
    if plan.init is not None:
        stored = stored_init(run, plan.init, stages)
        provenance["init"] = stored if stored is not None else init_from(genie, plan.init, stages)
    check_run_folder(run, config, plan.training.mode, plan.loop.seed, provenance, stages)
    if plan.loop.sharding != "full":  # otherwise no GPU ever holds it whole: the trainer moves what a stage needs
        genie.to(setup.device)
    say = print if setup.is_main and not plan.loop.quiet else lambda *_: None
    say(
        f"{config.preset}: "
        + ", ".join(f"{k} {v / 1e6:.2f}M" for k, v in genie.num_parameters().items())
        + " parameters"
    )
    if "decoder" in provenance.get("init", {}).get("latent_action", {}):
        say(f"note: {plan.init} has no decoder of the latent action model; it starts from random weights")
    say(f"training on {setup.reason}, {setup.world_size} process(es), {torch.get_num_threads()} thread(s) each")

    setup.prepare_on_main(lambda: open_clips(source, split, config, plan.drop))  # makes the frame cache, for all ranks
    clips = open_clips(source, split, config, plan.drop)
    say(f"data: {source.name} [{split}], {len(clips):,} clips of {config.clip_length} frames" + left_out(clips))
    windows = None
    if labels is not None:
        windows = LabeledWindows(clips, labels, plan.loop.seed, history=config.latent_action.encoder_history)
        say(f"labels: {len(windows):,} transitions of {plan.labels}, {labels.digest}" + labels_left_out(windows))
    with locked(run) if setup.is_main else nullcontext():
        train_stages(run, genie, clips, plan, stages, setup, provenance, windows, say)


def check_plan(plan: RunPlan, stages: tuple[str, ...]) -> None:
    """Checks all options before anything is made or read; raises UserError."""
    if plan.minutes is not None and not 0 < plan.minutes < math.inf:
        raise UserError(f"--minutes must be above 0, got {plan.minutes:g}")
    check_loop(plan.loop)
    processes = int(os.environ.get("WORLD_SIZE", 1))
    for stage in stages:
        config = plan.training.stage(stage)
        check(config, stage)
        check_batch(config, stage, processes, plan.labels is not None and "latent_action" in STAGES[stage].trains)
        STAGES[stage].check(plan.model, plan.training.mode)
    check_loggers(plan.loop.loggers)


def read_labels(
    plan: RunPlan, source: Source, split: str, world_size: int, provenance: dict[str, Any]
) -> Labels | None:
    """The plan's labels, which are noted in `provenance`; raises UserError if they belong to other video."""
    if plan.labels is None:
        return None
    check_labels(plan.training.labels, world_size)
    labels = Labels.load(plan.labels)
    check_places(labels, source.split(split), str(plan.labels))
    labels = only_columns(labels, plan.training.labels.columns, str(plan.labels))
    provenance |= {"labels": labels.digest, "labels_file": str(plan.labels)}
    return labels


def train_stages(
    run: Path,
    genie: Genie,
    clips: ClipDataset,
    plan: RunPlan,
    stages: tuple[str, ...],
    setup: Setup,
    provenance: dict[str, Any],
    windows: LabeledWindows | None = None,
    say: Callable[..., None] = print,
) -> None:
    """Trains all stages in turn; stages that are done are reported."""
    mode = plan.training.mode
    for change in changed_options(run, plan.training):
        say(f"note: {change}: this run will not end as it would have with the options it was started with")
    shares = sum(plan.training.stage(s).share for s in stages)
    trained: set[str] = set()
    for stage in stages:
        kind = STAGES[stage]
        stage_config = plan.training.stage(stage)
        seconds = 60 * plan.minutes * stage_config.share / shares if plan.minutes else None
        loaded = [name for name in kind.needs(genie.config, mode) if name not in trained]
        for name in loaded:
            load_needed(genie, name, run, stage, mode)
        teacher = None
        if windows is not None and "latent_action" in kind.trains:
            teacher = LabelSupervision(windows, provenance["labels"], plan.training.labels, genie.latent_action)
        trainer = Trainer(genie, stage, clips, stage_config, run, setup, plan.loop, seconds, mode, teacher)
        trainer.resume(loaded)  # raises before anything is written
        if setup.is_main and not trained:
            save_config(genie.config, run, training=to_dict(plan.training), loop=to_dict(plan.loop), data=provenance)
        setup.barrier()
        if not trainer.train():
            done = f"{trainer.step} steps, {duration(trainer.elapsed)}"
            say(f"{stage}: already trained ({done}); delete {trainer.checkpoints.folder} to retrain it")
        trained |= set(trainer.trained)
        if is_sharded(trainer.module) and stage != stages[-1]:  # later stages read it complete, in every process
            for name in trainer.trained:
                genie.reset_component(name).to(setup.device)
                load_component(getattr(genie, name), run / name)


def load_needed(genie: Genie, name: str, run: Path, stage: str, mode: str) -> None:
    """Loads a component that another call trained; raises UserError if it is missing or not finite."""
    if not (run / name / "model.safetensors").exists():
        first = next(s for s in MODES[mode] if name in STAGES[s].trains)
        raise UserError(
            f"stage {stage} needs a trained {name}, and {run / name} has none; train it (--stage {first}) or copy it "
            "there"
        )
    load_component(getattr(genie, name), run / name)
    if num_not_finite(getattr(genie, name)):
        raise UserError(f"{run / name}: some of its weights are not finite; retrain that component or restore it")


def check_run_folder(
    run: Path,
    config: GenieConfig,
    mode: str = "frozen",
    seed: int = 0,
    data: dict[str, Any] | None = None,
    stages: tuple[str, ...] = (),
) -> None:
    """Raises UserError if `run` holds something else, or a run of another model, mode, seed, data set or start.

    A component that the folder does not hold and no stage has started may still change. The stored starts of other
    stages are added to `data`.
    """
    path = run / "config.json"
    if not path.exists():
        known = {*COMPONENTS, "state"}  # components copied from another run; .tmp: an interrupted first write
        strange = [e for e in run.iterdir() if e.suffix != ".tmp" and e.name not in known] if run.exists() else []
        if strange:
            raise UserError(f"{run} is not empty and not a run folder (no config.json); choose another folder")
        return
    data = {} if data is None else data
    stored = read_json(path)
    stored_data = stored.get("data") or {}
    initial = stored_data.get("init") or {}
    differing = (
        first_difference(load_config(run), config, free=untouched(run))
        or other_setting(stored, mode, seed, data)
        or other_labels(run, stored_data, data)
        or other_init(run, stages, initial, data.get("init") or {})
    )
    if differing:
        raise UserError(
            f"{run} was trained with another configuration ({differing}); "
            "pass its options to resume it, or choose another folder"
        )
    if initial:
        data["init"] = {**initial, **data.get("init", {})}


def other_setting(stored: dict[str, Any], mode: str, seed: int, data: dict[str, Any]) -> str | None:
    """The first of mode, seed, split, dropped clips and video that differs from the stored one, or None."""
    old_data = stored.get("data") or {}
    settings = [
        ("mode", entry(stored, "training", "mode"), mode),
        ("seed", entry(stored, "loop", "seed"), seed),
        ("split", old_data.get("split"), data.get("split")),
        ("dropped clips", *(str(d.get("dropped", "none")) if d else None for d in (old_data, data))),
    ]
    for name, old, new in settings:
        if None not in (old, new) and old != new:
            return f"{name}: {old} / {new}"
    prints = old_data.get("fingerprint"), data.get("fingerprint")
    if None not in prints and prints[0] != prints[1]:
        return f"other video or another --reader: {old_data.get('source')}"
    return None


def untouched(run: Path) -> tuple[str, ...]:
    """Components of which the folder holds neither weights nor a started stage."""

    def touched(name: str) -> bool:
        started = (run / "state" / stage for stage, kind in STAGES.items() if name in kind.trains)
        return (run / name / "model.safetensors").exists() or any(folder.exists() for folder in started)

    return tuple(name for name in COMPONENTS if not touched(name))


def other_labels(run: Path, stored: dict[str, Any], data: dict[str, Any]) -> str | None:
    """How the labels differ from those that the run has used; None if they may still be chosen."""
    old, new = stored.get("labels"), data.get("labels")
    started = any((run / "state" / stage).exists() for stage, kind in STAGES.items() if "latent_action" in kind.trains)
    if old == new or (old is None and not started):
        return None
    name = f"{old}, of {stored.get('labels_file')}" if old else "none"
    return f"labels: {name} / {new or 'none'}"


def changed_options(run: Path, training: TrainingConfig) -> list[str]:
    """Training options that differ from config.json, except steps and shares of time."""
    path = run / "config.json"
    stored = read_json(path).get("training") if path.exists() else None
    if not isinstance(stored, dict):
        return []
    changes = []
    for stage, values in to_dict(training).items():
        before = stored.get(stage)
        if isinstance(values, dict) and isinstance(before, dict):
            for name, value in values.items():
                value = list(value) if isinstance(value, tuple) else value  # as JSON keeps it
                if name not in ("steps", "share") and name in before and before[name] != value:
                    changes.append(f"training.{stage}.{name} was {before[name]} and is now {value}")
    return changes


def entry(stored: dict[str, Any], part: str, name: str) -> Any:
    values = stored.get(part)
    return values.get(name) if isinstance(values, dict) else None


def open_clips(source: Source, split: str, config: GenieConfig, drop: ClipFilter = KEEP_ALL) -> ClipDataset:
    """Clips from the frame cache of this source, made once in the user's cache directory; or from the source itself if
    it is such a cache (`data cache SRC OUT`)."""
    height, width = config.image_size
    frames = source.split(split)
    if isinstance(frames, FrameCache) and (frames.size, frames.mode) == (config.image_size, config.fit):
        return ClipDataset(frames, clip_length=config.clip_length, gap=config.gap, drop=drop)
    folder = cache_dir() / "frames" / f"{source.name}-{source.fingerprint}-{split}-{height}x{width}-{config.fit}"
    frames = build_frame_cache(frames, folder, config.image_size, config.fit)
    return ClipDataset(frames, clip_length=config.clip_length, gap=config.gap, drop=drop)


def only_columns(labels: Labels, columns: tuple[int, ...], where: str) -> Labels:
    """The labels with these columns of the actions (all if empty), which makes their digest another."""
    if not columns:
        return labels
    width = labels.action.shape[1]
    if not all(0 <= column < width for column in columns) or len(set(columns)) < len(columns):
        raise UserError(
            f"--training.labels.columns must be different numbers of 0 .. {width - 1}, got "
            f"{' '.join(map(str, columns))}; {where} has actions of {width} numbers"
        )
    return dataclasses.replace(labels, action=labels.action[:, list(columns)])


def labels_left_out(windows: LabeledWindows) -> str:
    return f" ({windows.num_left_out} in shorter episodes left out)" if windows.num_left_out else ""


def left_out(clips: ClipDataset) -> str:
    dropped = clips.num_windows - len(clips)
    parts = [f"{clips.num_short} shorter episodes"] * bool(clips.num_short) + [f"{dropped:,} clips"] * bool(dropped)
    return f" ({' and '.join(parts)} left out)" if parts else ""
