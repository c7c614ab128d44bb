"""Training a whole run: data in, the stages of a mode in turn, a run folder out. The same call resumes."""

import dataclasses
import math
import os
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from genie_datasets import ClipDataset, build_frame_cache
from genie_datasets.base.cache_dir import cache_dir
from genie_datasets.base.errors import UserError
from genie_datasets.clips.filters import KEEP_ALL, ClipFilter
from genie_datasets.clips.labeled_windows import LabelledWindows
from genie_datasets.clips.labels import Labels, check_places
from genie_datasets.sources.frame_cache import FrameCache
from genie_datasets.sources.split import Source
from genie_robotics.genie import Genie
from genie_robotics.health.measures import num_not_finite
from genie_robotics.models.config import COMPONENTS, GenieConfig, read_json, to_dict
from genie_robotics.run_folder import load_component, load_config, same_model, save_config
from genie_robotics.training.config import LoopConfig, TrainingConfig, check, check_batch, check_labels, check_loop
from genie_robotics.training.distributed import Setup, set_up
from genie_robotics.training.init_from import begin_with, begun_with, other_beginning
from genie_robotics.training.labels import LabelTeacher
from genie_robotics.training.lock import locked
from genie_robotics.training.loggers import check_loggers
from genie_robotics.training.monitor import duration
from genie_robotics.training.sharding import is_sharded
from genie_robotics.training.stages import MODES, TRAINED, check_held, needs, stages_of
from genie_robotics.training.trainer import Trainer


@dataclass
class RunPlan:
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
    """A run whose weights training begins with."""
    drop: ClipFilter = KEEP_ALL
    """Clips that are not trained on."""
    reading: dict[str, Any] = field(default_factory=dict)
    """How the video was read, as SourceOptions.said gives it: kept with the run, for `doctor`."""
    device: str = "auto"
    precision: str = "auto"


def train_run(run: Path, source: Source, split: str, plan: RunPlan) -> None:
    """Trains into the folder `run` from the action-free frames of one split, and from the plan's labels, if any.

    Raises:
        UserError: the folder holds a run of another configuration; no episode is as long as a clip; the labels are not
            of this video; the loss is not finite; the disk is full.
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
    labels = None
    if plan.labels is not None:
        check_labels(plan.training.labels, setup.world_size)
        labels = Labels.load(plan.labels)
        check_places(labels, source.split(split), str(plan.labels))
        labels = only_columns(labels, plan.training.labels.columns, str(plan.labels))
        provenance |= {"labels": labels.digest, "labels_file": str(plan.labels)}
    torch.manual_seed(plan.loop.seed)
    try:
        genie = Genie(config)
    except ValueError as error:
        raise UserError(f"such a model cannot be built: {error}") from None
    if plan.init is not None:
        begun = begun_with(run, plan.init, stages)
        provenance["init"] = begun if begun is not None else begin_with(genie, plan.init, stages)
    start_or_resume(run, config, plan.training.mode, plan.loop.seed, provenance, stages)
    if plan.loop.sharding != "full":  # else no GPU ever holds it whole: the trainer moves what a stage needs
        genie.to(setup.device)
    say = print if setup.is_main and not plan.loop.quiet else lambda *_: None
    say(
        f"{config.preset}: "
        + ", ".join(f"{k} {v / 1e6:.2f}M" for k, v in genie.num_parameters().items())
        + " parameters"
    )
    if "decoder" in provenance.get("init", {}).get("latent_action", {}):
        say(f"note: {plan.init} comes without its latent action model's decoder: that begins with random weights")
    say(f"training on {setup.reason}, {setup.world_size} process(es), {torch.get_num_threads()} thread(s) each")

    setup.first_prepares(lambda: open_clips(source, split, config, plan.drop))  # makes the frame cache, for all ranks
    clips = open_clips(source, split, config, plan.drop)
    say(f"data: {source.name} [{split}], {len(clips):,} clips of {config.clip_length} frames" + left_out(clips))
    windows = None
    if labels is not None:
        windows = LabelledWindows(clips, labels, plan.loop.seed, history=config.latent_action.encoder_history)
        say(f"labels: {len(windows):,} transitions of {plan.labels}, {labels.digest}" + labels_left_out(windows))
    with locked(run) if setup.is_main else nullcontext():
        train_stages(run, genie, clips, plan, stages, setup, provenance, windows)


def check_plan(plan: RunPlan, stages: tuple[str, ...]) -> None:
    """All that can be wrong with the options, before anything is made or read."""
    if plan.minutes is not None and not 0 < plan.minutes < math.inf:
        raise UserError(f"--minutes must be above 0, not {plan.minutes:g}")
    check_loop(plan.loop)
    processes = int(os.environ.get("WORLD_SIZE", 1))
    for stage in stages:
        config = plan.training.stage(stage)
        check(config, stage)
        check_batch(config, stage, processes, plan.labels is not None and "latent_action" in TRAINED[stage])
    if "joint" in stages:
        check_held(plan.model.latent_action.codebook.hold, plan.training.mode)
    check_loggers(plan.loop.loggers)


def train_stages(
    run: Path,
    genie: Genie,
    clips: ClipDataset,
    plan: RunPlan,
    stages: tuple[str, ...],
    setup: Setup,
    provenance: dict[str, Any],
    windows: LabelledWindows | None = None,
) -> None:
    """All stages in turn; each says where it is done already."""
    mode = plan.training.mode
    say = print if setup.is_main and not plan.loop.quiet else lambda *_: None
    for change in changed_options(run, plan.training):
        say(f"note: not as this run was begun: {change} now, so it will not end where it would have")
    shares = sum(plan.training.stage(s).share for s in stages)
    trained: set[str] = set()
    for stage in stages:
        stage_config = plan.training.stage(stage)
        seconds = 60 * plan.minutes * stage_config.share / shares if plan.minutes else None
        loaded = [name for name in needs(stage, mode, genie.config.latent_action.input) if name not in trained]
        for name in loaded:
            load_needed(genie, name, run, stage, mode)
        teacher = None
        if windows is not None and "latent_action" in TRAINED[stage]:
            teacher = LabelTeacher(windows, provenance["labels"], plan.training.labels, genie.latent_action)
        trainer = Trainer(genie, stage, clips, stage_config, run, setup, plan.loop, seconds, mode, teacher)
        trainer.resume(loaded)  # refuses before anything is written
        if setup.is_main and not trained:
            save_config(genie.config, run, training=to_dict(plan.training), loop=to_dict(plan.loop), data=provenance)
        setup.barrier()
        if not trainer.train():
            done = f"{trainer.step} steps, {duration(trainer.elapsed)}"
            say(f"{stage}: already trained ({done}); delete {trainer.checkpoints.folder} to train it anew")
        trained |= set(trainer.trained)
        if is_sharded(trainer.module) and stage != stages[-1]:  # what comes next reads it whole, in every process
            for name in trainer.trained:
                genie.begin_anew(name).to(setup.device)
                load_component(getattr(genie, name), run / name)


def load_needed(genie: Genie, name: str, run: Path, stage: str, mode: str) -> None:
    """A component that another call trained."""
    if not (run / name / "model.safetensors").exists():
        first = next(s for s in MODES[mode] if name in TRAINED[s])
        raise UserError(
            f"{stage} needs a trained {name}, and {run / name} has none: train it (--stage {first}) or copy it there"
        )
    load_component(getattr(genie, name), run / name)
    if num_not_finite(getattr(genie, name)):
        raise UserError(f"{run / name}: some of its weights are not finite; train that component anew or restore it")


def start_or_resume(
    run: Path,
    config: GenieConfig,
    mode: str = "frozen",
    seed: int = 0,
    data: dict[str, Any] | None = None,
    stages: tuple[str, ...] = (),
) -> None:
    """Refuses to mix two configurations, modes, seeds, data sets or beginnings of `stages` in one folder.

    A component that the folder does not hold and no stage has begun there may still become another. What was written of
    other stages' beginnings is taken over into `data`.
    """
    path = run / "config.json"
    if not path.exists():
        known = {*COMPONENTS, "state"}  # components copied from another run; a .tmp is of a first write, cut off
        strange = [e for e in run.iterdir() if e.suffix != ".tmp" and e.name not in known] if run.exists() else []
        if strange:
            raise UserError(f"{run} is not empty and is not a run (no config.json); choose another folder")
        return
    stored = read_json(path)
    differing = same_model(load_config(run), config, free=untouched(run))
    for name, old, new in (
        ("mode", entry(stored, "training", "mode"), mode),
        ("seed", entry(stored, "loop", "seed"), seed),
        ("split", entry(stored, "data", "split"), (data or {}).get("split")),
        ("dropped clips", *(None if not d else str(d.get("dropped", "none")) for d in (stored.get("data"), data))),
    ):
        if not differing and None not in (old, new) and old != new:
            differing = f"{name}: {old} / {new}"
    old, new = (part.get("fingerprint") for part in (stored.get("data") or {}, data or {}))
    if not differing and None not in (old, new) and old != new:
        differing = f"other video, or another --reader: {entry(stored, 'data', 'source')}"
    if not differing:
        differing = other_labels(run, stored.get("data") or {}, data or {})
    if not differing:
        begun = (stored.get("data") or {}).get("init") or {}
        differing = other_beginning(run, stages, begun, (data or {}).get("init") or {})
        if data is not None and begun:
            data["init"] = {**begun, **data.get("init", {})}
    if differing:
        raise UserError(
            f"{run} was trained with another configuration ({differing}); "
            "use its options to resume, or choose another folder"
        )


def untouched(run: Path) -> tuple[str, ...]:
    """Components of which the folder holds nothing: neither weights nor a stage that trains them."""

    def touched(name: str) -> bool:
        begun = (run / "state" / stage for stage, parts in TRAINED.items() if name in parts)
        return (run / name / "model.safetensors").exists() or any(folder.exists() for folder in begun)

    return tuple(name for name in COMPONENTS if not touched(name))


def other_labels(run: Path, stored: dict[str, Any], data: dict[str, Any]) -> str | None:
    """How the labels differ from those that the run has learnt from; None also where it may still be given some."""
    old, new = stored.get("labels"), data.get("labels")
    begun = any((run / "state" / stage).exists() for stage, parts in TRAINED.items() if "latent_action" in parts)
    if old == new or (old is None and not begun):
        return None
    name = f"{old}, of {stored.get('labels_file')}" if old else "none"
    return f"labels: {name} / {new or 'none'}"


def changed_options(run: Path, training: TrainingConfig) -> list[str]:
    """The training's options that are not those in config.json, as 'training.tokenizer.batch_size 4, 8'; not steps."""
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
                    changes.append(f"training.{stage}.{name} was {before[name]}, is {value}")
    return changes


def entry(stored: dict[str, Any], part: str, name: str) -> Any:
    values = stored.get(part)
    return values.get(name) if isinstance(values, dict) else None


def open_clips(source: Source, split: str, config: GenieConfig, drop: ClipFilter = KEEP_ALL) -> ClipDataset:
    """Clips from the frame cache of this source, which is made once in the user's cache directory; from the source
    itself where it is such a cache already (`data cache SRC OUT`)."""
    height, width = config.image_size
    frames = source.split(split)
    if isinstance(frames, FrameCache) and (frames.size, frames.mode) == (config.image_size, config.fit):
        return ClipDataset(frames, clip_length=config.clip_length, gap=config.gap, drop=drop)
    folder = cache_dir() / "frames" / f"{source.name}-{source.fingerprint}-{split}-{height}x{width}-{config.fit}"
    frames = build_frame_cache(frames, folder, config.image_size, config.fit)
    return ClipDataset(frames, clip_length=config.clip_length, gap=config.gap, drop=drop)


def only_columns(labels: Labels, columns: tuple[int, ...], where: str) -> Labels:
    """The labels with some of the actions' numbers; all without `columns`. Another choice makes other labels."""
    if not columns:
        return labels
    width = labels.action.shape[1]
    if not all(0 <= column < width for column in columns) or len(set(columns)) < len(columns):
        raise UserError(
            f"--training.labels.columns {' '.join(map(str, columns))}: {where} has actions of {width} numbers, 0 .. "
            f"{width - 1}, of which each can be taken once"
        )
    return dataclasses.replace(labels, action=labels.action[:, list(columns)])


def labels_left_out(windows: LabelledWindows) -> str:
    return f" ({windows.num_left_out} in shorter episodes left out)" if windows.num_left_out else ""


def left_out(clips: ClipDataset) -> str:
    dropped = clips.num_windows - len(clips)
    parts = [f"{clips.num_short} shorter episodes"] * bool(clips.num_short) + [f"{dropped:,} clips"] * bool(dropped)
    return f" ({' and '.join(parts)} left out)" if parts else ""
