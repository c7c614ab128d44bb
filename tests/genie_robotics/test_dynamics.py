"""The dynamics: its loss is plain MaskGIT's, its masks, and what it sees of the previous frame."""

import pytest
import torch
import torch.nn.functional as F

from genie_robotics.models.dynamics import Dynamics, DynamicsBatch, DynamicsConfig
from genie_robotics.models.latent_action import shift_to_next_frame

B, T, N, V, L = 3, 6, 16, 12, 8


def dynamics(seed: int = 0, **options) -> Dynamics:
    """Random weights everywhere, also in zero-initialized layers."""
    config = DynamicsConfig(
        num_patches=N, num_tokens=V, action_dim=L, clip_length=T, width=16, num_blocks=2, num_heads=2, **options
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


def test_loss_gradients_and_random_stream_are_those_of_plain_maskgit(batch):
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
    x = model.transformer(model.embed(tokens), model.action_in(shift_to_next_frame(batch.actions)))
    logits = model.head(x[mask])
    expected = F.cross_entropy(logits, batch.tokens[mask])
    expected.backward()
    torch.testing.assert_close(loss, expected)
    assert torch.equal(after, torch.get_rng_state())
    for grad, parameter in zip(found, model.parameters(), strict=True):
        torch.testing.assert_close(grad, parameter.grad)
    assert logs["token_accuracy"] == (logits.argmax(-1) == batch.tokens[mask]).float().mean()


@pytest.mark.parametrize("grad_to_actions", [False, True])
def test_the_gradient_reaches_the_actions_only_if_asked(batch, grad_to_actions):
    model = dynamics()
    actions = batch.actions.clone().requires_grad_()
    loss, _ = model(DynamicsBatch(batch.tokens, actions, grad_to_actions))
    loss.backward()
    assert (actions.grad is not None) == grad_to_actions
    assert model.embed.weight.grad is not None


def test_masks_are_drawn_per_clip_between_half_and_all_and_never_in_the_first_frame():
    torch.manual_seed(0)
    mask = dynamics().draw_mask(torch.zeros(400, 6, 256, dtype=torch.long))
    assert not mask[:, 0].any()
    rates = mask[:, 1:].float().mean((1, 2))
    assert 0.47 < rates.min() < 0.55
    assert 0.95 < rates.max() <= 1
    assert abs(float(rates.mean()) - 0.75) < 0.03


def test_an_unknown_action_input_is_refused():
    with pytest.raises(ValueError, match="action_input must be one of .*, got 'shout'"):
        DynamicsConfig(action_input="shout")


# Tokens of the previous frame


def test_the_previous_frame_is_seen_unmasked_and_masked_tokens_are_not_seen(batch):
    model = dynamics(prev_frame_tokens=True).double()
    mask = torch.zeros(B, T, N, dtype=torch.bool)
    mask[:, 1:, :5] = True
    actions = shift_to_next_frame(batch.actions.double())
    found = model.hidden_where_masked(batch.tokens, mask, actions)
    for t in range(T):
        changed = batch.tokens.clone()
        changed[:, t, 2] = (changed[:, t, 2] + 1) % V  # masked in its own frame, from frame 1 on
        moved = (model.hidden_where_masked(changed, mask, actions) - found).abs().amax(dim=(0, 2, 3)) > 0
        assert torch.equal(moved, torch.arange(T) >= t + (t > 0))


def test_previous_tokens_reach_all_patches_in_the_first_spatial_layer():
    torch.manual_seed(0)
    model = dynamics(prev_frame_tokens=True).double()
    seen = []
    model.transformer.blocks[0].spatial.register_forward_hook(lambda _, args, out: seen.append(out))
    tokens, mask = torch.randint(0, V, (1, T, N)), torch.ones(1, T, N, dtype=torch.bool)
    changed = tokens.clone()
    changed[:, 2, 0] = (changed[:, 2, 0] + 1) % V
    for shown in (tokens, changed):
        model.hidden_where_masked(shown, mask, torch.zeros(1, T, L, dtype=torch.double))
    moved = (seen[0] - seen[1]).abs().amax(dim=(0, 3)) > 0
    assert torch.equal(moved.all(1), torch.arange(T) == 3)
    assert torch.equal(moved.any(1), torch.arange(T) == 3)
