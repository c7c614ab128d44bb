"""Dreams: the cache equals recomputation, a dream does not depend on its batch, undo and fork do what they say."""

import hashlib
import random

import pytest
import torch

from genie_datasets.base.errors import UserError
from genie_robotics.genie import Genie
from genie_robotics.models.sampling import Sampler, choose, halton, num_masked, uniform
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

    def both(state, action):
        of_cached = ask_cached(state, action)
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


@torch.no_grad()
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


def buffers(world):
    return [cache.buffers for cache in (world.state.dynamics_cache, world.state.decoder_cache)]


def test_a_fork_shares_its_past_until_it_goes_another_way(genie, frames):
    world = genie.start(frames[:, :3])
    world.step([0, 1, 2])
    fork = world.fork()
    assert all(a is b for a, b in zip(buffers(world), buffers(fork), strict=True)), "a fork copies nothing"
    world.step([0, 0, 0])
    shared = buffers(world)
    fork.step([3, 3, 3])
    assert not any(a is b for a, b in zip(shared, buffers(fork), strict=True))
    assert all(a is b for a, b in zip(shared, buffers(world), strict=True)), "who goes first keeps the buffers"


@pytest.mark.parametrize("seed", range(4))
def test_forks_undone_steps_and_previews_never_disturb_each_other(genie, frames, seed):
    """Random walks over one tree of dreams; every world must dream what a new one dreams from the same actions."""
    rng = random.Random(seed)
    genie = genie.double()
    worlds = [(genie.start(frames[:1, :2], seed=1), [])]
    for _ in range(40):
        world, played = rng.choice(worlds)
        kind = rng.choice(["step", "step", "step", "undo", "fork", "preview"])
        if kind == "step":
            code = rng.randrange(4)
            world.step(code)
            played.append(code)
        elif kind == "undo" and played:
            steps = rng.randint(1, min(3, len(played)))
            world.undo(steps)
            del played[len(played) - steps :]
        elif kind == "fork" and len(worlds) < 5:
            worlds.append((world.fork(), list(played)))
        elif kind == "preview":
            world.preview([0, 3])
    for world, played in worlds:
        fresh = genie.start(frames[:1, :2], seed=1)
        for code in played:
            fresh.step(code)
        assert torch.equal(world.state.tokens, fresh.state.tokens)
        assert torch.equal(world.step(2), fresh.step(2))


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


@pytest.mark.parametrize("grid", [(8, 8), (6, 10), (1, 5), (24, 40)])
def test_the_halton_order_fills_every_patch_and_spreads_each_step(grid):
    rows, columns = grid
    scores = halton(grid)(torch.zeros(2, rows * columns), torch.zeros(()), 1.0, 0.5)
    assert torch.equal(scores[0], scores[1])
    order = (-scores[0]).argsort()
    assert sorted(order.tolist()) == list(range(rows * columns))
    if min(grid) >= 6:  # the first quarter has about as many patches in each quadrant
        first = order[: rows * columns // 4]
        quadrant = 2 * (first // columns >= rows / 2) + (first % columns >= columns / 2)
        share = quadrant.bincount(minlength=4) / len(first)
        assert (share - 0.25).abs().max() < 0.1


def test_the_order_of_the_configuration_is_used(frames):
    config = tiny_config()
    config.dynamics.order = "halton"
    world = random_genie(config).start(frames[:1, :1])
    scores = world.sampler.order(torch.zeros(1, 16), torch.zeros(1, 16), 1.0, 0.5)
    assert torch.equal(scores, halton((4, 4))(torch.zeros(1, 16), torch.zeros(1, 16), 1.0, 0.5))


def test_noise_depends_on_seed_sample_and_frame():
    def noise(seed, samples, frame):
        return uniform(seed, samples, frame, (5, 10), torch.device("cpu"))

    base = noise(1, [0], 2)
    assert torch.equal(base, noise(1, [5, 0], 2)[1:]), "not on the batch"
    for other in (noise(2, [0], 2), noise(1, [1], 2), noise(1, [0], 3)):
        assert (base != other).all()
    assert len(base.unique()) == 50, "each step has its own"


def test_noise_is_uniform_and_independent():
    many = uniform(0, list(range(64)), 0, (8, 2, 256), torch.device("cpu")).double()
    assert float(many.min()) > 0
    assert float(many.max()) < 1
    flat = many.flatten().sort().values
    assert (flat - torch.linspace(0, 1, len(flat)).double()).abs().max() < 0.005, "Kolmogorov-Smirnov"
    for other in (many.roll(1, 0), many.roll(1, 1), many.roll(1, 2), many.roll(1, 3)):
        together = torch.corrcoef(torch.stack([many.flatten(), other.flatten()]))[0, 1]
        assert abs(float(together)) < 0.01


def test_noise_is_splitmix64():
    """Against the published algorithm (Steele et al. 2014) in integers of Python."""
    key = int.from_bytes(hashlib.blake2b(b"7 3 2", digest_size=8).digest(), "little")
    expected = []
    for i in range(20):
        z = (key + i * 0x9E3779B97F4A7C15) % 2**64
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
        z ^= z >> 31
        expected.append(((z >> 41) + 0.5) / 2**23)
    assert uniform(7, [3], 2, (20,), torch.device("cpu"))[0].tolist() == expected


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_are_chosen_with_their_probabilities(temperature):
    torch.manual_seed(0)
    logits = torch.randn(1, 1, 6).expand(400, 500, 6)
    noise = uniform(0, list(range(400)), 0, (500,), torch.device("cpu"))
    share = choose(logits, noise, temperature).flatten().bincount(minlength=6) / 200_000
    torch.testing.assert_close(share, (logits[0, 0] / temperature).softmax(-1), atol=0.005, rtol=0)


def test_at_temperature_0_the_most_likely_token_is_chosen():
    logits = torch.randn(3, 4, 6)
    assert torch.equal(choose(logits, torch.rand(3, 4), 0.0), logits.argmax(-1))


def test_the_ends_of_the_distribution_are_tokens():
    logits = torch.tensor([[[0.0, 0.0, -200.0], [-200.0, 0.0, 0.0]]])
    for place, expected in ((2**-24, [0, 1]), (1 - 2**-24, [1, 2])):
        assert choose(logits, torch.full((1, 2), place), 1.0).tolist() == [expected]


@pytest.mark.slow  # 10 to 60 s of compilation; compiled training blocks are slow tests too
def test_compiled_dreams_are_the_same(frames):
    genie = random_genie(tiny_config())
    expected = genie.generate(frames[:1, :2], CODES[:1], seed=3)
    genie.compile_dreams()
    assert torch.equal(genie.generate(frames[:1, :2], CODES[:1], seed=3), expected)


def test_a_machine_that_cannot_compile_says_why(genie, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr("genie_robotics.models.compilation.shutil.which", lambda name: None)
    with pytest.raises(UserError, match="no C\\+\\+ compiler; install it, or leave out"):
        genie.compile_dreams()
    assert not genie.dynamics.transformer.compile_single_frames


def test_the_token_of_what_stands_still_competes_with_all_changes_together():
    """It is the most likely token here, and less likely than a change."""
    probabilities = torch.tensor([0.1, 0.2, 0.3, 0.1, 0.3 - 1e-3, 1e-3])
    logits, kept = (probabilities * 7).log().expand(1, 100_000, 6), torch.tensor(2)
    noise = uniform(0, [0], 0, (100_000,), torch.device("cpu"))
    plain = choose(logits, noise, 1.0, kept).flatten().bincount(minlength=6) / 100_000
    assert torch.allclose(plain, probabilities, atol=0.01), "temperature 1 is the model's own distribution"
    cold = choose(logits, noise, 0.25, kept).flatten().bincount(minlength=6) / 100_000
    expected = torch.tensor([0.1, 0.2, 0, 0.1, 0.3 - 1e-3, 1e-3]) ** 4
    share = 0.3**4 / (0.3**4 + 0.7**4)
    expected = (1 - share) * expected / expected.sum()
    expected[2] = share
    assert torch.allclose(cold, expected, atol=0.01)
    assert choose(logits[:, :1], noise[:, :1], 0.0, kept).item() == 4
    likely = torch.tensor([0.1, 0.2, 0.6, 0.1]).log().expand(1, 1, 4)
    assert choose(likely, noise[:, :1], 0.0, kept).item() == 2
