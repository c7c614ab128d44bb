"""The ablations of the tokenizer: each frame on its own, and full space-time attention."""

import dataclasses

import pytest
import torch
from torch import nn

from genie_datasets.base.errors import UserError
from genie_robotics.genie import Genie
from genie_robotics.models.config import GenieConfig, from_dict, to_dict
from genie_robotics.models.layers.attention import SelfAttention
from genie_robotics.models.layers.full_attention import SpaceTimeAttention
from genie_robotics.models.layers.st_transformer import ATTENTIONS, STBlock, STTransformer
from genie_robotics.models.quantizers.config import CodebookConfig
from genie_robotics.models.video_tokenizer import TokenizerConfig, VideoTokenizer
from tests.genie_robotics.conftest import random_genie, tiny_config
from tests.genie_robotics.test_causality import FRAMES, LOWER, dependence, stir
from tests.genie_robotics.test_world import CODES

PATCHES = 4
SEEN = {"st": LOWER, "spatial": torch.eye(FRAMES).bool(), "full": LOWER}
"""Which frames each may and does depend on."""


def tokenizer(attention: str) -> VideoTokenizer:
    config = TokenizerConfig(
        image_size=(16, 16),
        clip_length=FRAMES,
        patch=8,
        encoder_width=16,
        encoder_blocks=2,
        encoder_heads=2,
        decoder_width=16,
        decoder_blocks=2,
        decoder_heads=2,
        codebook=CodebookConfig(num_codes=16, latent_dim=8),
        attention=attention,
    )
    return stir(VideoTokenizer(config))


def variant(attention: str, **changes) -> GenieConfig:
    config = tiny_config(**changes)
    return dataclasses.replace(config, tokenizer=dataclasses.replace(config.tokenizer, attention=attention)).resolved()


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_encoder_and_decoder_depend_on_the_frames_that_the_variant_sees_and_no_others(attention):
    model = tokenizer(attention)
    frames = torch.rand(1, FRAMES, 16, 16, 3, dtype=torch.double)
    latents = torch.randn(1, FRAMES, PATCHES, 8, dtype=torch.double)
    assert torch.equal(dependence(model.latents, frames, FRAMES), SEEN[attention])
    assert torch.equal(dependence(model.pixels, latents, FRAMES), SEEN[attention])


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_every_patch_of_the_frame_is_seen(attention):
    model = stir(STTransformer(16, 1, 2, num_patches=PATCHES, max_frames=FRAMES, attention=attention))
    x = torch.randn(1, FRAMES, PATCHES, 16, dtype=torch.double, requires_grad=True)
    model(x)[0, 2, 0].sum().backward()
    assert (x.grad[0, 2].abs().sum(-1) > 0).all()


def reached(layer: nn.Module) -> torch.Tensor:
    """(T, N) booleans: which patches of which frames does the last patch of frame 2 attend to, in one layer?"""
    x = torch.randn(1, FRAMES, PATCHES, 16, dtype=torch.double, requires_grad=True)
    layer(x)[0][0, 2, -1].sum().backward()
    return x.grad[0].abs().sum(-1) > 0


def test_a_full_layer_attends_to_other_patches_of_the_past_which_no_layer_of_an_st_block_does():
    past_and_now = torch.arange(FRAMES)[:, None].le(2).expand(FRAMES, PATCHES)
    last = torch.arange(PATCHES).eq(PATCHES - 1).expand(FRAMES, PATCHES)
    now = torch.arange(FRAMES)[:, None].eq(2).expand(FRAMES, PATCHES)
    assert torch.equal(reached(stir(SpaceTimeAttention(16, 2))), past_and_now)
    assert torch.equal(reached(stir(SelfAttention(16, 2, "time"))), past_and_now & last)
    assert torch.equal(reached(stir(SelfAttention(16, 2, "space"))), now)


@pytest.mark.parametrize("grad", [False, True])
def test_full_attention_is_softmax_under_a_block_causal_mask(grad):
    """Against torch's own attention with the mask written out, with and without a gradient, and in two pieces."""
    layer = stir(SpaceTimeAttention(16, 2))
    x = torch.randn(3, FRAMES, PATCHES, 16, dtype=torch.double)
    flat = x.flatten(1, 2)
    q, k, v = (part.unflatten(-1, (2, 8)).transpose(1, 2) for part in layer.qkv(flat).chunk(3, -1))
    q = nn.functional.rms_norm(q, (8,), eps=1e-5) * layer.q_norm
    k = nn.functional.rms_norm(k, (8,), eps=1e-5) * layer.k_norm
    frame = torch.arange(FRAMES).repeat_interleave(PATCHES)
    mask = frame[:, None] >= frame[None, :]
    y = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    expected = layer.out(y.transpose(1, 2).flatten(-2)).view_as(x)
    with torch.set_grad_enabled(grad):
        whole, keys_values = layer(x)
        torch.testing.assert_close(whole, expected)
        first, past = layer(x[:, :2])
        torch.testing.assert_close(torch.cat([first, layer(x[:, 2:], past)[0]], dim=1), expected)
    assert keys_values[0].shape == (3 * PATCHES, 2, FRAMES, 8)


@pytest.mark.parametrize("width", [16, 128])
def test_a_block_has_as_many_parameters_in_each_variant(width):
    def count(attention: str) -> int:
        model = STTransformer(width, 1, 2, num_patches=PATCHES, max_frames=FRAMES, attention=attention)
        return sum(p.numel() for block in model.blocks for p in block.parameters())

    assert count("st") - count("spatial") == count("st") - count("full") == 2 * (width // 2)


def test_the_default_is_the_st_block_that_it_was():
    names = {name for name, _ in STBlock(16, 2).named_parameters()}
    layers = {f"{part}.{weight}" for part in ("spatial", "temporal") for weight in ("q_norm", "k_norm")}
    layers |= {f"{part}.{linear}.weight" for part in ("spatial", "temporal") for linear in ("qkv", "out")}
    norms = {f"{part}_norm.{entry}" for part in ("spatial", "temporal", "ffw") for entry in ("weight", "bias")}
    assert names == layers | norms | {f"ffw.{i}.{entry}" for i in (0, 2) for entry in ("weight", "bias")}
    assert STBlock(16, 2).ffw[0].out_features == 64


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("num_prompt", [1, 4])
def test_the_cached_decode_equals_decoding_the_window(frames, attention, num_prompt):
    """9 frames after a window of 6: it slides. In float64, so that only a difference of method could show."""
    genie = random_genie(variant(attention)).double()
    dreams = [
        genie.generate(frames[:, :num_prompt], CODES, seed=3, temperature=1.0, use_cache=use_cache)
        for use_cache in (True, False)
    ]
    assert torch.equal(*dreams)
    tokens = genie.tokenize(frames[:, :6])
    whole = genie.tokenizer.pixels(genie.tokenizer.codebook.lookup(tokens))
    assert (whole[:, 1:] - whole[:, :-1]).abs().max() > 1e-3
    cached = genie.start(frames[:, :3])
    of_three = genie.detokenize(tokens[:, :3])
    past = cached.state.decoder_cache.gather()
    one_more, _ = genie.tokenizer.decode_after(tokens[:, 3:4], past)
    assert torch.equal(cached.state.frame, of_three[:, -1])
    assert torch.equal(one_more, genie.detokenize(tokens[:, :4])[:, 3:])


def test_tokens_of_a_spatial_tokenizer_do_not_depend_on_their_window(frames):
    genie = random_genie(variant("spatial"))
    assert torch.equal(genie.tokenize(frames)[:, 2:5], genie.tokenize(frames[:, 2:5]))


@pytest.mark.parametrize("attention", ATTENTIONS[1:])
def test_a_variant_trains_is_stored_and_is_another_model_than_the_default(tmp_path, frames, attention):
    genie = random_genie(variant(attention))
    genie.tokenizer.train()
    loss, _ = genie.tokenizer(frames[:, :6])
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in genie.tokenizer.decoder.parameters())
    genie.eval()
    genie.save_pretrained(tmp_path)
    again = Genie.from_pretrained(tmp_path)
    assert again.config.tokenizer.attention == attention
    assert torch.equal(genie.detokenize(genie.tokenize(frames)), again.detokenize(again.tokenize(frames)))


def test_recomputed_activations_give_the_same_gradient(frames):
    found = []
    for checkpoint in (False, True):
        genie = random_genie(variant("full"))
        genie.tokenizer.train()
        genie.tokenizer.encoder.checkpoint_activations = checkpoint
        genie.tokenizer(frames[:, :6])[0].backward()
        found.append(genie.tokenizer.patch_in.weight.grad)
    assert torch.equal(*found)


def test_configurations_from_before_are_the_default_and_wrong_ones_are_named():
    stored = to_dict(tiny_config())
    del stored["tokenizer"]["attention"]
    assert from_dict(GenieConfig, stored, "config.json") == tiny_config()
    stored["tokenizer"]["attention"] = "none"
    with pytest.raises(UserError, match=r"config.json: attention must be one of st, spatial, full, not 'none'"):
        from_dict(GenieConfig, stored, "config.json")
