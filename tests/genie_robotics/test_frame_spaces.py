"""Frame spaces of the latent action model: tokens instead of pixels."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from genie_datasets.base.errors import UserError
from genie_robotics.genie import Genie
from genie_robotics.health.measures import motion_explained
from genie_robotics.models.config import COMPONENTS, GenieConfig
from genie_robotics.models.latent_action import LatentActionConfig, LatentActionModel
from genie_robotics.models.quantizers import QuantizerConfig, VQConfig
from genie_robotics.models.video_tokenizer import VideoTokenizer
from genie_robotics.training.config import LoopConfig, StageConfig
from genie_robotics.training.optimizer import Optimizers, rate_at
from genie_robotics.training.run import RunPlan, train_run
from genie_robotics.training.stages import MODES, STAGES
from tests.genie_robotics.conftest import Squares, random_genie, tiny_config
from tests.genie_robotics.test_causality import FRAMES, LOWER, dependence, lam_config, stir
from tests.genie_robotics.test_learning import LENGTH, SHIFTS, SIZE, SQUARE, agreement
from tests.genie_robotics.test_modes import Source, training


def small_tokenizer() -> VideoTokenizer:
    """A tokenizer of 16 codes and 4 patches per frame."""
    config = tiny_config(kind="fsq").tokenizer
    return stir(VideoTokenizer(dataclasses.replace(config, clip_length=FRAMES, patch_size=8)))


def token_lam(**changes) -> LatentActionModel:
    return stir(LatentActionModel(lam_config(frame_space="tokens", **changes), small_tokenizer()))


def token_logits(model: LatentActionModel, tokens: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
    """Logits of the tokens that follow `tokens` (B, T, N), given actions (B, T, L)."""
    return model.space.logits(model._decode(model.space.features(tokens), actions), tokens)


def token_error(model: LatentActionModel, tokens: torch.Tensor, actions: torch.Tensor) -> tuple:
    """The loss and error share of predicting tokens 1 .. T-1, given actions (B, T-1, L)."""
    return model.space.loss(model._decode(model.space.features(tokens)[:, :-1], actions), tokens)


# ---- tokens


@pytest.mark.parametrize("input_diff", [False, True])
@pytest.mark.parametrize("history", [False, True])
def test_with_tokens_a_t_is_read_from_tokens_up_to_t_plus_1(input_diff, history):
    model = token_lam(input_diff=input_diff, encoder_history=history)
    features = torch.randn(1, FRAMES, 4, 8, dtype=torch.double)
    expected = torch.ones(FRAMES - 1, FRAMES).tril(1).triu(-FRAMES if history else 0).bool()
    assert torch.equal(dependence(model._latents, features, FRAMES - 1), expected)


@pytest.mark.parametrize("history", [False, True])
def test_with_tokens_frame_t_plus_1_is_predicted_from_tokens_up_to_t_and_a_t(history):
    model = token_lam(decoder_history=history)
    tokens = torch.randint(0, 16, (1, FRAMES, 4))
    actions = torch.randn(1, FRAMES, 8, dtype=torch.double)
    seen = LOWER if history else torch.eye(FRAMES).bool()
    assert torch.equal(dependence(lambda a: token_logits(model, tokens, a), actions, FRAMES), seen)
    logits = token_logits(model, tokens, actions)
    assert logits.shape == (1, FRAMES, 4, 16)
    for t in range(FRAMES):
        changed = tokens.clone()
        changed[:, t] = (changed[:, t] + 1) % 16
        moved = (token_logits(model, changed, actions) - logits).abs().amax(dim=(0, 2, 3)) > 0
        assert torch.equal(moved, seen[:, t])


def test_the_loss_is_the_cross_entropy_of_the_next_frames_tokens():
    model = token_lam()
    tokens = torch.randint(0, 16, (2, FRAMES, 4))
    actions = torch.randn(2, FRAMES - 1, 8, dtype=torch.double)
    loss, share = token_error(model, tokens, actions)
    log_p = token_logits(model, tokens[:, :-1], actions).log_softmax(-1)
    of_next = [log_p[b, t, n, tokens[b, t + 1, n]] for b in range(2) for t in range(FRAMES - 1) for n in range(4)]
    torch.testing.assert_close(loss, -torch.stack(of_next).mean())
    wrong = (log_p.argmax(-1) != tokens[:, 1:]).sum()
    assert float(share) == pytest.approx(float(wrong / (tokens[:, 1:] != tokens[:, :-1]).sum()))


def test_the_prediction_starts_at_nothing_moves():
    torch.manual_seed(0)
    config = token_lam().config
    model = LatentActionModel(config, small_tokenizer().float())
    tokens = torch.randint(0, 16, (2, FRAMES, 4))
    logits = token_logits(model, tokens, torch.randn(2, FRAMES, 8))
    assert torch.equal(logits.argmax(-1), tokens)
    stays = logits.softmax(-1).gather(-1, tokens[..., None])
    torch.testing.assert_close(stays, torch.full_like(stays, 16 / 31))
    assert float(token_error(model, tokens, torch.randn(2, FRAMES - 1, 8))[1]) == 1
    bare = LatentActionModel(dataclasses.replace(config, predict_diff=False), small_tokenizer().float())
    assert not torch.equal(token_logits(bare, tokens, torch.randn(2, FRAMES, 8)).argmax(-1), tokens)


# ---- tokens: learning

HOME = 12
"""The square's corner in pixels; it jumps out by one of SHIFTS and back, and out again."""
BACK = torch.tensor([1, 0, 3, 2])


def outings(num: int, length: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Clips (num, length, SIZE, SIZE, 3) of a square that jumps out and back, and its shifts (num, length-1).

    The square has one home, because with several a code may mean one shift here and another there and still explain
    everything. The corner's place inside its cell of 4 pixels and the background are random; tokens do not show them.
    """
    rng = np.random.default_rng(seed)
    frames = np.empty((num, length, SIZE, SIZE, 3), np.uint8)
    frames[:] = rng.integers(60, 180, (num, 1, 1, 1, 3))
    shifts = torch.from_numpy(rng.integers(0, 4, (num, length - 1)))
    shifts[:, 1::2] = BACK[shifts[:, : length - 2 : 2]]
    for clip, shift in zip(frames, shifts.tolist(), strict=True):
        home = HOME + rng.integers(0, 4, 2)
        for t, frame in enumerate(clip):
            y, x = home + SHIFTS[shift[t - 1]] if t % 2 else home
            frame[y : y + SQUARE, x : x + SQUARE] = 250
    return torch.from_numpy(frames), shifts


class ExactTokens(VideoTokenizer):
    """Keeps the square's place exactly, in cells of 4 pixels: the token of a patch of 2 x 2 cells has one bit for each
    cell that the square covers; a token's vector repeats these four bits as -1 and 1."""

    def __init__(self):
        config = dataclasses.replace(
            tiny_config().tokenizer,
            image_size=(SIZE, SIZE),
            clip_length=LENGTH,
            patch_size=8,
            quantizer=QuantizerConfig(kind="fsq", num_codes=16, latent_dim=16),
        )
        super().__init__(config)
        self.quantizer = Corners()

    def latents(self, frames):
        return frames


class Corners(nn.Module):
    def nearest(self, frames):
        cells = frames[..., 3::4, 3::4, 0] > 0.9
        patches = cells.unflatten(-2, (4, 2)).unflatten(-1, (4, 2)).transpose(-3, -2)  # (B, T, 4, 4, 2, 2)
        return (patches.flatten(-2).flatten(-3, -2) * 2 ** torch.arange(4)).sum(-1)

    def lookup(self, tokens):
        bits = (tokens[..., None] >> torch.arange(4)) & 1
        return (2.0 * bits - 1).repeat_interleave(4, -1)


def test_the_shifts_of_a_square_are_learned_from_exact_tokens():
    """Each shift gets its own code at its own time, and the decoder follows the code (compare test_learning.py)."""
    torch.manual_seed(0)
    model = LatentActionModel(
        LatentActionConfig(
            image_size=(SIZE, SIZE),
            clip_length=LENGTH,
            width=48,
            encoder_num_blocks=1,
            decoder_num_blocks=1,
            num_heads=2,
            frame_space="tokens",
            encoder_history=False,
            decoder_history=False,
            action_input="adaln",
            quantizer=QuantizerConfig(num_codes=4, latent_dim=8, vq=VQConfig(quantize_after_steps=100)),
        ),
        ExactTokens(),
    )
    clips, shifts = outings(256, 2, seed=1)
    # With 160 steps at twice the rate, two of five seeds had not learned it.
    schedule = StageConfig(
        steps=240, learning_rate=3e-3, muon_learning_rate=0.01, beta2=0.95, warmup_steps=10, decay=0.4
    )
    optimizers = Optimizers(model, schedule)
    shares = []
    for step in range(schedule.steps):
        torch.manual_seed(step)
        loss, logs = model(clips[torch.randint(0, len(clips), (24,))])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(optimizers.parameters, 1.0)
        optimizers.step(rate_at(step / schedule.steps, step, schedule))
        shares.append(float(logs["error_share"]))
    assert shares[0] == 1
    assert sum(shares[-10:]) / 10 < 0.1
    model.eval()

    clips, shifts = outings(100, LENGTH, seed=2)
    codes, shifts = model.encode(clips)[:, ::2], shifts[:, ::2]  # the way back is known without an action
    assert agreement(codes, shifts) > 0.95
    assert agreement(codes[:, 1:], shifts[:, :-1]) < 0.6, "a code must not tell the previous shift"
    assert agreement(codes[:, :-1], shifts[:, 1:]) < 0.6, "a code must not tell the next shift"
    meaning = {int(code): int(shifts[codes == code].mode().values) for code in codes.unique()}
    assert sorted(meaning.values()) == [0, 1, 2, 3]
    moved, _ = outings(1, 2, seed=3)
    home = model.space.read(moved[:, :1] / 255)
    for code, shift in meaning.items():
        action = model.quantizer.lookup(torch.tensor([[code]]))
        there = moved[:, :1].roll(tuple(int(s) for s in SHIFTS[shift]), dims=(2, 3))
        assert torch.equal(token_logits(model, home, action).argmax(-1), model.space.read(there / 255)), code


# ---- tokens: inside Genie


def token_config(**changes) -> GenieConfig:
    config = tiny_config()
    part = dataclasses.replace(config.latent_action, frame_space="tokens", **changes)
    return dataclasses.replace(config, latent_action=part).resolved()


def test_the_tokenizer_is_no_submodule_of_the_latent_action_model(tmp_path, frames):
    genie = random_genie(token_config())
    assert genie.latent_action.space.tokenizer is genie.tokenizer
    assert genie.latent_action.num_patches == genie.tokenizer.num_patches == 16
    assert not any("tokenizer" in name for name in genie.latent_action.state_dict())
    assert all(m is not genie.tokenizer for m in genie.latent_action.modules())
    genie.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "latent_action" / "model.safetensors")
    assert stored.keys() == genie.latent_action.state_dict().keys()
    again = Genie.from_pretrained(tmp_path)
    assert again.latent_action.space.tokenizer is again.tokenizer
    assert torch.equal(genie.embed_actions(frames), again.embed_actions(frames))
    assert torch.equal(genie.infer_actions(frames), again.infer_actions(frames))
    again.tokenizer.patch_in.weight.data.mul_(-1)
    assert not torch.equal(genie.embed_actions(frames), again.embed_actions(frames)), "it reads through the tokenizer"


def test_codes_are_read_from_tokens_alone(frames):
    genie = random_genie(token_config())
    tokens = genie.tokenize(frames[:, :6])
    model = genie.latent_action
    expected = model.quantizer.nearest(model._latents(genie.tokenizer.quantizer.lookup(tokens)))
    assert torch.equal(genie.infer_actions(frames[:, :6]), expected)


def test_dreams_are_the_same_cached_and_not(frames):
    genie = random_genie(token_config()).double()
    codes = torch.tensor([[0, 1, 2, 3, 0, 1, 2]] * 3)
    dreams = [genie.generate(frames[:, :4], codes, seed=1, use_cache=use_cache) for use_cache in (True, False)]
    assert torch.equal(*dreams)


def test_the_tokenizer_does_not_learn_from_the_latent_actions():
    genie = random_genie(token_config())
    for stage, mode in (("latent_action", "frozen"), ("joint", "cotrain")):
        module = STAGES[stage](genie, mode)
        module(torch.from_numpy(Squares(4, 6).video))[0].backward()
        assert all(p.grad is None for p in genie.tokenizer.parameters())
        assert all(p.grad is not None for p in genie.latent_action.parameters())
        genie.zero_grad()


@pytest.mark.parametrize("input_diff", [False, True])
def test_frames_predicted_from_tokens_are_those_of_the_most_likely_tokens(frames, input_diff):
    genie = random_genie(token_config(input_diff=input_diff))
    model, unit = genie.latent_action, frames[:, :6] / 255
    actions = torch.randn(3, 5, 8)
    shown = model.predict(unit[:, :-1], actions)
    assert shown.shape == unit[:, 1:].shape
    tokens = genie.tokenize(frames[:, :5])
    following = token_logits(model, tokens, actions).argmax(-1)
    expected = genie.tokenizer.pixels(genie.tokenizer.quantizer.lookup(torch.cat([tokens[:, :1], following], 1)))
    torch.testing.assert_close(shown, expected[:, 1:])
    explained, codes = motion_explained(genie, frames[:, :6], seed=0)
    assert codes.shape == (3, 5)
    assert all(math.isfinite(value) for value in explained.values())


# ---- training, files


def train(run, config: GenieConfig, mode: str, stage: str = "all") -> None:
    plan = RunPlan(config, training(mode), LoopConfig(quiet=True, save_every=4, health_every=4), stage=stage)
    train_run(run, Source(), "train", plan)


@pytest.mark.parametrize(("mode", "history"), [*((mode, True) for mode in MODES), ("frozen", False)])
def test_all_stages_train_and_the_run_plays(tmp_path, monkeypatch, clips, mode, history):
    monkeypatch.setattr("genie_robotics.training.run.open_clips", lambda *_: clips)
    config = token_config(encoder_history=history)
    train(tmp_path / "run", config, mode)
    genie = Genie.from_pretrained(tmp_path / "run")
    assert genie.config.latent_action == config.latent_action
    frames = torch.from_numpy(Squares(2, 8).video)
    codes = genie.infer_actions(frames)
    assert genie.generate(frames[:, :2], codes).shape == frames[:, 1:].shape
    before = {name: (tmp_path / "run" / name / "model.safetensors").read_bytes() for name in COMPONENTS}
    train(tmp_path / "run", config, mode)  # the same command again changes nothing
    assert before == {name: (tmp_path / "run" / name / "model.safetensors").read_bytes() for name in COMPONENTS}


def test_tokens_of_an_untrained_tokenizer_are_refused():
    with pytest.raises(UserError, match="latent_action reads tokens and the tokenizer is not trained; train it"):
        STAGES["latent_action"](Genie(token_config()), "frozen")
    STAGES["latent_action"](Genie(tiny_config()), "frozen")


def test_a_token_model_needs_the_tokenizer_first():
    for mode in ("frozen", "warmup"):
        assert STAGES["latent_action"].needs(tiny_config(), mode) == ()
        assert STAGES["latent_action"].needs(token_config(), mode) == ("tokenizer",)
        assert STAGES["latent_action"].reads(token_config(), mode) == ("tokenizer",)
    assert STAGES["joint"].needs(token_config(), "cotrain") == ("tokenizer",)
    assert STAGES["tokenizer"].needs(token_config(), "frozen") == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frame_space": "audio"}, "frame_space must be pixels or tokens, got 'audio'"),
        ({"frame_space": "tokens", "motion_weight": 1.0}, "motion_weight must be 0 with frame_space tokens"),
        ({"action_input": "shout"}, "action_input must be one of .*, got 'shout'"),
    ],
)
def test_impossible_options_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        LatentActionConfig(**changes)


def test_a_token_model_without_a_tokenizer_is_refused():
    with pytest.raises(ValueError, match="needs the tokenizer"):
        LatentActionModel(LatentActionConfig(frame_space="tokens"))
