"""Dreams: the cache equals recomputation, a dream does not depend on its batch, undo and fork do what they say."""

import pytest
import torch

from genie_datasets.base.errors import UserError
from genie_robotics.genie import Genie
from genie_robotics.models.sampling import Sampler, gumbel, num_masked
from tests.genie_robotics.conftest import random_genie, tiny_config

CODES = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 3], [3, 3, 3, 3, 3, 3, 3, 3, 3], [1, 2, 1, 2, 1, 2, 1, 2, 1]])


@pytest.mark.parametrize("temperature", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("num_prompt", [1, 4])
def test_cached_sampling_equals_recomputing_the_padded_window(genie, frames, num_prompt, temperature):
    genie = genie.double()  # 9 frames after a window of 6: it slides, whatever the prompt
    dreams = [
        genie.generate(frames[:, :num_prompt], CODES, seed=3, temperature=temperature, use_cache=use_cache)
        for use_cache in (True, False)
    ]
    assert torch.equal(*dreams)


def test_the_cache_is_exact_with_another_quantizer(frames):
    genie = random_genie(tiny_config("prepend", kind="fsq")).double()
    dreams = [genie.generate(frames[:, :3], CODES, use_cache=use_cache) for use_cache in (True, False)]
    assert torch.equal(*dreams)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_in_float32_cached_and_uncached_choose_the_same_tokens_but_for_ties(genie, frames, temperature):
    """Both paths compute every MaskGIT step of dreams that slide; they may differ only within 1e-4 of a tie."""
    cached = genie.start(frames[:, :3], seed=4, temperature=temperature)
    full = genie.start(frames[:, :3], seed=4, temperature=temperature, use_cache=False)
    asked = []
    ask_cached, ask_full = cached.frame_logits, full.frame_logits

    def both(state, action, past=None):
        of_cached = ask_cached(state, action, past)
        of_full = ask_full(state.without_caches(), action)

        def logits_of(tokens):
            a, b = of_cached(tokens), of_full(tokens)
            asked.append((a, b))
            return a

        return logits_of

    cached.frame_logits = both
    for codes in CODES.T:
        cached.step(codes)
    assert len(asked) == CODES.shape[1] * genie.config.dynamics.maskgit_steps
    for a, b in asked:
        torch.testing.assert_close(a, b, atol=5e-5, rtol=0)
        best = b.topk(2, dim=-1).values
        differing = a.argmax(-1) != b.argmax(-1)
        assert ((best[..., 0] - best[..., 1])[differing] < 1e-4).all()


@pytest.mark.parametrize("action_input", ["add", "prepend"])
def test_the_cache_is_exact_with_tokens_of_the_previous_frame(frames, action_input):
    config = tiny_config(action_input)
    config.dynamics.prev_frame_tokens = True
    genie = random_genie(config).double()
    dreams = [genie.generate(frames[:, :3], CODES, use_cache=use_cache) for use_cache in (True, False)]
    assert torch.equal(*dreams)
    plain = Genie(genie.config).double().eval()
    plain.load_state_dict(genie.state_dict())
    plain.dynamics.prev_frame_in.weight.data.zero_()
    assert not torch.equal(dreams[0], plain.generate(frames[:, :3], CODES)), "the previous tokens matter"


def test_every_code_changes_the_dream(genie, frames):
    start = frames[:1, :1].expand(4, -1, -1, -1, -1)
    logits = []
    for code in range(4):
        world = genie.start(start[:1])
        action = genie.latent_action.quantizer.lookup(torch.tensor([code])).unsqueeze(1)
        tokens = torch.full((1, genie.dynamics.config.num_patches), genie.dynamics.mask_token)
        logits.append(world.frame_logits(world.state, action)(tokens))
    for i in range(4):
        for j in range(i):
            assert (logits[i] - logits[j]).abs().max() > 1e-3


def test_a_dream_is_a_function_of_seed_and_sample_not_of_the_batch(genie, frames):
    genie = genie.double()
    together = genie.generate(frames[:, :2], CODES[:, :4], seed=5)
    alone = genie.generate(frames[:1, :2], CODES[:1, :4], seed=5)
    assert torch.equal(together[:1], alone)
    assert torch.equal(together, genie.generate(frames[:, :2], CODES[:, :4], seed=5))
    assert not torch.equal(together, genie.generate(frames[:, :2], CODES[:, :4], seed=6))


def test_stepping_a_world_is_generating(genie, frames):
    world = genie.start(frames[0, 0], seed=2)
    stepped = torch.stack([world.step(int(code)) for code in CODES[0]])
    assert torch.equal(stepped, genie.generate(frames[:1, :1], CODES[:1], seed=2)[0])
    assert stepped.shape[1:] == (16, 16, 3)
    assert stepped.dtype == torch.uint8


def test_undo_and_fork(genie, frames):
    world = genie.start(frames[0, 0], seed=2)
    first = world.step(1)
    fork = world.fork()
    second = world.step(2)
    assert torch.equal(world.undo(), first)
    assert torch.equal(world.step(2), second), "the same action after undo is the same dream"
    fork.step(3)
    assert torch.equal(world.frame, second), "a fork does not move the world it left"
    world.undo(2)
    assert torch.equal(world.step(1), first), "two steps back is the start"


def test_a_fork_shares_its_past_and_copies_nothing(genie, frames):
    world = genie.start(frames[:, :3])
    world.step([0, 1, 2])
    fork = world.fork()
    world.step([0, 0, 0])
    fork.step([3, 3, 3])
    for cache in ("dynamics_cache", "decoder_cache"):
        mine, other = getattr(world.state, cache).segments, getattr(fork.state, cache).segments
        assert all(a is b for a, b in zip(mine[:-1], other[:-1], strict=True))
        assert mine[-1] is not other[-1]


def test_actions_between_prompt_frames_are_inferred(genie, frames):
    world = genie.start(frames[:, :4])
    codes = genie.infer_actions(frames[:, :4])
    expected = genie.latent_action.quantizer.lookup(codes)
    torch.testing.assert_close(world.state.actions[:, 1:], expected)
    assert (world.state.actions[:, 0] == 0).all()


def test_long_clips_are_read_in_windows(genie, frames):
    codes = genie.infer_actions(frames)
    assert codes.shape == (3, 7)
    assert torch.equal(codes[:, :5], genie.infer_actions(frames[:, :6]))
    assert torch.equal(codes[:, 5:], genie.infer_actions(frames[:, 5:]))
    tokens = genie.tokenize(frames)
    assert tokens.shape == (3, 8, 16)
    assert genie.detokenize(tokens).shape == frames.shape
    assert genie.embed_actions(frames).shape == (3, 7, 8)


def test_bad_input_is_named(genie, frames):
    with pytest.raises(UserError, match="uint8"):
        genie.infer_actions(frames.float())
    with pytest.raises(UserError, match=r"16, 16, 3.*fit_frames"):
        genie.tokenize(torch.zeros(1, 2, 8, 8, 3, dtype=torch.uint8))
    with pytest.raises(UserError, match="at least 2 frames"):
        genie.infer_actions(frames[:, :1])
    with pytest.raises(UserError, match=r"codes must be \(B, n\)"):
        genie.generate(frames, CODES[:2])
    with pytest.raises(UserError, match=r"0 \.\. 3"):
        genie.start(frames[0, 0]).step(4)


@pytest.mark.parametrize("num_steps", [1, 3, 8, 25])
def test_the_cosine_schedule_fills_every_step_and_ends_empty(num_steps):
    left = [num_masked(i, num_steps, 64) for i in range(num_steps)]
    assert left[-1] == 0
    assert all(later < earlier for earlier, later in zip([64, *left], left, strict=False))


def test_tokens_are_filled_in_the_order_of_the_sampler():
    def from_the_left(log_prob, noise, temperature, progress):
        return -torch.arange(log_prob.shape[1]).expand_as(log_prob).float()

    shown = []
    sampler = Sampler(4, 1.0, order=from_the_left)
    sampler.sample(
        lambda tokens: shown.append(tokens == 9) or torch.zeros(*tokens.shape, 9),
        num_patches=8,
        mask_token=9,
        seed=0,
        samples=[0, 1],
        frame=0,
        device=torch.device("cpu"),
    )
    counts = [8, *(num_masked(step, 4, 8) for step in range(3))]
    for masked, count in zip(shown, counts, strict=True):
        assert torch.equal(masked, (torch.arange(8) >= 8 - count).expand(2, 8))


def test_noise_depends_on_seed_sample_frame_and_step():
    base = gumbel(1, [0], 2, 3, (50,))
    assert torch.equal(base, gumbel(1, [5, 0], 2, 3, (50,))[1:])
    for other in (gumbel(2, [0], 2, 3, (50,)), gumbel(1, [1], 2, 3, (50,)), gumbel(1, [0], 3, 3, (50,))):
        assert not torch.equal(base, other)
    assert not torch.equal(base, gumbel(1, [0], 2, 4, (50,)))
    many = gumbel(0, [0], 0, 0, (200_000,))
    assert abs(float(many.mean()) - 0.5772) < 0.01, "Gumbel's mean is Euler's constant"
