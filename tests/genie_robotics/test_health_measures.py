"""Measurements of health: planted answers, and measuring has no side effects."""

import math
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from genie_robotics.health import measures
from genie_robotics.health.measures import (
    action_gap,
    action_use,
    bits_share,
    by_chunk,
    code_spread,
    evaluating,
    motion_explained,
    num_dead,
    num_not_finite,
    perplexity,
    static_share,
    tokenizer_floor,
)
from genie_robotics.health.rules import RULES, judge
from genie_robotics.models.config import GenieConfig
from tests.genie_robotics.conftest import Squares, random_genie, tiny_config


def test_perplexity_is_the_number_of_codes_used_equally_and_dead_codes_are_never_used():
    assert perplexity(torch.tensor([5, 5, 5, 5])) == pytest.approx(4)
    assert perplexity(torch.tensor([0, 9, 0, 0])) == pytest.approx(1)
    assert perplexity(torch.tensor([0.5, 0.25, 0.25])) == pytest.approx(2**1.5)
    assert math.isnan(perplexity(torch.zeros(4)))
    assert num_dead(torch.tensor([0, 9, 0, 1])) == 2
    assert bits_share(torch.tensor([7, 7, 0, 0, 0, 0, 0, 0])) == pytest.approx(1 / 3)
    assert bits_share(torch.ones(1024)) == pytest.approx(1)


def test_codes_with_equal_vectors_have_no_spread_however_evenly_they_are_used():
    even = torch.ones(4)
    spot = torch.tensor([[1.0, 2.0, 3.0]]).repeat(4, 1)
    assert code_spread(spot, even) == pytest.approx(0, abs=1e-12)
    assert code_spread(spot + 1e-3 * torch.randn(4, 3), even) < 1e-5
    assert code_spread(torch.tensor([[1.0], [-1.0]]), torch.ones(2)) == pytest.approx(1)
    assert code_spread(torch.tensor([[0.0], [2.0]]), torch.ones(2)) == pytest.approx(0.5)
    far_but_unused = torch.cat([spot, torch.full((1, 3), -50.0)])
    assert code_spread(far_but_unused, torch.tensor([1, 1, 1, 1, 0])) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("size", [16, 64, 128])
def test_static_clips_are_counted_through_noise_and_one_small_moving_square_is_motion(size):
    rng = np.random.default_rng(0)
    still = np.repeat(rng.integers(0, 256, (6, 1, size, size, 3)), 5, axis=1)
    moving = still[:2].copy()
    side = size // 16
    for t in range(5):
        moving[:, t, side * t : side * (t + 2), side : 3 * side] = 255 * (t % 2)
    clips = np.concatenate([still + rng.normal(0, 2, still.shape).round().astype(int), moving]).clip(0, 255)
    assert static_share(torch.from_numpy(clips.astype(np.uint8))) == pytest.approx(6 / 8)


def planted_tokenizer(genie, decode):
    genie.tokenizer.encode = lambda frames, reference: torch.zeros(*frames.shape[:2], 16, dtype=torch.long)
    genie.tokenizer.decode = lambda tokens, reference: decode.pop(0)
    return genie


def test_the_floor_is_0_for_a_perfect_tokenizer_and_1_for_one_that_shows_the_last_frame(monkeypatch):
    monkeypatch.setattr(measures, "CHUNK", 4)
    clips = torch.from_numpy(Squares(4, 6).video)
    late = torch.cat([clips[:, :1], clips[:, :-1]], dim=1)
    half = (clips.float() / 2 + late.float() / 2).to(torch.uint8)
    values = {}
    for name, shown in (("perfect", clips), ("late", late), ("half", half)):
        values[name], _ = tokenizer_floor(planted_tokenizer(random_genie(tiny_config()), [shown]), clips, clips[:, 0])
    assert values["perfect"]["floor"] == 0
    assert values["perfect"]["psnr"] > 90
    assert values["late"]["floor"] == pytest.approx(1)
    assert values["late"]["psnr"] == pytest.approx(values["late"]["copy_psnr"])
    assert values["half"]["floor"] == pytest.approx(0.25, abs=0.01)
    # a square of 4x4 moves by 3: 12 pixels are left and 12 are taken, of 256
    assert values["late"]["moving"] == pytest.approx(24 / 256)
    assert values["late"]["copy_psnr"] == pytest.approx(10 * math.log10(255**2 / (170**2 * 24 / 256)))


def test_the_floor_is_nan_if_nothing_moves():
    clips = torch.full((2, 6, 16, 16, 3), 90, dtype=torch.uint8)
    figures, _ = tokenizer_floor(random_genie(tiny_config()), clips, clips[:, 0])
    assert math.isnan(figures["floor"])
    assert judge(figures, "tokenizer", tiny_config()) == []


class Obedient(torch.nn.Module):
    """A dynamics that predicts token = code with confidence `sure`; equal logits for zeros, the null action."""

    def __init__(self, vectors, sure):
        super().__init__()
        self.vectors, self.sure, self.head = vectors, sure, torch.nn.Identity()

    def draw_mask(self, tokens):
        return (torch.rand(tokens.shape) < 0.7).index_fill(1, torch.tensor(0), False)

    def hidden_where_masked(self, tokens, mask, actions, reference):
        logits = self.sure * F.one_hot(torch.cdist(actions, self.vectors[None]).argmin(-1), 4).float()
        known = actions.abs().sum(-1, keepdim=True) > 0
        return (logits * known).unsqueeze(2).expand(*tokens.shape, 4)


def obedient_world(sure):
    genie = random_genie(tiny_config())
    genie.dynamics = Obedient(genie.latent_action.quantizer.vectors, sure)
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 4, (64, 5), generator=generator)
    tokens = torch.zeros(64, 6, 16, dtype=torch.long)
    tokens[:, 1:] = codes.unsqueeze(-1)
    return genie, tokens, codes


def test_the_gap_of_a_world_that_its_actions_determine_has_the_value_worked_out_by_hand():
    genie, tokens, codes = obedient_world(sure=8.0)
    use = action_use(genie, tokens, codes, seed=0)
    right = math.log(1 + 3 * math.exp(-8.0))
    assert use["true"] == pytest.approx(right, abs=1e-5)
    assert use["null"] == pytest.approx(math.log(4), abs=1e-5)
    # three of four shuffled codes are wrong, and cost 8 nats more
    assert use["shuffled"] == pytest.approx(right + 8 * 3 / 4, abs=0.5)
    assert use["num_codes"] == 4
    assert action_gap(use) > 1


def test_a_dynamics_that_ignores_its_actions_has_no_gap():
    genie, tokens, codes = obedient_world(sure=0.0)
    use = action_use(genie, tokens, codes, seed=0)
    assert use["true"] == use["shuffled"] == use["null"] == pytest.approx(math.log(4))
    assert action_gap(use) == 0


def test_only_tokens_that_change_are_counted():
    genie, tokens, codes = obedient_world(sure=8.0)
    tokens[:, :, 8:] = 3  # half of the frame stands still with every action
    use = action_use(genie, tokens, codes, seed=0)
    assert use["true"] == pytest.approx(math.log(1 + 3 * math.exp(-8.0)), abs=1e-5)
    assert use["all"] > 2  # on still tokens the obedient dynamics is wrong
    tokens[:] = 3
    assert math.isnan(action_gap(action_use(genie, tokens, codes, seed=0)))


def test_the_gap_is_nan_with_a_single_code():
    genie, tokens, codes = obedient_world(sure=8.0)
    use = action_use(genie, tokens, torch.zeros_like(codes), seed=0)
    assert use["num_codes"] == 1
    assert math.isnan(action_gap(use))


def test_motion_explained_is_the_error_share_and_does_not_depend_on_codes_that_the_decoder_ignores():
    genie = random_genie(tiny_config())
    clips = torch.from_numpy(Squares(12, 6).video)
    figures, codes = motion_explained(genie, clips, seed=0)
    assert figures["true"] != figures["shuffled"]
    assert torch.equal(codes, genie.infer_actions(clips))
    _, _, logs = genie.latent_action.explain(clips)
    assert figures["true"] == pytest.approx(float(logs["error_share"]), rel=1e-4)
    genie.latent_action.from_latent.weight.data.zero_()
    figures, _ = motion_explained(genie, clips, seed=0)
    assert figures["true"] == pytest.approx(figures["shuffled"])


def test_weights_that_are_not_finite_are_counted():
    genie = random_genie(tiny_config())
    assert num_not_finite(genie) == 0
    genie.dynamics.head.weight.data[0, :3] = float("nan")
    genie.dynamics.head.bias.data[1] = float("inf")
    assert num_not_finite(genie.dynamics) == 4


def measured_use(genie, frames, seed):
    with evaluating(genie):
        tokens, codes = by_chunk(genie.tokenizer.encode, frames), by_chunk(genie.latent_action.encode, frames)
    return action_use(genie, tokens, codes, seed)


def test_measuring_has_no_side_effects_and_depends_on_the_seed_only(frames, monkeypatch):
    monkeypatch.setattr(measures, "CHUNK", 2)  # 3 clips: chunks of different sizes
    genie = random_genie(tiny_config())
    frames = frames[:, :6]
    genie.train()
    genie.dynamics.eval()
    modes = [part.training for part in genie.modules()]
    before = {name: value.clone() for name, value in [*genie.named_parameters(), *genie.named_buffers()]}
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first = [
        measured_use(genie, frames, 5),
        motion_explained(genie, frames, 5)[0],
        tokenizer_floor(genie, frames, frames[:, 0])[0],
    ]
    assert torch.equal(torch.rand(1), expected), "the caller's random state"
    again = [
        measured_use(genie, frames, 5),
        motion_explained(genie, frames, 5)[0],
        tokenizer_floor(genie, frames, frames[:, 0])[0],
    ]
    assert first == again
    assert measured_use(genie, frames, 6) != first[0]
    assert [part.training for part in genie.modules()] == modes
    for name, value in [*genie.named_parameters(), *genie.named_buffers()]:
        assert torch.equal(value, before[name]), name


def test_every_rule_makes_one_finding_at_its_limit():
    config = tiny_config()
    for rule in RULES:
        assert rule.reason
        worst = rule.fault if rule.fault is not None else rule.warning
        assert worst is not None
        (finding,) = judge({rule.figure: worst}, "joint", config)
        assert (finding.name, finding.severity) == (rule.name, "fault" if rule.fault is not None else "warning")
        assert "{" not in finding.message + finding.remedy
        assert not judge({rule.figure: float("nan")}, "joint", config)
        if rule.needs_training:
            early = judge({rule.figure: worst}, "joint", config, trained=False)
            assert finding not in early


def test_every_remedy_names_options_that_exist(capsys):
    from genie_robotics.training.commands import train

    with pytest.raises(SystemExit):
        train(["--help"])
    option = r"--[a-z][a-z-]*(?:\.[a-z][a-z-]*)*"
    known = {*re.findall(option, capsys.readouterr().out)}
    assert "--latent-action.quantizer.kind" in known
    for rule in RULES:
        for stage in ("tokenizer", "latent_action", "dynamics", "joint"):
            figures = {rule.figure: rule.warning if rule.fault is None else rule.fault}
            for finding in judge(figures, stage, GenieConfig().resolved()):
                named = set(re.findall(option, finding.remedy))
                assert named, rule.name
                assert named <= known, (rule.name, stage)
