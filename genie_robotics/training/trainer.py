"""The training loop, the same for tokenizer, latent action model and dynamics.

A stage is a component, what its batches are made of, and a StageConfig. Everything a step depends on is a function of
(seed, stage, step): the clips, the masks, the revived codes. So the same command, run again, goes on where it was cut.
"""

import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from genie_datasets import ClipDataset, EpochSampler
from genie_datasets.errors import UserError
from genie_robotics.codebook import Codebook
from genie_robotics.dynamics import DynamicsBatch
from genie_robotics.genie import Genie
from genie_robotics.run_folder import save_component
from genie_robotics.training.checkpoint import load_state, save_state
from genie_robotics.training.config import StageConfig, check
from genie_robotics.training.distributed import Setup
from genie_robotics.training.monitor import Monitor
from genie_robotics.training.optimizer import Optimizers, rate_at


@dataclass
class LoopConfig:
    """What all stages share."""

    seed: int = 0
    save_every: int = 500
    """Steps between checkpoints."""
    log_every: int = 20
    """Steps between lines of metrics.jsonl."""
    workers: int = 0
    """Loader processes; the frame cache is a memory map and needs none."""
    quiet: bool = False


class Trainer:
    """Trains one component of `genie` on clips (uint8, (T, H, W, 3)).

    Args:
        seconds: ends the stage after this training time instead of after `config.steps`; the learning rate follows
            the clock.
    """

    def __init__(
        self,
        genie: Genie,
        stage: str,
        clips: ClipDataset,
        config: StageConfig,
        run: Path,
        setup: Setup,
        loop: LoopConfig,
        seconds: float | None = None,
    ):
        check(config, stage)
        if config.batch_size % setup.world_size:
            raise UserError(f"{stage}: batch size {config.batch_size} does not divide by {setup.world_size} processes")
        self.genie, self.stage, self.clips, self.config = genie, stage, clips, config
        self.run, self.setup, self.loop, self.seconds = run, setup, loop, seconds
        self.component: nn.Module = getattr(genie, stage)
        self.codebooks = [m for m in self.component.modules() if isinstance(m, Codebook)]
        self.optimizers = Optimizers(self.component, config)
        self.step = 0
        self.elapsed = 0.0
        self.state_path = run / "state" / f"{stage}.pt"

    @property
    def progress(self) -> float:
        """Share of the stage that is done, 0 .. 1."""
        done = self.elapsed / self.seconds if self.seconds else self.step / self.config.steps
        return min(1.0, done)

    def train(self) -> bool:
        """Trains to the end; returns False when an earlier call already had."""
        self.resume()
        if self.progress >= 1:
            return False
        if self.setup.is_main:
            self.run.mkdir(parents=True, exist_ok=True)
        monitor = Monitor(
            self.run / "metrics.jsonl", self.stage, self.loop.log_every, self.loop.quiet or not self.setup.is_main
        )
        self.genie.eval().requires_grad_(False)
        self.component.train().requires_grad_(True)
        module = self.setup.wrap(self.component)
        loader = iter(self.loader())
        began, before = time.monotonic(), self.elapsed
        while self.progress < 1:
            values, rate = self.train_step(module, next(loader))
            self.step += 1
            self.elapsed = self.setup.broadcast(before + time.monotonic() - began)
            left = (
                (time.monotonic() - began) * (1 - self.progress) / max(1e-9, self.progress - self.progress_at(before))
            )
            if self.setup.is_main:
                num_frames = self.config.batch_size * self.genie.config.clip_length
                monitor.step(self.step, self.progress, left, num_frames, rate, values)
            if self.step % self.loop.save_every == 0:
                self.save()
        self.save()
        if self.setup.is_main:
            save_component(self.genie, self.stage, self.run)
        self.setup.barrier()
        self.component.eval()
        return True

    def progress_at(self, elapsed: float) -> float:
        """Progress when this call began, for the time left."""
        return min(1.0, elapsed / self.seconds) if self.seconds else self.began_at_step / self.config.steps

    def train_step(self, module: nn.Module, frames: Tensor) -> tuple[dict[str, Tensor], float]:
        """One optimizer step; returns what to log and the share of the peak learning rate."""
        rate = rate_at(self.progress, self.step, self.config)
        torch.manual_seed(step_seed(self.loop.seed, self.stage, self.step, self.setup.rank))
        frames = frames.to(self.setup.device, non_blocking=True)
        for book in self.codebooks:
            book.progress = self.progress
        with self.setup.autocast():
            loss, logs = module(self.batch(frames))
        if not torch.isfinite(loss):
            raise UserError(
                f"{self.stage}: the loss is {float(loss.detach())} at step {self.step}; the last checkpoint is kept. "
                f"Lower --training.{self.stage.replace('_', '-')}.learning-rate and run the same command again"
            )
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.optimizers.parameters, self.config.clip_gradient)
        self.optimizers.step(rate)
        return {"loss": loss.detach(), **logs, "grad_norm": norm}, rate

    def batch(self, frames: Tensor) -> Any:
        """What the component's `forward` takes: clips, or tokens and latent actions for the dynamics."""
        if self.stage != "dynamics":
            return frames
        with torch.no_grad():
            codes = self.genie.latent_action.encode(frames)
            actions = self.genie.latent_action.codebook.lookup(codes)
            return DynamicsBatch(self.genie.tokenizer.encode(frames), actions)

    def loader(self) -> DataLoader:
        sampler = EpochSampler.of(self.clips, self.loop.seed, self.setup.rank, self.setup.world_size)
        return DataLoader(
            self.clips,
            batch_sampler=sampler.batches(self.config.batch_size // self.setup.world_size, self.step),  # type: ignore[arg-type]
            num_workers=self.loop.workers,
            pin_memory=self.setup.device.type == "cuda",
        )

    def resume(self) -> None:
        state = load_state(self.state_path, self.component)
        if state is not None:
            self.step, self.elapsed = state["step"], state["elapsed"]
            self.optimizers.load_state_dict(state["optimizers"])
        self.began_at_step = self.step

    def save(self) -> None:
        if self.setup.is_main:
            save_state(
                self.state_path,
                self.component,
                self.optimizers.state_dict(),
                step=self.step,
                elapsed=self.elapsed,
            )


def step_seed(seed: int, stage: str, step: int, rank: int) -> int:
    return zlib.crc32(f"{seed}/{stage}/{step}/{rank}".encode())
