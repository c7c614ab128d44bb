"""A Genie small enough to be trained and dreamt with inside a test."""

import numpy as np
import pytest
import torch

from genie_datasets import ClipDataset
from genie_datasets.sources.split import Split, frame_ids
from genie_robotics.genie import Genie
from genie_robotics.models.config import GenieConfig
from genie_robotics.models.dynamics import DynamicsConfig
from genie_robotics.models.latent_action import LatentActionConfig
from genie_robotics.models.layers.st_transformer import ACTION_INPUTS
from genie_robotics.models.quantizers.config import CodebookConfig
from genie_robotics.models.video_tokenizer import TokenizerConfig


def tiny_config(action_input: str = "modulate", kind: str = "vq") -> GenieConfig:
    return GenieConfig(
        preset="tiny",
        image_size=(16, 16),
        clip_length=6,
        tokenizer=TokenizerConfig(
            patch=4,
            encoder_width=16,
            encoder_blocks=1,
            encoder_heads=2,
            decoder_width=16,
            decoder_blocks=2,
            decoder_heads=2,
            codebook=CodebookConfig(kind=kind, num_codes=16, latent_dim=8, start_after=3, num_remembered=256),
        ),
        latent_action=LatentActionConfig(
            patch=8,
            width=16,
            encoder_blocks=1,
            decoder_blocks=1,
            heads=2,
            action_input=action_input,
            codebook=CodebookConfig(kind=kind, num_codes=4, latent_dim=8, start_after=3, num_remembered=64),
        ),
        dynamics=DynamicsConfig(
            width=16, num_blocks=2, heads=2, action_input=action_input, maskgit_steps=4, temperature=1.0
        ),
    ).resolved()


def random_genie(config: GenieConfig, seed: int = 0) -> Genie:
    """Random weights in every layer, zero-initialised ones and codebooks too, so that everything matters."""
    generator = torch.Generator().manual_seed(seed)
    genie = Genie(config)
    for parameter in genie.parameters():
        parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)
    for part in (genie.tokenizer, genie.latent_action):
        if part.config.codebook.kind == "fsq":
            continue
        book = part.codebook.vq._codebook
        book.embed.copy_(torch.randn(book.embed.shape, generator=generator))
        book.initted.fill_(True)
    return genie.eval()


@pytest.fixture(params=ACTION_INPUTS)
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
