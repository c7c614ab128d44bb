"""A third quantizer and a third frame space: a class and an entry are enough to train with them."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from genie_robotics.genie import Genie
from genie_robotics.models import latent_action
from genie_robotics.models.config import GenieConfig
from genie_robotics.models.quantizers import QUANTIZERS, Quantized, Quantizer
from genie_robotics.training.config import LoopConfig, StageConfig
from genie_robotics.training.distributed import set_up
from genie_robotics.training.trainer import Trainer
from tests.genie_robotics.conftest import random_genie, tiny_config


def train_one_step(config: GenieConfig, stage: str, clips, run) -> tuple[Genie, set[str]]:
    """Trains `stage` for one step; returns the Genie and the names of the components that moved."""
    genie = random_genie(config)
    before = {name: value.clone() for name, value in genie.state_dict().items()}
    options = StageConfig(steps=1, batch_size=2, learning_rate=1e-3, warmup_steps=0)
    mode = "warmup" if stage == "joint" else "frozen"
    loop = LoopConfig(quiet=True)
    Trainer(genie, stage, clips, options, run, set_up("cpu", "float32"), loop, mode=mode).train()
    return genie, {name.split(".")[0] for name, value in genie.state_dict().items() if not value.equal(before[name])}


class SignQuantizer(Quantizer):
    """The code of a latent is the signs of its first numbers, as bits."""

    @property
    def num_bits(self) -> int:
        return self.num_codes.bit_length() - 1

    @property
    def vectors(self) -> Tensor:
        bits = (torch.arange(self.num_codes)[:, None] >> torch.arange(self.num_bits)) & 1
        return F.pad(2.0 * bits - 1, (0, self.config.latent_dim - self.num_bits))

    def nearest_code(self, latents: Tensor) -> Tensor:
        return ((latents[:, : self.num_bits] > 0) * 2 ** torch.arange(self.num_bits)).sum(-1)

    def quantize(self, latents: Tensor, num_clips: int) -> Quantized:
        codes = self.nearest_code(latents)
        vectors = self.vectors[codes]
        return Quantized(latents + (vectors - latents).detach(), codes, F.mse_loss(latents, vectors))


@pytest.mark.parametrize("stage", ["tokenizer", "latent_action", "dynamics", "joint"])
def test_a_third_quantizer_trains_and_plays(stage, clips, frames, tmp_path, monkeypatch):
    monkeypatch.setitem(QUANTIZERS, "sign", SignQuantizer)
    config = tiny_config()
    config.tokenizer.quantizer.kind = config.latent_action.quantizer.kind = "sign"
    genie, moved = train_one_step(config, stage, clips, tmp_path)
    assert moved == {"joint": {"latent_action", "dynamics"}}.get(stage, {stage})
    assert genie.infer_actions(frames).max() < 4
    assert genie.generate(frames[:, :2], [[0, 3]] * 3).shape == (3, 2, 16, 16, 3)
    assert genie.tokenizer.quantizer.margin(torch.randn(3, 8)).isnan().all()


class BoundedVectors(Quantizer):
    """Continuous latents in (-1, 1) without codes."""

    started = False

    def quantize(self, latents: Tensor, num_clips: int) -> Quantized:
        return Quantized(latents.tanh(), None, latents.new_zeros(()))


@pytest.mark.parametrize("stage", ["latent_action", "joint"])
def test_latent_actions_without_codes_train(stage, clips, tmp_path, monkeypatch):
    monkeypatch.setitem(QUANTIZERS, "bounded", BoundedVectors)
    config = tiny_config()
    config.latent_action.quantizer.kind = "bounded"
    assert "latent_action" in train_one_step(config, stage, clips, tmp_path)[1]


class MeanColors:
    """Reads the mean color of each patch through a frozen random map, and predicts mean colors."""

    def __init__(self, image_size: tuple[int, int], patch_size: int):
        self.grid = image_size[0] // patch_size, image_size[1] // patch_size
        self.patch_size = patch_size
        self.num_patches, self.input_width, self.output_width = self.grid[0] * self.grid[1], 7, 3
        self.map = torch.randn(3, 7, generator=torch.Generator().manual_seed(0))

    def read(self, frames: Tensor) -> Tensor:
        cells = frames.unflatten(2, (self.grid[0], -1)).unflatten(4, (self.grid[1], -1))
        return cells.mean((3, 5)).flatten(2, 3)  # (B, T, N, 3)

    def features(self, observed: Tensor) -> Tensor:
        return observed @ self.map

    def copy_error(self, observed: Tensor) -> Tensor:
        return F.mse_loss(observed[:, 1:], observed[:, :-1]).clamp_min(1e-6)

    def loss(self, output: Tensor, observed: Tensor) -> tuple[Tensor, Tensor]:
        error = F.mse_loss(observed[:, :-1] + output, observed[:, 1:]) / self.copy_error(observed)
        return error, error.detach()

    def show(self, output: Tensor, observed: Tensor) -> Tensor:
        colors = (observed + output).unflatten(2, self.grid)
        return colors.repeat_interleave(self.patch_size, 2).repeat_interleave(self.patch_size, 3)


@pytest.mark.parametrize("stage", ["latent_action", "joint"])
def test_a_third_frame_space_trains_and_plays(stage, clips, frames, tmp_path, monkeypatch):
    monkeypatch.setattr(latent_action, "make_space", lambda config, _: MeanColors(config.image_size, config.patch_size))
    genie, moved = train_one_step(tiny_config(), stage, clips, tmp_path)
    assert "latent_action" in moved
    assert genie.latent_action.encoder_in.in_features == 2 * 7
    assert genie.latent_action.patch_out.out_features == 3
    assert genie.infer_actions(frames).shape == (3, 7)
    assert genie.generate(frames[:, :2], [[0, 3]] * 3).shape == (3, 2, 16, 16, 3)
    unit = frames[:, :6] / 255
    shown = genie.latent_action.predict(unit[:, :-1], torch.randn(3, 5, 8))
    assert shown.shape == unit[:, 1:].shape
