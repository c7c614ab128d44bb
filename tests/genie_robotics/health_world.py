"""A world whose next frame depends on its action alone, and a Genie trained on it in seconds.

Every frame has one of four colors, drawn independently at each step, with sensor noise. A model that uses its actions
predicts the color, one that ignores them can only guess.
"""

import numpy as np
import torch
from torch import nn

from genie_datasets import ClipDataset
from genie_robotics.genie import Genie
from genie_robotics.health.findings import Finding
from genie_robotics.models.config import GenieConfig
from genie_robotics.training.config import StageConfig
from genie_robotics.training.health_checks import HealthChecks, HealthChecksConfig
from genie_robotics.training.optimizer import Optimizers, rate_at
from genie_robotics.training.stages import STAGES
from tests.genie_robotics.conftest import Squares, tiny_config

COLORS = np.array([(200, 40, 40), (40, 200, 90), (40, 40, 120), (200, 200, 40)])
STEPS = {"tokenizer": 100, "latent_action": 200, "dynamics": 80}


class Colors(Squares):
    """Episodes of colored frames; `static` ones keep their first color."""

    def __init__(self, num_episodes: int = 24, length: int = 12, static: bool = False, seed: int = 0):
        super().__init__(num_episodes, length, size=8)
        rng = np.random.default_rng(seed)
        drawn = rng.integers(0, 4, (num_episodes, length))
        if static:
            drawn[:] = drawn[:, :1]
        shown = COLORS[drawn][:, :, None, None] + rng.normal(0, 2, self.video.shape)
        self.video = shown.round().clip(0, 255).astype(np.uint8)


def world_config() -> GenieConfig:
    config = tiny_config()
    config.image_size = (8, 8)
    config.tokenizer.patch_size = 8
    config.tokenizer.quantizer.num_codes = 4
    config.latent_action.patch_size = 8
    return config.resolved()


def world_clips(static: bool = False) -> ClipDataset:
    return ClipDataset(Colors(static=static), clip_length=6)


class CheckedTraining:
    """Trains one stage with health checks, as the trainer does."""

    def __init__(
        self, genie: Genie, stage: str, clips: ClipDataset, rate: float = 5e-3, mode: str = "frozen", **config
    ):
        self.genie, self.stage, self.mode, self.clips = genie, stage, mode, clips
        self.module = STAGES[stage](genie, mode)
        self.config = StageConfig(steps=10**6, learning_rate=rate, warmup_steps=5, schedule="wsd", decay=0, beta2=0.95)
        self.optimizers = Optimizers(self.module, self.config)
        self.health = HealthChecks(genie, STAGES[stage], mode, HealthChecksConfig(**config), steps_per_epoch=15)
        self.step = 0
        self.lines: list[dict] = []
        self.figures: dict[str, float] = {}

    def frames(self) -> torch.Tensor:
        ids = np.random.default_rng(self.step).integers(0, len(self.clips), 8)
        return self.clips.batch(ids.tolist())

    def train(self, steps: int, check_every: int = 20, learn: bool = True) -> list[Finding]:
        """All findings that are reported; `learn=False` leaves the weights as they are."""
        reported = []
        for _ in range(steps):
            frames = self.frames()
            torch.manual_seed(self.step)
            loss, logs = self.module(frames)
            loss.backward()
            norm = nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
            if learn:
                self.optimizers.step(rate_at(0.5, self.step, self.config))
            self.step += 1
            values = {"loss": loss.detach(), **logs, "grad_norm": norm}
            self.health.observe(self.step, values)
            self.lines.append({"stage": self.stage, "step": self.step} | {k: float(v) for k, v in values.items()})
            if self.step % check_every == 0:
                self.figures, findings = self.health.check(self.step, frames)
                reported += findings
        return reported


def trained_genie() -> tuple[Genie, dict[str, list[Finding]], list[dict]]:
    """A healthy Genie of this world, the findings reported meanwhile, and the lines of metrics.jsonl."""
    torch.manual_seed(0)
    config = world_config()
    for part in (config.tokenizer, config.latent_action):
        part.quantizer.vq.quantize_after_steps = 40  # enough for meaningful latents
    genie, reported, lines = Genie(config), {}, []
    for stage, steps in STEPS.items():
        training = CheckedTraining(genie, stage, world_clips())
        training.train(steps // 2, check_every=10**6)
        reported[stage] = training.train(steps - steps // 2)
        lines += training.lines
    return genie.eval(), reported, lines
