"""A world whose next frame is decided by its action alone, and a Genie trained on it in seconds.

Every frame is one colour of four, drawn anew at each step, with a sensor's noise. So the action is everything: a model
that uses its actions is right, one that ignores them can only guess.
"""

import numpy as np
import torch
from torch import nn

from genie_datasets import ClipDataset
from genie_robotics.genie import Genie
from genie_robotics.health.findings import Finding
from genie_robotics.models.config import GenieConfig
from genie_robotics.training.config import StageConfig
from genie_robotics.training.optimizer import Optimizers, rate_at
from genie_robotics.training.sentinel import Sentinel, SentinelConfig
from genie_robotics.training.stages import TRAINED, build_stage
from tests.genie_robotics.conftest import Squares, tiny_config

COLOURS = np.array([(200, 40, 40), (40, 200, 90), (40, 40, 120), (200, 200, 40)])
STEPS = {"tokenizer": 100, "latent_action": 200, "dynamics": 80}


class Colours(Squares):
    """Episodes of coloured frames; `static` ones keep their first colour."""

    def __init__(self, num_episodes: int = 24, length: int = 12, static: bool = False, seed: int = 0):
        super().__init__(num_episodes, length, size=8)
        rng = np.random.default_rng(seed)
        drawn = rng.integers(0, 4, (num_episodes, length))
        if static:
            drawn[:] = drawn[:, :1]
        shown = COLOURS[drawn][:, :, None, None] + rng.normal(0, 2, self.video.shape)
        self.video = shown.round().clip(0, 255).astype(np.uint8)


def world_config() -> GenieConfig:
    config = tiny_config()
    config.image_size = (8, 8)
    config.tokenizer.patch = 8
    config.tokenizer.codebook.num_codes = 4
    config.latent_action.patch = 8
    return config.resolved()


def world_clips(static: bool = False) -> ClipDataset:
    return ClipDataset(Colours(static=static), clip_length=6)


class Watched:
    """Trains one stage with a sentinel beside it, as the trainer does."""

    def __init__(
        self, genie: Genie, stage: str, clips: ClipDataset, rate: float = 5e-3, mode: str = "frozen", **config
    ):
        self.genie, self.stage, self.clips = genie, stage, clips
        self.module = build_stage(genie, stage, mode)
        self.config = StageConfig(steps=10**6, learning_rate=rate, warmup=5, schedule="wsd", decay=0, beta2=0.95)
        self.optimizers = Optimizers(self.module, self.config)
        self.sentinel = Sentinel(genie, stage, TRAINED[stage], SentinelConfig(**config), steps_per_epoch=15)
        self.step = 0
        self.lines: list[dict] = []
        self.figures: dict[str, float] = {}

    def frames(self) -> torch.Tensor:
        ids = np.random.default_rng(self.step).integers(0, len(self.clips), 8)
        return self.clips.batch(ids.tolist())

    def train(self, steps: int, look_every: int = 20, learn: bool = True) -> list[Finding]:
        """All that the sentinel says; `learn=False` leaves the weights as they are."""
        said = []
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
            self.sentinel.observe(self.step, values)
            self.lines.append({"stage": self.stage, "step": self.step} | {k: float(v) for k, v in values.items()})
            if self.step % look_every == 0:
                self.figures, findings = self.sentinel.look(self.step, frames)
                said += findings
        return said


def trained_genie() -> tuple[Genie, dict[str, list[Finding]], list[dict]]:
    """A healthy Genie of this world, what the sentinels said meanwhile, and the lines of metrics.jsonl."""
    torch.manual_seed(0)
    config = world_config()
    for part in (config.tokenizer, config.latent_action):
        part.codebook.start_after = 40  # latents must mean something by then
    genie, said, lines = Genie(config), {}, []
    for stage, steps in STEPS.items():
        watched = Watched(genie, stage, world_clips())
        watched.train(steps // 2, look_every=10**6)
        said[stage] = watched.train(steps - steps // 2)
        lines += watched.lines
    return genie.eval(), said, lines
