"""The ablations of the latent action model: tokens for pixels, mean pooling, identity-debiased latents."""

import dataclasses
import json
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
from genie_robotics.models.quantizers.config import CodebookConfig
from genie_robotics.models.video_tokenizer import TokenizerConfig, VideoTokenizer
from genie_robotics.training.config import LoopConfig, StageConfig
from genie_robotics.training.optimizer import Optimizers, rate_at
from genie_robotics.training.run import RunPlan, train_run
from genie_robotics.training.stages import MODES, build_stage, needs
from tests.genie_robotics.conftest import Squares, random_genie, tiny_config
from tests.genie_robotics.test_causality import FRAMES, LOWER, dependence, stir
from tests.genie_robotics.test_learning import LENGTH, SHIFTS, SIZE, SQUARE, agreement
from tests.genie_robotics.test_modes import Source, training


def small_tokenizer() -> VideoTokenizer:
    """16 codes, 4 patches a frame; each frame on its own, so that what the tokens know of the past is out of play."""
    return stir(
        VideoTokenizer(
            TokenizerConfig(
                image_size=(16, 16),
                clip_length=FRAMES,
                patch=8,
                encoder_width=16,
                encoder_blocks=1,
                encoder_heads=2,
                decoder_width=16,
                decoder_blocks=1,
                decoder_heads=2,
                codebook=CodebookConfig(kind="fsq", num_codes=16, latent_dim=8),
            )
        )
    )


def lam(**changes) -> LatentActionModel:
    config = LatentActionConfig(
        image_size=(16, 16),
        clip_length=FRAMES,
        patch=8,
        width=16,
        encoder_blocks=2,
        decoder_blocks=2,
        heads=2,
        codebook=CodebookConfig(num_codes=4, latent_dim=8),
        **changes,
    )
    return stir(LatentActionModel(config, small_tokenizer()))


# ---- mean pool


def test_mean_pool_has_no_parameters_and_is_the_mean():
    attention, mean = lam(), lam(pool="mean")
    gone = {name for name in attention.state_dict()} - {name for name in mean.state_dict()}
    assert gone == {name for name in attention.state_dict() if name.startswith("pool.")} != set()
    x = torch.randn(2, 3, 4, 16)
    assert torch.equal(mean.pool(x), x.sum(2) / 4)


# ---- debiased latents


@pytest.mark.parametrize("see_change", [False, True])
@pytest.mark.parametrize("pool", ["attention", "mean"])
def test_an_unchanged_pair_has_no_latent_and_a_changed_one_is_counted_from_it(see_change, pool):
    model = lam(debias=True, encoder_history=False, see_change=see_change, pool=pool)
    frames = torch.rand(2, FRAMES, 16, 16, 3, dtype=torch.double)
    frames[:, 2] = frames[:, 1]
    latents = model.latents(frames)
    assert latents[:, 1].abs().max() < 1e-12
    assert (latents[:, [0, 2, 3]].abs().amax(-1) > 1e-3).all()
    plain = lam(encoder_history=False, see_change=see_change, pool=pool)
    plain.load_state_dict(model.state_dict())
    for t in range(FRAMES - 1):
        step, still = frames[:, [t, t + 1]], frames[:, [t, t]]
        torch.testing.assert_close(latents[:, t : t + 1], plain.latents(step) - plain.latents(still))


def test_debiased_latents_still_see_their_two_frames_only():
    frames = torch.rand(1, FRAMES, 16, 16, 3, dtype=torch.double)
    expected = torch.ones(FRAMES - 1, FRAMES).tril(1).triu(0).bool()
    model = lam(debias=True, encoder_history=False)
    assert torch.equal(dependence(model.latents, frames, FRAMES - 1), expected)


# ---- tokens


@pytest.mark.parametrize("see_change", [False, True])
@pytest.mark.parametrize("history", [False, True])
def test_with_tokens_a_t_is_read_from_tokens_up_to_t_plus_1(see_change, history):
    model = lam(input="tokens", see_change=see_change, encoder_history=history)
    seen = torch.randn(1, FRAMES, 4, 8, dtype=torch.double)
    expected = torch.ones(FRAMES - 1, FRAMES).tril(1).triu(-FRAMES if history else 0).bool()
    assert torch.equal(dependence(model.latents_of, seen, FRAMES - 1), expected)


@pytest.mark.parametrize("history", [False, True])
def test_with_tokens_frame_t_plus_1_is_predicted_from_tokens_up_to_t_and_a_t(history):
    model = lam(input="tokens", decoder_history=history)
    tokens = torch.randint(0, 16, (1, FRAMES, 4))
    actions = torch.randn(1, FRAMES, 8, dtype=torch.double)
    seen = LOWER if history else torch.eye(FRAMES).bool()
    assert torch.equal(dependence(lambda a: model.token_logits(tokens, a), actions, FRAMES), seen)
    logits = model.token_logits(tokens, actions)
    assert logits.shape == (1, FRAMES, 4, 16)
    for t in range(FRAMES):
        changed = tokens.clone()
        changed[:, t] = (changed[:, t] + 1) % 16
        moved = (model.token_logits(changed, actions) - logits).abs().amax(dim=(0, 2, 3)) > 0
        assert torch.equal(moved, seen[:, t])


def test_the_loss_is_the_cross_entropy_of_the_next_frames_tokens():
    model = lam(input="tokens")
    tokens = torch.randint(0, 16, (2, FRAMES, 4))
    actions = torch.randn(2, FRAMES - 1, 8, dtype=torch.double)
    loss, share = model.token_error(tokens, actions)
    log_p = model.token_logits(tokens[:, :-1], actions).log_softmax(-1)
    of_next = [log_p[b, t, n, tokens[b, t + 1, n]] for b in range(2) for t in range(FRAMES - 1) for n in range(4)]
    torch.testing.assert_close(loss, -torch.stack(of_next).mean())
    wrong = (log_p.argmax(-1) != tokens[:, 1:]).sum()
    assert float(share) == pytest.approx(float(wrong / (tokens[:, 1:] != tokens[:, :-1]).sum()))


def test_the_prediction_starts_at_nothing_moves():
    torch.manual_seed(0)
    config = lam(input="tokens").config
    model = LatentActionModel(config, small_tokenizer().float())
    tokens = torch.randint(0, 16, (2, FRAMES, 4))
    logits = model.token_logits(tokens, torch.randn(2, FRAMES, 8))
    assert torch.equal(logits.argmax(-1), tokens)
    stays = logits.softmax(-1).gather(-1, tokens[..., None])
    torch.testing.assert_close(stays, torch.full_like(stays, 16 / 31))
    assert float(model.token_error(tokens, torch.randn(2, FRAMES - 1, 8))[1]) == 1
    bare = LatentActionModel(dataclasses.replace(config, predict_change=False), small_tokenizer().float())
    assert not torch.equal(bare.token_logits(tokens, torch.randn(2, FRAMES, 8)).argmax(-1), tokens)


# ---- tokens: learning

HOME = 12
"""Of the square's corner, in pixels; it jumps out by one of SHIFTS and back, and out again."""
BACK = torch.tensor([1, 0, 3, 2])


def outings(num: int, length: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """As `movers`, but from one place, out and back: clips (num, length, SIZE, SIZE, 3), shifts (num, length-1).

    From several places the toy would ask for more than can be known: a code may mean one shift here and another there
    and explain all. Where the corner is inside its cell of 4 pixels, and the background, are drawn: tokens lose it.
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
    """Loses nothing of where the square is, in cells of 4 pixels: the token of a patch of 2 x 2 cells says which it
    covers; the vector of a token repeats these four bits as -1 and 1."""

    def __init__(self):
        super().__init__(
            TokenizerConfig(
                image_size=(SIZE, SIZE),
                clip_length=LENGTH,
                patch=8,
                encoder_width=8,
                encoder_blocks=1,
                encoder_heads=1,
                decoder_width=8,
                decoder_blocks=1,
                decoder_heads=1,
                codebook=CodebookConfig(kind="fsq", num_codes=16, latent_dim=16),
            )
        )
        self.codebook = Corners()

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


def test_from_exact_tokens_the_shifts_of_a_square_are_learnt():
    """As tests/genie_robotics/test_learning.py, from tokens alone: each shift a code, at its time, and obeyed."""
    torch.manual_seed(0)
    model = LatentActionModel(
        LatentActionConfig(
            image_size=(SIZE, SIZE),
            clip_length=LENGTH,
            width=48,
            encoder_blocks=1,
            decoder_blocks=1,
            heads=2,
            input="tokens",
            encoder_history=False,
            decoder_history=False,
            action_input="modulate",
            codebook=CodebookConfig(num_codes=4, latent_dim=8, start_after=100),
        ),
        ExactTokens(),
    )
    clips, shifts = outings(256, 2, seed=1)
    # With 160 steps at twice the rate, two of five seeds had not got there.
    schedule = StageConfig(steps=240, learning_rate=3e-3, matrix_rate=0.01, beta2=0.95, warmup=10, decay=0.4)
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
    codes, shifts = model.encode(clips)[:, ::2], shifts[:, ::2]  # on the way back the shift needs no telling
    assert agreement(codes, shifts) > 0.95
    assert agreement(codes[:, 1:], shifts[:, :-1]) < 0.6, "a code must not tell the shift before"
    assert agreement(codes[:, :-1], shifts[:, 1:]) < 0.6, "a code must not tell the shift after"
    meaning = {int(code): int(shifts[codes == code].mode().values) for code in codes.unique()}
    assert sorted(meaning.values()) == [0, 1, 2, 3]
    moved, _ = outings(1, 2, seed=3)
    home = model.tokens.read(moved[:, :1] / 255)
    for code, shift in meaning.items():
        action = model.codebook.lookup(torch.tensor([[code]]))
        there = moved[:, :1].roll(tuple(int(s) for s in SHIFTS[shift]), dims=(2, 3))
        assert torch.equal(model.token_logits(home, action).argmax(-1), model.tokens.read(there / 255)), code


# ---- tokens: inside Genie


def token_config(**changes) -> GenieConfig:
    config = tiny_config()
    part = dataclasses.replace(config.latent_action, input="tokens", **changes)
    return dataclasses.replace(config, latent_action=part).resolved()


def test_the_tokenizer_stays_no_part_of_the_latent_action_model(tmp_path, frames):
    genie = random_genie(token_config())
    assert genie.latent_action.tokens.tokenizer is genie.tokenizer
    assert genie.latent_action.num_patches == genie.tokenizer.num_patches == 16
    assert not any("tokenizer" in name for name in genie.latent_action.state_dict())
    assert all(m is not genie.tokenizer for m in genie.latent_action.modules())
    genie.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "latent_action" / "model.safetensors")
    assert stored.keys() == genie.latent_action.state_dict().keys()
    again = Genie.from_pretrained(tmp_path)
    assert again.latent_action.tokens.tokenizer is again.tokenizer
    assert torch.equal(genie.embed_actions(frames), again.embed_actions(frames))
    assert torch.equal(genie.infer_actions(frames), again.infer_actions(frames))
    again.tokenizer.patch_in.weight.data.mul_(-1)
    assert not torch.equal(genie.embed_actions(frames), again.embed_actions(frames)), "it reads through the tokenizer"


def test_codes_are_read_from_tokens_alone(frames):
    genie = random_genie(token_config())
    tokens = genie.tokenize(frames[:, :6])
    book, model = genie.tokenizer.codebook, genie.latent_action
    expected = model.codebook.nearest(model.latents_of(book.lookup(tokens)))
    assert torch.equal(genie.infer_actions(frames[:, :6]), expected)


def test_dreams_are_the_same_cached_and_not(frames):
    genie = random_genie(token_config()).double()
    codes = torch.tensor([[0, 1, 2, 3, 0, 1, 2]] * 3)
    dreams = [genie.generate(frames[:, :4], codes, seed=1, use_cache=use_cache) for use_cache in (True, False)]
    assert torch.equal(*dreams)


def test_the_tokenizer_does_not_learn_from_the_latent_actions():
    genie = random_genie(token_config())
    for stage, mode in (("latent_action", "frozen"), ("joint", "cotrain")):
        module = build_stage(genie, stage, mode)
        module(torch.from_numpy(Squares(4, 6).video))[0].backward()
        assert all(p.grad is None for p in genie.tokenizer.parameters())
        assert all(p.grad is not None for p in genie.latent_action.parameters())
        genie.zero_grad()


@pytest.mark.parametrize("see_change", [False, True])
def test_frames_predicted_from_tokens_are_those_of_the_likeliest_tokens(frames, see_change):
    genie = random_genie(token_config(see_change=see_change))
    model, unit = genie.latent_action, frames[:, :6] / 255
    actions = torch.randn(3, 5, 8)
    shown = model.predict(unit[:, :-1], actions)
    assert shown.shape == unit[:, 1:].shape
    tokens = genie.tokenize(frames[:, :5])
    following = model.token_logits(tokens, actions).argmax(-1)
    expected = genie.tokenizer.pixels(genie.tokenizer.codebook.lookup(torch.cat([tokens[:, :1], following], 1)))
    torch.testing.assert_close(shown, expected[:, 1:])
    explained, codes = motion_explained(genie, frames[:, :6], seed=0)
    assert codes.shape == (3, 5)
    assert all(math.isfinite(value) for value in explained.values())


# ---- training, files


def train(run, config: GenieConfig, mode: str, stage: str = "all") -> None:
    plan = RunPlan(config, training(mode), LoopConfig(quiet=True, save_every=4, watch_every=4), stage=stage)
    train_run(run, Source(), "train", plan)


VARIANTS = {
    "tokens": {"input": "tokens"},
    "tokens, debiased, mean": {"input": "tokens", "encoder_history": False, "debias": True, "pool": "mean"},
    "pixels, debiased": {"encoder_history": False, "debias": True},
}


@pytest.mark.parametrize(
    ("variant", "mode"),
    [*(("tokens", mode) for mode in MODES), ("tokens, debiased, mean", "frozen"), ("pixels, debiased", "cotrain")],
)
def test_all_stages_train_and_the_run_plays(tmp_path, monkeypatch, clips, variant, mode):
    monkeypatch.setattr("genie_robotics.training.run.open_clips", lambda *_: clips)
    config = tiny_config()
    part = dataclasses.replace(config.latent_action, **VARIANTS[variant])
    config = dataclasses.replace(config, latent_action=part).resolved()
    train(tmp_path / "run", config, mode)
    genie = Genie.from_pretrained(tmp_path / "run")
    assert genie.config.latent_action == config.latent_action
    frames = torch.from_numpy(Squares(2, 8).video)
    codes = genie.infer_actions(frames)
    assert genie.generate(frames[:, :2], codes).shape == frames[:, 1:].shape
    before = {name: (tmp_path / "run" / name / "model.safetensors").read_bytes() for name in COMPONENTS}
    train(tmp_path / "run", config, mode)  # the same command again: nothing is left to do, nothing moves
    assert before == {name: (tmp_path / "run" / name / "model.safetensors").read_bytes() for name in COMPONENTS}


def test_tokens_of_an_untrained_tokenizer_are_refused():
    with pytest.raises(UserError, match="latent_action reads tokens, and the tokenizer is not trained"):
        build_stage(Genie(token_config()), "latent_action", "frozen")
    build_stage(Genie(tiny_config()), "latent_action", "frozen")


def test_a_token_model_needs_the_tokenizer_first():
    for mode in ("frozen", "warmup"):
        assert needs("latent_action", mode) == ()
        assert needs("latent_action", mode, "tokens") == ("tokenizer",)
    assert needs("joint", "cotrain", "tokens") == ("tokenizer",)
    assert needs("tokenizer", "frozen", "tokens") == ()


def test_runs_from_before_have_the_defaults(tmp_path, frames):
    genie = random_genie(tiny_config())
    genie.save_pretrained(tmp_path)
    for path, entry in ((tmp_path / "config.json", "model"), (tmp_path / "latent_action" / "config.json", None)):
        content = json.loads(path.read_text())
        part = content[entry]["latent_action"] if entry else content
        for name in ("input", "pool", "debias"):
            del part[name]
        path.write_text(json.dumps(content))
    again = Genie.from_pretrained(tmp_path)
    assert again.config == genie.config
    assert torch.equal(genie.infer_actions(frames), again.infer_actions(frames))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input": "audio"}, "input must be pixels or tokens"),
        ({"pool": "max"}, "pool must be attention or mean"),
        ({"debias": True}, "debias needs encoder_history False"),
        ({"input": "tokens", "motion_weight": 1.0}, "motion_weight is for pixels"),
    ],
)
def test_what_cannot_be_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        LatentActionConfig(**changes)


def test_a_token_model_without_a_tokenizer_is_refused():
    with pytest.raises(ValueError, match="needs the tokenizer"):
        LatentActionModel(LatentActionConfig(input="tokens"))
