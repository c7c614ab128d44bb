"""Training with mistakes in the context: what may be wrong, what stays true, and that the defaults change nothing."""

import pytest
import torch
import torch.nn.functional as F

from genie_robotics.models.config import GenieConfig, from_dict, to_dict
from genie_robotics.models.corruption import beside, corrupted, nearest, sampled, untold
from genie_robotics.models.dynamics import Dynamics, DynamicsBatch, DynamicsConfig
from genie_robotics.models.latent_action import shift_to_next_frame
from genie_robotics.models.layers.attention import EarlierFrames, attend
from genie_robotics.models.layers.st_transformer import ACTION_INPUTS, TemporalCache

B, T, N, V, L = 3, 6, 16, 12, 8


def dynamics(seed: int = 0, **options) -> Dynamics:
    """Random weights everywhere, zero-initialised ones too."""
    config = DynamicsConfig(
        num_patches=N, num_tokens=V, action_dim=L, clip_length=T, width=16, num_blocks=2, heads=2, **options
    )
    generator = torch.Generator().manual_seed(seed)
    model = Dynamics(config)
    for parameter in model.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return model


@pytest.fixture
def batch() -> DynamicsBatch:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, V, (B, T, N), generator=generator)
    return DynamicsBatch(tokens, torch.randn(B, T - 1, L, generator=generator))


def spied(model: Dynamics) -> list[tuple]:
    """What `filled` is asked from now on: (shown, mask, actions)."""
    asked, filled = [], model.filled
    model.filled = lambda *args: asked.append(args) or filled(*args)
    return asked


def test_by_default_loss_gradients_and_random_stream_are_those_of_plain_maskgit(batch):
    model = dynamics().train()
    torch.manual_seed(7)
    loss, logs = model(batch)
    loss.backward()
    after = torch.get_rng_state()
    found = [p.grad.clone() for p in model.parameters()]

    model.zero_grad()
    torch.manual_seed(7)
    rate = 0.5 + 0.5 * torch.rand(B, 1, 1)
    mask = torch.rand(B, T, N) < rate
    mask[:, 0] = False
    tokens = batch.tokens.masked_fill(mask, V)
    x, _ = model.transformer.forward_after(
        model.embed(tokens), model.action_in(shift_to_next_frame(batch.actions)), None
    )
    logits = model.head(x[mask])
    expected = F.cross_entropy(logits, batch.tokens[mask])
    expected.backward()
    assert torch.equal(loss, expected)
    assert torch.equal(after, torch.get_rng_state())
    for grad, parameter in zip(found, model.parameters(), strict=True):
        assert torch.equal(grad, parameter.grad)
    assert logs["token_accuracy"] == (logits.argmax(-1) == batch.tokens[mask]).float().mean()


def test_a_configuration_from_before_these_options_loads():
    values = to_dict(GenieConfig())
    for name in ("context_noise", "self_context", "action_dropout", "past", "guidance", "see_before"):
        del values["dynamics"][name]
    assert from_dict(GenieConfig, values, "config.json") == GenieConfig()


@pytest.mark.parametrize("options", [{"context_noise": 1.5}, {"self_context": -0.1}, {"past": "all"}])
def test_options_that_cannot_be_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        DynamicsConfig(**options)


@pytest.mark.parametrize("options", [{"context_noise": 1.0}, {"self_context": 1.0}])
@pytest.mark.parametrize("past", ["masked", "whole"])
def test_what_is_shown_has_mistakes_but_targets_and_frame_0_are_true(batch, past, options):
    model = dynamics(past=past, temperature=1.0, **options).train()
    asked = spied(model)
    torch.manual_seed(0)
    loss, _ = model(batch)
    shown, mask, _ = asked[-1]
    assert torch.equal(shown[:, 0], batch.tokens[:, 0])
    assert not mask[:, 0].any()
    assert (shown != batch.tokens)[:, 1:].float().mean() > 0.2
    assert (shown >= 0).all()
    assert (shown < V).all()
    logits = model.head(model.filled(*asked[-1])[mask])
    assert torch.equal(loss, F.cross_entropy(logits, batch.tokens[mask])), "the targets are the true tokens"


def test_nothing_is_wrong_nor_untold_in_evaluation_mode(batch):
    model = dynamics(context_noise=1.0, self_context=1.0, action_dropout=1.0).eval()
    asked = spied(model)
    model(batch)
    [(shown, _, actions)] = asked
    assert torch.equal(shown, batch.tokens)
    assert torch.equal(actions, shift_to_next_frame(batch.actions))


def test_the_rate_of_mistakes_is_drawn_for_each_clip():
    torch.manual_seed(0)
    tokens = torch.randint(0, 500, (300, 5, 100))
    wrong = (corrupted(tokens, 0.6, torch.randn(500, 8)) != tokens).float()
    rates = wrong[:, 1:].mean((1, 2))
    assert wrong[:, 0].sum() == 0
    assert rates.min() < 0.05
    assert 0.5 < rates.max() < 0.7
    assert abs(float(rates.mean()) - 0.3) < 0.03


def test_mistakes_are_a_third_each_late_near_or_anything():
    """Every (clip, frame, patch) has its own token: where a token comes from can be read."""
    torch.manual_seed(0)
    clips, frames, side = 8, 4, 6
    patches = side**2
    tokens = torch.arange(clips * frames * patches).view(clips, frames, patches)
    meanings = torch.randn(tokens.numel(), 16)
    likeness = F.normalize(meanings, dim=-1) @ F.normalize(meanings, dim=-1).T
    near = likeness.fill_diagonal_(-2).topk(16, dim=-1).indices
    kinds = torch.zeros(3)
    for _ in range(8):
        shown = corrupted(tokens, 1.0, meanings)
        for clip, frame, patch in (shown != tokens).nonzero().tolist():
            true, found = int(tokens[clip, frame, patch]), int(shown[clip, frame, patch])
            origin = (found // (frames * patches), found // patches % frames, found % patches)
            apart = max(abs(origin[2] // side - patch // side), abs(origin[2] % side - patch % side))
            if origin[:2] == (clip, frame - 1) and apart <= 1:
                kinds[0] += 1
            elif found in near[true]:
                kinds[1] += 1
            else:
                kinds[2] += 1
    shares = kinds / kinds.sum()
    assert ((shares - 1 / 3).abs() < 0.04).all(), shares


def test_beside_is_the_patch_or_one_that_touches_it():
    patch = torch.arange(25).repeat(400)
    found = beside(patch, 25)
    assert ((found // 5 - patch // 5).abs() <= 1).all()
    assert ((found % 5 - patch % 5).abs() <= 1).all()
    assert set(found[patch == 12].tolist()) == {6, 7, 8, 11, 12, 13, 16, 17, 18}
    assert (beside(torch.arange(6 * 10), 60) < 60).all(), "any grid"


def test_nearest_are_the_nearest_others():
    angle = torch.arange(64) / 64 * 2 * torch.pi
    around = torch.stack([angle.cos(), angle.sin()], dim=1) * torch.rand(64, 1)
    found = nearest(torch.full((4000,), 10), around)
    assert set(found.tolist()) == set(range(2, 19)) - {10}
    assert set(nearest(torch.tensor([0] * 50), torch.eye(3)).tolist()) == {1, 2}, "a codebook of three"


def test_guesses_follow_the_models_probabilities():
    torch.manual_seed(0)
    logits = torch.tensor([0.5, 0.3, 0.2]).log().expand(60_000, 3)
    assert torch.allclose(sampled(logits, 1.0).bincount() / 60_000, torch.tensor([0.5, 0.3, 0.2]), atol=0.01)
    assert (sampled(logits, 0.0) == 0).all()


@pytest.mark.parametrize("past", ["masked", "whole"])
def test_self_context_shows_the_models_own_guesses_in_a_share_of_clips(batch, past):
    model = dynamics(past=past, self_context=0.5, temperature=0.0).train()
    tokens = batch.tokens.repeat(40, 1, 1)
    actions = batch.actions.repeat(40, 1, 1)
    asked = spied(model)
    torch.manual_seed(0)
    loss, _ = model(DynamicsBatch(tokens, actions))
    loss.backward()
    (given, hidden_tokens, led), (shown, _, _) = asked
    own = (shown != tokens).flatten(1).any(1)
    assert 0.35 < own.float().mean() < 0.65
    assert len(given) == own.sum(), "only the chosen clips cost a pass"
    with torch.no_grad():
        logits = model.head(model.filled(given, hidden_tokens, led))
    expected = torch.where(hidden_tokens, logits.argmax(-1), given)
    assert torch.equal(shown[own], expected)


def test_untold_actions_are_zeros_frame_by_frame():
    torch.manual_seed(0)
    actions = torch.randn(50, 40, L)
    given = untold(actions, 0.3)
    zero = (given == 0).all(-1)
    assert torch.equal(given[~zero], actions[~zero])
    assert abs(float(zero.float().mean()) - 0.3) < 0.03
    assert ((zero.sum(1) > 0) & (zero.sum(1) < 40)).all()


def test_the_dynamics_drops_actions_and_no_gradient_goes_through_what_is_not_told(batch):
    model = dynamics(action_dropout=0.5).train()
    asked = spied(model)
    actions = batch.actions.clone().requires_grad_()
    torch.manual_seed(0)
    loss, _ = model(DynamicsBatch(batch.tokens, actions, into_actions=True))
    loss.backward()
    zero = (asked[0][2][:, 1:] == 0).all(-1)
    assert 0.2 < zero.float().mean() < 0.8
    assert torch.equal((actions.grad == 0).all(-1), zero)


# A whole past


@pytest.mark.parametrize("see_before", [False, True])
@pytest.mark.parametrize("action_input", ACTION_INPUTS)
def test_with_a_whole_past_training_shows_every_frame_what_a_dream_shows_it(batch, action_input, see_before):
    """All frames at once equal one frame after another behind the cache of whole frames."""
    model = dynamics(past="whole", action_input=action_input, see_before=see_before).double()
    mask = torch.rand(B, T, N) < 0.7
    actions = shift_to_next_frame(batch.actions.double())
    together = model.filled(batch.tokens, mask, actions)
    cache = TemporalCache()
    for t in range(T):
        now = slice(t, t + 1)
        past = cache.gather() if t else None
        masked = batch.tokens.masked_fill(mask, model.mask_token)[:, now]
        before = batch.tokens[:, t - 1 : t] if t else None
        alone, _ = model.hidden(masked, actions[:, now], past, before)
        torch.testing.assert_close(together[:, now], alone)
        cache = cache.extended(model.hidden(batch.tokens[:, now], actions[:, now], past, before)[1])


def test_a_query_of_earlier_frames_sees_those_and_itself():
    q, k, v, keys, values = torch.randn(5, 2, 3, 4, 8, dtype=torch.double)
    found = attend(q, k, v, True, EarlierFrames(keys, values))
    for t in range(4):
        own = torch.cat([keys[..., :t, :], k[..., t : t + 1, :]], dim=-2)
        read = torch.cat([values[..., :t, :], v[..., t : t + 1, :]], dim=-2)
        expected = F.scaled_dot_product_attention(q[..., t : t + 1, :], own, read, scale=1.0)
        torch.testing.assert_close(found[..., t : t + 1, :], expected)


def test_a_whole_past_is_learnt_from(batch):
    """The gradient goes through the keys and values of the whole frames too."""
    model = dynamics(past="whole").double()
    mask = torch.zeros(B, T, N, dtype=torch.bool)
    mask[:, -1] = True
    embedded = model.embed(batch.tokens).detach().requires_grad_()
    model.embed.register_forward_hook(lambda _, args, out: torch.where((args[0] == V).unsqueeze(-1), out, embedded))
    model.filled(batch.tokens, mask, shift_to_next_frame(batch.actions.double()))[:, -1].square().sum().backward()
    assert (embedded.grad[:, :-1].abs().sum((0, 2, 3)) > 0).all()
    assert (embedded.grad[:, -1] == 0).all(), "what is to be filled is not seen"


# What stood before


@pytest.mark.parametrize("past", ["masked", "whole"])
def test_what_stood_a_frame_earlier_is_seen_whole_and_what_is_to_be_filled_is_not(batch, past):
    model = dynamics(past=past, see_before=True).double()
    mask = torch.zeros(B, T, N, dtype=torch.bool)
    mask[:, 1:, :5] = True
    actions = shift_to_next_frame(batch.actions.double())
    found = model.filled(batch.tokens, mask, actions)
    for t in range(T):
        changed = batch.tokens.clone()
        changed[:, t, 2] = (changed[:, t, 2] + 1) % V  # hidden at its own place, from frame 1 on
        moved = (model.filled(changed, mask, actions) - found).abs().amax(dim=(0, 2, 3)) > 0
        assert torch.equal(moved, torch.arange(T) >= t + (t > 0))


def test_what_stood_before_reaches_all_patches_in_the_first_layer_of_space():
    torch.manual_seed(0)
    model = dynamics(see_before=True, past="whole").double()
    seen = []
    model.transformer.blocks[0].spatial.register_forward_hook(lambda _, args, out: seen.append(out[0]))
    tokens, mask = torch.randint(0, V, (1, T, N)), torch.ones(1, T, N, dtype=torch.bool)
    changed = tokens.clone()
    changed[:, 2, 0] = (changed[:, 2, 0] + 1) % V
    for shown in (tokens, changed):
        model.filled(shown, mask, torch.zeros(1, T, L, dtype=torch.double))
    moved = (seen[1] - seen[3]).abs().amax(dim=(0, 3)) > 0  # of the passes over what is being filled
    assert torch.equal(moved.all(1), torch.arange(T) == 3)
