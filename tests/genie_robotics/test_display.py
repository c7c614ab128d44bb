"""Frames larger than the model's: what the model keeps is the sharp picture, and its own frames stay what they were."""

import numpy as np
import pytest
import torch

from genie_datasets import fit_frames
from genie_datasets.base.errors import UserError
from genie_robotics.genie import Genie
from genie_robotics.models.display import Display, display_size
from tests.genie_robotics.conftest import random_genie, tiny_config
from tests.genie_robotics.test_reference import noise, with_reference

CODES = (0, 1, 2, 3, 0, 1, 2, 3)


@pytest.fixture
def genie() -> Genie:
    return random_genie(with_reference())


@pytest.fixture
def picture() -> torch.Tensor:
    return noise(80, 80, 3)


def set_gate(genie: Genie, gates: torch.Tensor | float) -> None:
    """Lets the tokenizer predict these gates (before the sigmoid) for all tokens: one, or one per pixel of a patch."""
    genie.tokenizer.patch_out.weight.data.zero_()
    genie.tokenizer.patch_out.bias.data.view(-1, 4)[:, 3] = gates
    genie.tokenizer.is_kept = lambda vectors: torch.zeros(vectors.shape[:-1], dtype=torch.bool)


@pytest.mark.parametrize("size", [32, 64, 61, (48, 48)])
def test_a_kept_picture_is_shown_as_sharp_as_it_is(genie, picture, size):
    set_gate(genie, 12.0)
    world = genie.start(picture, display=size)
    shape = display_size(size, (16, 16))
    for code in CODES:
        assert torch.equal(world.display, torch.from_numpy(fit_frames(picture.numpy(), shape)))
        world.step(code)


def test_where_the_gate_is_one_a_pixel_is_the_pictures(genie, picture):
    gates = torch.full((4, 4), -12.0)
    gates[:, :3] = 12.0  # of each patch's columns the last takes the color
    set_gate(genie, gates.flatten())
    world = genie.start(picture, display=64)
    world.step(1)
    sharp, display = torch.from_numpy(fit_frames(picture.numpy(), (64, 64))), world.display
    open_columns = torch.arange(64) // 4 % 4 == 3
    near = open_columns | open_columns.roll(-2) | open_columns.roll(2)  # bilinear: half a pixel of the model
    assert torch.equal(display[:, ~near], sharp[:, ~near])
    assert not (~near).all()
    assert (~near).sum() >= 24
    assert (display[:, open_columns].float() - sharp[:, open_columns].float()).abs().mean() > 20


def test_where_the_gate_is_zero_the_frame_is_enlarged(genie, picture):
    set_gate(genie, -20.0)
    world = genie.start(picture, display=64)
    enlarged = Display((64, 64), None, world.state.frame).show(world.state.frame, None)[0]
    assert (world.display.float() - enlarged.float()).abs().max() <= 1


@pytest.mark.parametrize("use_cache", [True, False])
def test_a_display_changes_no_frame_of_the_model(genie, picture, use_cache):
    plain, shown = (genie.start(picture, use_cache=use_cache, display=display) for display in (None, 64))
    for code in CODES:
        assert torch.equal(plain.frame, shown.frame)
        assert torch.equal(plain.display, plain.frame)
        assert shown.display.shape == (64, 64, 3)
        plain.step(code), shown.step(code)


def test_cached_and_uncached_displays_are_equal(genie, picture):
    worlds = [genie.double().start(picture, use_cache=use_cache, display=64) for use_cache in (True, False)]
    for code in CODES:
        assert torch.equal(worlds[0].display, worlds[1].display)
        for world in worlds:
            world.step(code)


def test_undo_forks_and_previews_are_displayed(genie, picture):
    genie = genie.double()
    world = genie.start(picture, display=64)
    world.step(1)
    before, previews = world.display, world.preview(at_display_size=True)
    assert previews.shape == (4, 64, 64, 3)
    assert world.preview([], at_display_size=True).shape == (0, 64, 64, 3)
    for code in range(4):
        fork = world.fork()
        fork.step(code)
        assert torch.equal(fork.display, previews[code])
    world.step(2)
    world.undo()
    assert torch.equal(world.display, before)


def test_each_dream_of_a_batch_keeps_its_own_picture(genie):
    genie = genie.double()
    pictures = noise(3, 1, 80, 80, 3)
    codes = torch.tensor([CODES] * 3)
    together = genie.generate(pictures, codes, temperature=0, display=64)
    assert together.shape == (3, 8, 64, 64, 3)
    small = torch.from_numpy(fit_frames(pictures.numpy(), (16, 16)))
    plain = genie.generate(small, codes, temperature=0)
    for row in range(3):
        world = genie.start(pictures[row, 0], temperature=0, display=64)
        for t, code in enumerate(CODES):
            assert torch.equal(world.step(code), plain[row, t])
            assert torch.equal(world.display, together[row, t])
    assert genie.generate(pictures, codes[:, :0], display=64).shape == (3, 0, 64, 64, 3)
    assert genie.start(pictures, display=64).display.shape == (3, 64, 64, 3)


def test_a_picture_that_is_not_larger_is_only_enlarged(genie):
    small = noise(16, 16, 3)
    set_gate(genie, 12.0)
    world = genie.start(small, display=64)
    assert torch.equal(world.display, Display((64, 64), None, small[None]).show(small[None], None)[0])


def test_a_world_without_a_reference_is_enlarged(picture):
    genie = random_genie(tiny_config())
    world = genie.start(picture, display=64)
    world.step(1)
    assert world.state.gate is None
    assert torch.equal(world.display, Display((64, 64), None, world.state.frame).show(world.state.frame, None)[0])


def test_the_shipped_world_can_be_displayed():
    genie = Genie.from_pretrained("nano-tabletop")
    picture = noise(100, 140, 3).numpy()
    dream = genie.generate(picture[None, None], [[1, 2]], display=256)
    assert dream.shape == (1, 2, 256, 256, 3)
    assert torch.equal(
        genie.generate(fit_frames(picture, (64, 64), genie.config.fit)[None, None], [[1, 2]])[0],
        fit_steps(genie, picture),
    )


def fit_steps(genie: Genie, picture: np.ndarray) -> torch.Tensor:
    world = genie.start(picture, display=256)
    return torch.stack([world.step(1), world.step(2)])


def test_sizes_of_the_display():
    assert display_size(None, (64, 80)) == (64, 80)
    assert display_size(64, (64, 80)) == (64, 80)
    assert display_size(128, (64, 80)) == (128, 160)
    assert display_size((128, 160), (64, 80)) == (128, 160)
    assert display_size([97, 121], (64, 80)) == (97, 121)
    for wrong in (63, 1025, 900, 0, -1, 64.0, True, "64", (64,), (128, 128), (64, 80, 3), (64.0, 80.0), (2048, 2560)):
        with pytest.raises(UserError, match=r"display must be .* 64 .. 819 pixels.*64x80.*pass display=256"):
            display_size(wrong, (64, 80))


def test_errors_come_before_anything_is_computed(genie, picture):
    for ask in (lambda: genie.start(picture, display=8), lambda: genie.generate(picture[None, None], [[0]], display=8)):
        with pytest.raises(UserError, match="display must be"):
            ask()
    assert genie.generate(picture[None, None], [[0]], display=64).shape == (1, 1, 64, 64, 3)  # what the error says
    with pytest.raises(UserError, match="resize with genie_datasets.fit_frames"):
        genie.generate(picture[None, None], [[0]])
