"""Training a whole run: data in, three stages in turn, a run folder out. The same call resumes."""

from dataclasses import dataclass
from pathlib import Path

import torch

from genie_datasets import ClipDataset, build_frame_cache
from genie_datasets.cache_dir import cache_dir
from genie_datasets.errors import UserError
from genie_datasets.split import Source
from genie_robotics.config import GenieConfig, read_json, to_dict
from genie_robotics.genie import Genie
from genie_robotics.run_folder import load_component, load_config, same_model, save_config
from genie_robotics.training.config import TrainingConfig
from genie_robotics.training.distributed import set_up
from genie_robotics.training.loggers import check_loggers
from genie_robotics.training.monitor import duration
from genie_robotics.training.stages import needs, stages_of
from genie_robotics.training.trainer import LoopConfig, Trainer


@dataclass
class RunPlan:
    model: GenieConfig
    training: TrainingConfig
    loop: LoopConfig
    stage: str = "all"
    """One stage of the training's mode, or all in turn."""
    minutes: float | None = None
    """Training minutes of all stages together, instead of steps."""
    device: str = "auto"
    precision: str = "auto"


def train_run(run: Path, source: Source, split: str, plan: RunPlan) -> None:
    """Trains into the folder `run` from the action-free frames of one split.

    Raises:
        UserError: the folder holds a run of another configuration; no episode is as long as a clip; the loss is not
            finite; the disk is full.
    """
    mode = plan.training.mode
    stages = stages_of(mode, plan.stage)
    config = plan.model.resolved()
    start_or_resume(run, config, mode)
    check_loggers(plan.loop.loggers)
    setup = set_up(plan.device, plan.precision)
    torch.manual_seed(plan.loop.seed)
    genie = Genie(config).to(setup.device)
    say = print if setup.is_main and not plan.loop.quiet else lambda *_: None
    say(
        f"{config.preset}: "
        + ", ".join(f"{k} {v / 1e6:.2f}M" for k, v in genie.num_parameters().items())
        + " parameters"
    )
    say(f"training on {setup.reason}, {setup.world_size} process(es), {torch.get_num_threads()} thread(s) each")

    if setup.is_main:
        open_clips(source, split, config)  # makes the frame cache, for all ranks
    setup.barrier()
    clips = open_clips(source, split, config)
    say(f"data: {source.name} [{split}], {len(clips):,} clips of {config.clip_length} frames" + left_out(clips))
    if setup.is_main:
        provenance = {"source": str(source.path), "split": split, "fingerprint": source.fingerprint}
        save_config(config, run, training=to_dict(plan.training), loop=to_dict(plan.loop), data=provenance)
    setup.barrier()

    shares = sum(plan.training.stage(s).share for s in stages)
    trained: set[str] = set()
    for stage in stages:
        stage_config = plan.training.stage(stage)
        seconds = 60 * plan.minutes * stage_config.share / shares if plan.minutes else None
        for name in needs(stage, mode):
            if name not in trained:
                load_component(genie, name, run)
        trainer = Trainer(genie, stage, clips, stage_config, run, setup, plan.loop, seconds, mode)
        if not trainer.train():
            done = f"{trainer.step} steps, {duration(trainer.elapsed)}"
            say(f"{stage}: already trained ({done}); delete {trainer.checkpoints.folder} to train it anew")
        trained |= set(trainer.trained)


def start_or_resume(run: Path, config: GenieConfig, mode: str = "frozen") -> None:
    """Refuses to mix two configurations in one folder."""
    path = run / "config.json"
    if not path.exists():
        if run.exists() and any(entry.suffix != ".tmp" for entry in run.iterdir()):  # .tmp: of a first write, cut off
            raise UserError(f"{run} is not empty and is not a run (no config.json); choose another folder")
        return
    stored_mode = read_json(path).get("training", {}).get("mode", mode)
    differing = same_model(load_config(run), config)
    if not differing and stored_mode != mode:
        differing = f"mode: {stored_mode} / {mode}"
    if differing:
        raise UserError(
            f"{run} was trained with another configuration ({differing}); "
            "use its options to resume, or choose another folder"
        )


def open_clips(source: Source, split: str, config: GenieConfig) -> ClipDataset:
    """Clips from the frame cache of this source, which is made once in the user's cache directory."""
    height, width = config.image_size
    folder = cache_dir() / "frames" / f"{source.name}-{source.fingerprint}-{split}-{height}x{width}-{config.fit}"
    frames = build_frame_cache(source.split(split), folder, config.image_size, config.fit)
    return ClipDataset(frames, clip_length=config.clip_length, gap=config.gap)


def left_out(clips: ClipDataset) -> str:
    return f" ({clips.num_short} shorter episodes left out)" if clips.num_short else ""
