"""The average of the weights: the right number, resumed exactly, and copied into the module."""

import copy

import pytest
import torch
from torch import nn

from genie_robotics.models.quantizers import QuantizerConfig, VQConfig, make_quantizer
from genie_robotics.training.averaging import Average


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(4, 8),
        make_quantizer(QuantizerConfig(latent_dim=8, vq=VQConfig(quantize_after_steps=5))),
        nn.Linear(8, 2),
    )


def train(module: nn.Module, steps: range, average: Average) -> None:
    for step in steps:
        torch.manual_seed(step)
        latents = module[0](torch.randn(32, 4))
        quantised, _, loss = module[1](latents)
        (module[2](quantised).square().sum() + loss).backward()
        with torch.no_grad():
            for p in module.parameters():
                p.sub_(0.01 * p.grad)
                p.grad = None
        average.update(step)


def test_the_average_is_the_weighted_sum_of_all_weights_so_far():
    module = nn.Linear(1, 1, bias=False)
    average = Average(module, 0.9)
    expected, weights = module.weight.item(), torch.randn(200).tolist()
    for step, weight in enumerate(weights):
        module.weight.data.fill_(weight)
        average.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weight
    assert float(average.values["weight"]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("steps", [10, 50])
def test_a_short_run_is_no_average_of_its_random_start(steps):
    module = nn.Linear(1, 1, bias=False)
    module.weight.data.fill_(1000.0)
    average = Average(module, 0.9999)
    for step in range(steps):
        module.weight.data.fill_(1.0)
        average.update(step)
    assert float(average.values["weight"]) == pytest.approx(1.0, abs=0.02)


def test_interrupted_equals_uninterrupted():
    whole = net()
    average = Average(whole, 0.95)
    train(whole, range(40), average)

    first = net()
    before = Average(first, 0.95)
    train(first, range(17), before)
    stored = copy.deepcopy(before.state_dict())
    resumed = copy.deepcopy(first)
    after = Average(resumed, 0.95)
    after.load_state_dict(stored)
    train(resumed, range(17, 40), after)
    assert average.values.keys() == after.values.keys()
    assert all(torch.equal(average.values[k], after.values[k]) for k in average.values)


def test_copy_to_gives_the_averaged_weights_and_leaves_buffers_and_the_average():
    module = net()
    average = Average(module, 0.9)
    train(module, range(20), average)
    kept, buffers = copy.deepcopy(average.values), {name: b.clone() for name, b in module.named_buffers()}
    assert not all(torch.equal(p, kept[name]) for name, p in module.named_parameters())
    average.copy_to(module)
    assert all(torch.equal(b, buffers[name]) for name, b in module.named_buffers())
    assert all(torch.equal(p, kept[name]) for name, p in module.named_parameters())
    module[0].weight.data.add_(1)
    assert all(torch.equal(average.values[name], kept[name]) for name in kept)


def test_only_what_is_trained_is_averaged():
    module = net()
    module[2].requires_grad_(False)
    assert set(Average(module, 0.9).values) == {"0.weight", "0.bias"}


def test_a_decay_of_0_is_off():
    module = net()
    average = Average(module, 0.0)
    train(module, range(5), average)
    live = copy.deepcopy(module.state_dict())
    average.copy_to(module)
    assert average.state_dict() == {}
    assert all(torch.equal(v, live[k]) for k, v in module.state_dict().items())


def test_a_stored_average_of_something_else_is_refused():
    average = Average(net(), 0.9)
    with pytest.raises(ValueError, match=r"other parameters \(0.bias\)"):
        average.load_state_dict({})
    with pytest.raises(ValueError, match="below 1"):
        Average(net(), 1.0)
