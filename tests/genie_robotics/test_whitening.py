"""Whitened distances give a faint difference a code of its own; frozen codes do not move and pass no gradient."""

import pytest
import torch
from torch import Tensor

from genie_robotics.models.quantizers.whitening import Whitening
from tests.genie_robotics.test_quantizers import DIM, clusters, feed, make, restore, state


def planted(num: int = 4000, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Latents (num, DIM) whose first number varies widely and means nothing, whose second takes two values that lie
    close together, and the group (num,) of each."""
    generator = torch.Generator().manual_seed(seed)
    group = torch.randint(2, (num,), generator=generator)
    latents = 0.001 * torch.randn(num, DIM, generator=generator)
    latents[:, 0] += 2 * torch.rand(num, generator=generator)
    latents[:, 1] += 0.3 * group
    return latents, group


def test_spreads_above_the_floor_become_equal_and_the_inverse_is_exact():
    latents, _ = planted()
    mixed = latents @ torch.linalg.qr(torch.randn(DIM, DIM, generator=torch.Generator().manual_seed(1)))[0]
    white = Whitening(DIM, 0.001)
    white.fit(mixed)
    spread = torch.linalg.eigvalsh(torch.cov(white(mixed).T)).flip(0)
    assert spread[:2] == pytest.approx([1.0, 1.0], abs=0.05), "0.3 * group spreads by 0.15, the first number by 0.58"
    assert spread[2:].max() < 0.01, "a direction far below the floor is noise and stays small"
    assert torch.allclose(white.inverse(white(mixed)), mixed, atol=1e-5)


def test_latents_that_are_not_finite_are_left_out_of_the_fit():
    latents, _ = planted(100)
    clean, broken = Whitening(DIM, 0.01), Whitening(DIM, 0.01)
    clean.fit(latents)
    broken.fit(torch.cat([latents, torch.full((1, DIM), torch.inf)]))
    assert torch.equal(clean.matrix, broken.matrix)


def agreement(whiten: float) -> float:
    latents, group = planted()
    quantizer = make(2, quantize_after_steps=4, num_remembered=4000, whiten=whiten)
    quantizer.normalize = lambda z: z  # the planted spreads, as they are
    for batch in latents.split(800):
        quantizer(batch)
    same = (quantizer.nearest(latents) == group).float().mean()
    return float(torch.maximum(same, 1 - same))


def test_codes_follow_the_faint_difference_only_if_latents_are_whitened():
    assert agreement(0.0) < 0.6
    assert agreement(0.001) > 0.99


def test_frozen_codes_do_not_move_and_pass_no_gradient():
    quantizer = make(quantize_after_steps=3, whiten=0.01, freeze_after_init=True)
    early = clusters(0, [0, 1, 2]).requires_grad_()
    quantizer(early)[0].square().sum().backward()
    assert early.grad.abs().sum() > 0, "before the start, latents pass through"
    assert not quantizer.frozen
    feed(quantizer, range(10), [0, 1, 2, 9, 10])
    assert quantizer.frozen
    before = quantizer.vectors.clone()
    feed(quantizer, range(10, 60), [3, 4])
    assert torch.equal(quantizer.vectors, before)
    late = clusters(0, [0, 1, 2]).requires_grad_()
    vectors, codes, loss = quantizer(late)
    assert not vectors.requires_grad
    assert not loss.requires_grad
    assert torch.allclose(vectors, quantizer.vectors[codes])
    assert quantizer.usage.sum() > 0


@pytest.mark.parametrize("cut", [2, 12, 40])
@pytest.mark.parametrize("frozen", [True, False])
def test_saved_loaded_and_continued_equals_uninterrupted(frozen, cut):
    options = {"quantize_after_steps": 5, "whiten": 0.03, "freeze_after_init": frozen}
    whole, first = make(**options), make(**options)
    feed(whole, range(60), [0, 1, 2])
    feed(first, range(cut), [0, 1, 2])
    resumed = restore(make(seed=5, **options), state(first))
    feed(resumed, range(cut, 60), [0, 1, 2])
    assert all(torch.equal(v, state(resumed)[k]) for k, v in state(whole).items())


def test_forward_lookup_and_nearest_agree_with_whitened_distances():
    quantizer = make(whiten=0.05, quantize_after_steps=3)
    feed(quantizer, range(20), [0, 1, 2, 9, 10])
    quantizer.eval()
    latents = clusters(99, [0, 1, 2, 9, 10], noise=0.5)
    vectors, codes, _ = quantizer(latents)
    torch.testing.assert_close(quantizer.lookup(codes), vectors, atol=1e-5, rtol=0)
    assert torch.equal(quantizer.nearest(latents), codes)
    white = quantizer.whitening
    z = white(quantizer.normalize(latents))
    assert torch.equal((z[:, None] - white(quantizer.vectors)).square().sum(-1).argmin(-1), codes)
