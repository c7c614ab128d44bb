"""A Genie small enough to be trained and played inside a test, and clips for it."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from genie_datasets import ClipDataset
from genie_datasets.sources.split import Split, frame_ids
from genie_robotics.genie import Genie
from genie_robotics.models.config import GenieConfig
from genie_robotics.models.dynamics import DynamicsConfig
from genie_robotics.models.latent_action import LatentActionConfig
from genie_robotics.models.layers.conditioning import CONDITIONINGS
from genie_robotics.models.presets import preset
from genie_robotics.models.quantizers import QuantizerConfig, VectorQuantizer, VQConfig
from genie_robotics.models.video_tokenizer import TokenizerConfig


def tiny_config(action_input: str = "adaln", kind: str = "vq") -> GenieConfig:
    """The configuration of all tests that need no other: 16x16 pixels, 16 tokens, 4 latent actions, 6 frames."""
    return GenieConfig(
        preset="tiny",
        image_size=(16, 16),
        clip_length=6,
        tokenizer=TokenizerConfig(
            patch_size=4,
            encoder_width=16,
            encoder_num_blocks=1,
            encoder_num_heads=2,
            decoder_width=16,
            decoder_num_blocks=2,
            decoder_num_heads=2,
            quantizer=QuantizerConfig(
                kind=kind, num_codes=16, latent_dim=8, vq=VQConfig(quantize_after_steps=3, num_remembered=256)
            ),
        ),
        latent_action=LatentActionConfig(
            patch_size=8,
            width=16,
            encoder_num_blocks=1,
            decoder_num_blocks=1,
            num_heads=2,
            action_input=action_input,
            quantizer=QuantizerConfig(
                kind=kind, num_codes=4, latent_dim=8, vq=VQConfig(quantize_after_steps=3, num_remembered=64)
            ),
        ),
        dynamics=DynamicsConfig(
            width=16, num_blocks=2, num_heads=2, action_input=action_input, maskgit_steps=4, temperature=1.0
        ),
    ).resolved()


def differing_fields(config: Any, base: Any, path: str = "") -> dict[str, Any]:
    """{"tokenizer.patch_size": 4, ...}: the fields of a configuration that differ from `base`, with their values."""
    found = {}
    for field in dataclasses.fields(config):
        value, before, name = getattr(config, field.name), getattr(base, field.name), f"{path}{field.name}"
        if dataclasses.is_dataclass(value):
            found |= differing_fields(value, before, f"{name}.")
        elif value != before:
            found[name] = value
    return found


DERIVED = {"image_size", "clip_length", "num_patches", "num_tokens", "action_dim"}
"""Fields of components that `GenieConfig.resolved` sets."""


def tiny_sizes() -> dict[str, Any]:
    """Fields that give preset nano the sizes of `tiny_config`; what else nano chooses stays."""
    found = differing_fields(tiny_config(), preset("nano"))
    derived = {name for name in found if "." in name and name.rpartition(".")[2] in DERIVED}
    return {name: value for name, value in found.items() if type(value) in (int, tuple) and name not in derived}


def tiny_options() -> list[str]:
    """`tiny_sizes` as options of the command line."""
    return [
        f"--{name.replace('_', '-')}={'x'.join(map(str, value)) if isinstance(value, tuple) else value}"
        for name, value in tiny_sizes().items()
    ]


def random_codes(quantizer: VectorQuantizer, generator: torch.Generator | None = None) -> None:
    """Gives a quantizer random codes, as if training had started them."""
    quantizer.codebook.copy_(torch.randn(quantizer.codebook.shape, generator=generator))
    quantizer.has_started.fill_(True)


def random_genie(config: GenieConfig, seed: int = 0) -> Genie:
    """Random weights in every layer, zero-initialized ones and codebooks too, so that everything matters."""
    generator = torch.Generator().manual_seed(seed)
    genie = Genie(config)
    for parameter in genie.parameters():
        parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)
    for part in (genie.tokenizer, genie.latent_action):
        if isinstance(part.quantizer, VectorQuantizer):
            random_codes(part.quantizer, generator)
    return genie.eval()


@pytest.fixture(params=CONDITIONINGS)
def genie(request) -> Genie:
    return random_genie(tiny_config(request.param))


@pytest.fixture
def frames() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (3, 8, 16, 16, 3), dtype=torch.uint8, generator=generator)


@pytest.fixture
def config() -> GenieConfig:
    return tiny_config()


class Squares(Split):
    """Episodes of a bright square that jumps up, down, left or right; made in memory."""

    def __init__(self, num_episodes: int = 6, length: int = 10, size: int = 16):
        rng = np.random.default_rng(0)
        self.name, self.fingerprint = "train", "squares"
        self.num_frames = np.full(num_episodes, length)
        self.hz = np.full(num_episodes, 3.0)
        self.video = np.full((num_episodes, length, size, size, 3), 60, np.uint8)
        for episode in self.video:
            place = rng.integers(0, size, 2)
            for frame in episode:
                cells = np.array([(place + k) % size for k in range(4)])
                frame[np.ix_(cells[:, 0], cells[:, 1])] = 230
                place = place + [(0, 3), (0, -3), (3, 0), (-3, 0)][rng.integers(4)]

    def frames(self, episode, ids=None, size=None, mode="crop"):
        return self.video[episode][frame_ids(ids, self.video.shape[1])]

    def instruction(self, episode):
        return ""

    def episode_name(self, episode):
        return f"square {episode}"


@pytest.fixture
def clips(config) -> ClipDataset:
    return ClipDataset(Squares(), clip_length=config.clip_length)
