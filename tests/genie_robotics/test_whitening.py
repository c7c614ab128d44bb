"""Whitened distances give a faint difference a code of its own; held codes stand still and let no gradient pass."""

import pytest
import torch
from torch import Tensor

from genie_robotics.models.quantizers.codebook import Codebook
from genie_robotics.models.quantizers.config import CodebookConfig
from genie_robotics.models.quantizers.whitening import Whitening

DIM = 8


def make(num_codes: int = 8, seed: int = 0, **changes) -> Codebook:
    torch.manual_seed(seed)
    return Codebook(CodebookConfig(num_codes=num_codes, latent_dim=DIM, **changes)).train()


def clusters(seed: int, which: list[int], noise: float = 0.1) -> Tensor:
    """Latents (64, DIM) near the signed unit axes named in `which`."""
    generator = torch.Generator().manual_seed(seed)
    axes = torch.cat([torch.eye(DIM), -torch.eye(DIM)])
    chosen = torch.tensor(which)[torch.randint(len(which), (64,), generator=generator)]
    return axes[chosen] + noise * torch.randn(64, DIM, generator=generator)


def feed(book: Codebook, steps: range, which: list[int]) -> None:
    for step in steps:
        torch.manual_seed(step)
        book(clusters(step, which))


def state(book: Codebook) -> dict[str, Tensor]:
    """All that a checkpoint keeps: buffers of training too."""
    return {k: v.detach().clone() for k, v in book.named_buffers()}


def restore(book: Codebook, stored: dict[str, Tensor]) -> Codebook:
    for name, value in stored.items():
        owner, _, leaf = name.rpartition(".")
        setattr(book.get_submodule(owner), leaf, value.clone())
    return book


def planted(num: int = 4000, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Latents (num, DIM) whose first number wanders widely and means nothing, whose second takes two values that lie
    close together, and the group (num,) of each."""
    generator = torch.Generator().manual_seed(seed)
    group = torch.randint(2, (num,), generator=generator)
    latents = 0.001 * torch.randn(num, DIM, generator=generator)
    latents[:, 0] += 2 * torch.rand(num, generator=generator)
    latents[:, 1] += 0.3 * group
    return latents, group


def test_it_makes_spreads_alike_above_the_floor_and_is_undone_exactly():
    latents, _ = planted()
    mixed = latents @ torch.linalg.qr(torch.randn(DIM, DIM, generator=torch.Generator().manual_seed(1)))[0]
    white = Whitening(DIM, 0.001)
    white.fit(mixed)
    spread = torch.linalg.eigvalsh(torch.cov(white(mixed).T)).flip(0)
    assert spread[:2] == pytest.approx([1.0, 1.0], abs=0.05), "0.3 * group spreads by .15 of the .58 of the first"
    assert spread[2:].max() < 0.01, "what is far below the floor is noise and stays small"
    assert torch.allclose(white.undo(white(mixed)), mixed, atol=1e-5)


def test_what_is_not_finite_is_left_out_of_the_fit():
    latents, _ = planted(100)
    clean, spoilt = Whitening(DIM, 0.01), Whitening(DIM, 0.01)
    clean.fit(latents)
    spoilt.fit(torch.cat([latents, torch.full((1, DIM), torch.inf)]))
    assert torch.equal(clean.forth, spoilt.forth)


def agreement(whiten: float) -> float:
    latents, group = planted()
    book = make(2, start_after=4, num_remembered=4000, whiten=whiten)
    book.normalise = lambda z: z  # the planted spreads, as they are
    for piece in latents.split(800):
        book(piece)
    same = (book.nearest(latents) == group).float().mean()
    return float(torch.maximum(same, 1 - same))


def test_codes_follow_the_faint_difference_only_where_they_are_whitened():
    assert agreement(0.0) < 0.6
    assert agreement(0.001) > 0.99


def test_held_codes_stand_still_and_nothing_reaches_the_latents_once_they_are_given_out():
    book = make(start_after=3, whiten=0.01, hold=True)
    early = clusters(0, [0, 1, 2]).requires_grad_()
    book(early)[0].square().sum().backward()
    assert early.grad.abs().sum() > 0, "before the start, latents pass through"
    feed(book, range(10), [0, 1, 2, 9, 10])
    before = book.vectors.clone()
    feed(book, range(10, 60), [3, 4])
    assert torch.equal(book.vectors, before)
    late = clusters(0, [0, 1, 2]).requires_grad_()
    quantised, codes, loss = book(late)
    assert not quantised.requires_grad
    assert not loss.requires_grad
    assert torch.allclose(quantised, book.vectors[codes])
    assert book.usage.sum() > 0


@pytest.mark.parametrize("cut", [2, 12, 40])
@pytest.mark.parametrize("hold", [True, False])
def test_saved_loaded_and_continued_equals_uninterrupted(hold, cut):
    options = {"start_after": 5, "whiten": 0.03, "hold": hold}
    whole, first = make(**options), make(**options)
    feed(whole, range(60), [0, 1, 2])
    feed(first, range(cut), [0, 1, 2])
    resumed = restore(make(seed=5, **options), state(first))
    feed(resumed, range(cut, 60), [0, 1, 2])
    assert all(torch.equal(v, state(resumed)[k]) for k, v in state(whole).items())


def test_forward_lookup_and_nearest_agree_where_distances_are_whitened():
    book = make(whiten=0.05, start_after=3)
    feed(book, range(20), [0, 1, 2, 9, 10])
    book.eval()
    latents = clusters(99, [0, 1, 2, 9, 10], noise=0.5)
    quantised, codes, _ = book(latents)
    torch.testing.assert_close(book.lookup(codes), quantised, atol=1e-5, rtol=0)
    assert torch.equal(book.nearest(latents), codes)
    white = book.vq.whitening
    z = white(book.normalise(latents))
    assert torch.equal((z[:, None] - white(book.vectors)).square().sum(-1).argmin(-1), codes)


@pytest.mark.parametrize("wrong", [{"whiten": -1.0}, {"kind": "fsq", "whiten": 0.1}, {"kind": "fsq", "hold": True}])
def test_what_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match="whiten"):
        CodebookConfig(num_codes=8, **wrong)
