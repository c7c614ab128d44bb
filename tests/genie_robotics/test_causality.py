"""No output depends on input from its future: measured by gradients, for every module."""

import dataclasses

import pytest
import torch
from torch import nn

from genie_robotics.models.dynamics import Dynamics
from genie_robotics.models.latent_action import LatentActionConfig, LatentActionModel, shift_to_next_frame
from genie_robotics.models.layers.conditioning import CONDITIONINGS
from genie_robotics.models.layers.st_transformer import STTransformer
from genie_robotics.models.video_tokenizer import VideoTokenizer
from tests.genie_robotics.conftest import tiny_config

FRAMES = 5


def dependence(function, x: torch.Tensor, num_out: int) -> torch.Tensor:
    """(num_out, T) booleans: output entry i (axis 1) has a gradient to input frame j (axis 1)."""
    rows = []
    for i in range(num_out):
        leaf = x.clone().requires_grad_(True)
        out = function(leaf)
        assert out.shape[1] == num_out
        weights = torch.randn(out[:, i].shape, generator=torch.Generator().manual_seed(i), dtype=out.dtype)
        (out[:, i] * weights).sum().backward()
        assert leaf.grad is not None
        rows.append(leaf.grad.abs().sum(dim=tuple(d for d in range(x.ndim) if d != 1)) > 0)
    return torch.stack(rows)


def stir(module: nn.Module) -> nn.Module:
    """Random weights everywhere: zero-initialized layers would hide a leak."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return module.double().eval()


LOWER = torch.ones(FRAMES, FRAMES).tril().bool()


@pytest.mark.parametrize("action_input", [None, *CONDITIONINGS])
def test_st_transformer_sees_all_past_frames_and_no_future_frames(action_input):
    model = stir(STTransformer(16, 2, 2, num_patches=4, max_frames=FRAMES, action_input=action_input))
    x = torch.randn(2, FRAMES, 4, 16, dtype=torch.double)
    condition = torch.randn(2, FRAMES, 16, dtype=torch.double)
    assert torch.equal(dependence(lambda y: model(y, condition), x, FRAMES), LOWER)
    if action_input:
        assert torch.equal(dependence(lambda c: model(x, c), condition, FRAMES), LOWER)


def test_without_temporal_layers_frames_are_independent():
    model = stir(STTransformer(16, 2, 2, num_patches=4, max_frames=FRAMES, temporal=False))
    x = torch.randn(1, FRAMES, 4, 16, dtype=torch.double)
    assert torch.equal(dependence(model, x, FRAMES), torch.eye(FRAMES).bool())


def test_spatial_attention_reaches_every_patch_of_the_frame():
    model = stir(STTransformer(16, 1, 2, num_patches=4, max_frames=FRAMES))
    x = torch.randn(1, FRAMES, 4, 16, dtype=torch.double, requires_grad=True)
    model(x)[0, 2, 0].sum().backward()
    assert (x.grad[0, 2].abs().sum(-1) > 0).all()


def tokenizer() -> VideoTokenizer:
    config = tiny_config().tokenizer
    return stir(VideoTokenizer(dataclasses.replace(config, clip_length=FRAMES, patch_size=8, encoder_num_blocks=2)))


def test_tokenizer_encoder_and_decoder_are_causal():
    model = tokenizer()
    frames = torch.rand(1, FRAMES, 16, 16, 3, dtype=torch.double)
    latents = torch.randn(1, FRAMES, 4, 8, dtype=torch.double)
    assert torch.equal(dependence(model.latents, frames, FRAMES), LOWER)
    assert torch.equal(dependence(model.pixels, latents, FRAMES), LOWER)


def lam_config(**changes) -> LatentActionConfig:
    """Two blocks, so that what one frame reads from another could pass on to a third."""
    blocks = {"encoder_num_blocks": 2, "decoder_num_blocks": 2}
    return dataclasses.replace(tiny_config("add").latent_action, clip_length=FRAMES, **blocks, **changes)


def lam(**changes) -> LatentActionModel:
    return stir(LatentActionModel(lam_config(**changes)))


@pytest.mark.parametrize("input_diff", [False, True])
def test_latent_action_t_is_read_from_frames_up_to_t_plus_1(input_diff):
    frames = torch.rand(1, FRAMES, 16, 16, 3, dtype=torch.double)
    expected = torch.ones(FRAMES - 1, FRAMES).tril(1).bool()
    assert torch.equal(dependence(lam(input_diff=input_diff).latents, frames, FRAMES - 1), expected)


@pytest.mark.parametrize("input_diff", [False, True])
def test_without_encoder_history_latent_action_t_is_read_from_its_two_frames_only(input_diff):
    frames = torch.rand(1, FRAMES, 16, 16, 3, dtype=torch.double)
    expected = torch.ones(FRAMES - 1, FRAMES).tril(1).triu(0).bool()
    model = lam(input_diff=input_diff, encoder_history=False)
    assert torch.equal(dependence(model.latents, frames, FRAMES - 1), expected)


@pytest.mark.parametrize("action_input", CONDITIONINGS)
@pytest.mark.parametrize("history", [False, True])
def test_prediction_of_frame_t_plus_1_uses_the_past_and_a_t(action_input, history):
    model = lam(action_input=action_input, decoder_history=history)
    frames = torch.rand(1, FRAMES, 16, 16, 3, dtype=torch.double)
    actions = torch.randn(1, FRAMES, 8, dtype=torch.double)
    seen = LOWER if history else torch.eye(FRAMES).bool()
    assert torch.equal(dependence(lambda x: model.predict(x, actions), frames, FRAMES), seen)
    assert torch.equal(dependence(lambda a: model.predict(frames, a), actions, FRAMES), seen)


@pytest.mark.parametrize("action_input", CONDITIONINGS)
def test_dynamics_of_frame_t_plus_1_uses_tokens_up_to_t_plus_1_and_actions_up_to_t(action_input):
    config = dataclasses.replace(tiny_config(action_input).dynamics, num_patches=4, clip_length=FRAMES)
    model = stir(Dynamics(config))
    tokens = torch.randint(0, 16, (1, FRAMES, 4))
    actions = torch.randn(1, FRAMES - 1, 8, dtype=torch.double)
    found = dependence(lambda a: model.logits(tokens, shift_to_next_frame(a)), actions, FRAMES)
    assert torch.equal(found, torch.ones(FRAMES, FRAMES - 1).tril(-1).bool())

    logits = model.logits(tokens, shift_to_next_frame(actions))
    for t in range(FRAMES):
        changed = tokens.clone()
        changed[:, t] = (changed[:, t] + 1) % 16
        moved = (model.logits(changed, shift_to_next_frame(actions)) - logits).abs().amax(dim=(0, 2, 3)) > 0
        assert torch.equal(moved, torch.arange(FRAMES) >= t)
