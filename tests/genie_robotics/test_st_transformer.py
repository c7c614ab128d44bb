"""The ST-transformer's layers: what each attends to, which parameters a block has, and decoding from a cache."""

import pytest
import torch
from torch import nn

from genie_robotics.models.layers import attention
from genie_robotics.models.layers.attention import SelfAttention
from genie_robotics.models.layers.cache import TemporalCache
from genie_robotics.models.layers.st_transformer import STBlock
from tests.genie_robotics.conftest import random_genie, tiny_config
from tests.genie_robotics.test_causality import FRAMES, stir

PATCHES = 4


def reached(layer: nn.Module) -> torch.Tensor:
    """(T, N) booleans: patches and frames that the last patch of frame 2 attends to, in one layer."""
    x = torch.randn(1, FRAMES, PATCHES, 16, dtype=torch.double, requires_grad=True)
    layer(x)[0, 2, -1].sum().backward()
    return x.grad[0].abs().sum(-1) > 0


def test_a_layer_attends_to_its_frame_or_to_the_past_of_its_patch():
    frame, patch = torch.arange(FRAMES)[:, None], torch.arange(PATCHES)
    assert torch.equal(reached(stir(SelfAttention(16, 2, "time"))), (frame <= 2) & (patch == PATCHES - 1))
    assert torch.equal(reached(stir(SelfAttention(16, 2, "space"))), (frame == 2) & (patch >= 0))


@pytest.mark.parametrize("grad", [False, True])
def test_attention_is_softmax_with_normalized_queries_and_keys(grad):
    """Compared with torch's own attention over time, with and without a gradient, and in two parts with a cache."""
    layer = stir(SelfAttention(16, 2, "time"))
    x = torch.randn(3, FRAMES, PATCHES, 16, dtype=torch.double)
    q, k, v = (part.transpose(1, 2).unflatten(-1, (2, 8)).transpose(2, 3) for part in layer.qkv(x).chunk(3, -1))
    q = nn.functional.rms_norm(q, (8,), eps=1e-5) * layer.q_norm
    k = nn.functional.rms_norm(k, (8,), eps=1e-5) * layer.k_norm
    y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    expected = layer.out(y.transpose(2, 3).flatten(-2).transpose(1, 2))
    with torch.set_grad_enabled(grad):
        torch.testing.assert_close(layer(x), expected)
    with torch.no_grad():
        cache = TemporalCache.empty(1, 3 * PATCHES * 2, FRAMES + 1, 8, x)
        first = layer(x[:, :2], cache.layers(2)[0])
        later = layer(x[:, 2:], cache.extended(2).layers(FRAMES - 2)[0])
        torch.testing.assert_close(torch.cat([first, later], dim=1), expected)


def test_a_fused_call_has_at_most_the_rows_that_a_gpu_takes(monkeypatch):
    q, k, v = torch.randn(3, 10, 2, 5, 8)
    whole = attention.fused_attention(q, k, v, causal=True)
    monkeypatch.setattr(attention, "MAX_ROWS", 4)
    torch.testing.assert_close(attention.fused_attention(q, k, v, causal=True), whole)


def test_parameters_of_a_block():
    names = {name for name, _ in STBlock(16, 2).named_parameters()}
    layers = {f"{part}.{weight}" for part in ("spatial", "temporal") for weight in ("q_norm", "k_norm")}
    layers |= {f"{part}.{linear}.weight" for part in ("spatial", "temporal") for linear in ("qkv", "out")}
    norms = {f"{part}_norm.{entry}" for part in ("spatial", "temporal", "ffw") for entry in ("weight", "bias")}
    assert names == layers | norms | {f"ffw.{i}.{entry}" for i in (0, 2) for entry in ("weight", "bias")}
    assert STBlock(16, 2).ffw[0].out_features == 64


@torch.no_grad()
def test_the_tokenizer_decodes_from_a_cache_what_it_decodes_from_the_window(frames):
    """In float64, so that only a difference of method could show."""
    genie = random_genie(tiny_config()).double()
    tokens = genie.tokenize(frames[:, :6])
    pixels = genie.tokenizer.pixels(genie.tokenizer.quantizer.lookup(tokens))
    assert (pixels[:, 1:] - pixels[:, :-1]).abs().max() > 1e-3
    cached = genie.start(frames[:, :3])
    assert torch.equal(cached.state.frame, genie.detokenize(tokens[:, :3])[:, -1])
    next_frame = genie.tokenizer.decode(tokens[:, 3:4], None, cached.state.decoder_cache)
    assert torch.equal(next_frame, genie.detokenize(tokens[:, :4])[:, 3:])


def test_every_parameter_of_the_tokenizer_gets_a_gradient(frames):
    tokenizer = random_genie(tiny_config()).tokenizer.train()
    tokenizer(frames[:, :6])[0].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in tokenizer.parameters())
